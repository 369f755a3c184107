"""Searches that take seconds, on a storage that the whole test run shares, so that it is profiled once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import ray
from mlflow import MlflowClient
from mlflow.entities import Run

from dynarch import Budget, Data, EarlyExit, Problem, Recipe, Residual, SearchService, Space, Strategy
from dynarch.benchmarks.deaths.verdict import remains, violations
from dynarch.evaluators.data import from_arrays
from dynarch.search.ledger import Evaluation, Ledger
from dynarch.search.problem import Constraint
from dynarch.search.samplers import Study, TrialRecord
from dynarch.tests.endings import at_end

os.environ |= {"RAY_worker_niceness": "0"}  # else workers wait for everything else on a busy machine
PATIENCE_SECONDS = 400.0  # before a test gives up on a machine that others use too
TRIALS = 5

SPACE = Space(
    backbones=(Residual(width=(4,), depth=(1,), stages=3),),
    families=(EarlyExit(max_exits=2, heads=("linear",)),),
    training=Recipe(learning_rate=(0.02,), batch_size=16),
)
SPEC = """
[search]
name = "tiny"
seed = {seed}
rungs = false
points = 6
front = 3
[budget]
trials = {trials}
epochs = {epochs}
workers = {workers}
[data]
source = "{data}"
[space.backbones.residual]
width = [4]
depth = [1]
stages = 3
[space.families.early_exit]
max_exits = 2
heads = ["linear"]
[space.training]
learning_rate = [0.02]
batch_size = 16
[devices.cpu]
kind = "cpu"
"""


@cache
def tiny_data() -> Data:
    """Three patterns of 8 x 8 pixels under noise of varying strength: easy and hard inputs."""
    generator = np.random.default_rng(0)
    y = np.arange(300) % 3
    patterns, strength = generator.normal(size=(3, 1, 8, 8)), generator.uniform(0.3, 2.2, size=(300, 1, 1, 1))
    noise = strength * generator.normal(size=(300, 1, 8, 8))
    return from_arrays((patterns[y] + noise).astype(np.float32), y, name="patterns")


def tiny_problem(
    *,
    trials: int = TRIALS,
    epochs: int = 3,
    workers: int = 2,
    seed: int = 0,
    rungs: bool = False,
    sampler: str = "tpe",
    constraints: tuple[Constraint, ...] = (),
) -> Problem:
    """A search over 13 networks: one backbone, exits after its first and second block, four objectives."""
    return Problem(
        space=SPACE,
        data=tiny_data(),
        constraints=constraints,
        budget=Budget(trials=trials, epochs=epochs, workers=workers),
        # few points, as every point of the front is timed on the device
        strategy=Strategy(name="tiny", seed=seed, sampler=sampler, rungs=rungs, points=6, front=3),
    )


def tiny_spec(folder: Path, *, trials: int = TRIALS, epochs: int = 3, workers: int = 2, seed: int = 0) -> Path:
    """The same search as a file, with its data beside it."""
    data = tiny_data()
    np.savez(folder / "patterns.npz", x=data.x, y=data.y)
    spec = folder / "tiny.toml"
    spec.write_text(SPEC.format(seed=seed, trials=trials, epochs=epochs, workers=workers, data="patterns.npz"))
    return spec


@cache
def shared_storage() -> Path:
    """A storage for the whole test run."""
    folder = Path(tempfile.mkdtemp(prefix="dynarch-tiny-"))
    at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder


def shared_service() -> SearchService:
    """A service over the shared storage."""
    return SearchService(shared_storage())


@contextmanager
def local_ray() -> Iterator[None]:
    """A cluster of two CPUs that the searches of this process share, so that only the first one waits for it."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    try:
        yield
    finally:
        ray.shutdown()


# -- what is there --------------------------------------------------------------------------------------------


def evaluations(service: SearchService, search_id: str) -> tuple[Evaluation, ...]:
    """The candidates in the ledger."""
    with Ledger.open(service.storage.ledger_url) as ledger:
        return ledger.evaluations(search_id)


def trials(service: SearchService, search_id: str) -> list[TrialRecord]:
    """The trials in the study."""
    study = Study(service.storage.study_url, search_id, directions=("maximize", "minimize"), sampler="tpe", seed=0)
    return list(study.trials())


@dataclass(frozen=True)
class Tracked:
    """A search in MLflow."""

    client: MlflowClient
    parents: list[Run]
    children: list[Run]

    @property
    def numbers(self) -> list[int]:
        """Which candidates have a run, one number a run."""
        return sorted(int(run.data.tags["dynarch.number"]) for run in self.children)

    @property
    def states(self) -> set[str]:
        """The states of all runs."""
        return {run.info.status for run in (*self.parents, *self.children)}


def tracked(service: SearchService, search_id: str) -> Tracked:
    """What MLflow has of a search."""
    client = MlflowClient(service.storage.tracking_uri)
    experiment = client.get_experiment_by_name("dynarch")
    runs = client.search_runs([experiment.experiment_id], f"tags.`dynarch.search_id` = '{search_id}'", max_results=500)
    kinds: dict[str, list[Run]] = {"search": [], "candidate": []}
    for run in runs:
        kinds[run.data.tags["dynarch.kind"]].append(run)
    return Tracked(client, kinds["search"], kinds["candidate"])


def assert_recorded_once(service: SearchService, search_id: str, asked: int) -> None:
    """Asked is recorded, once each, and nothing is left open in ledger, study or MLflow."""
    assert violations(remains(service.storage, search_id), asked, {}) == ()


# -- processes ------------------------------------------------------------------------------------------------


@dataclass
class Command:
    """The command line in a process and a session of its own, so that signals reach what a terminal reaches."""

    process: subprocess.Popen[str]
    out: Path

    def interrupt(self, number: signal.Signals) -> None:
        """Signal the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill the driver alone, in the hardest way."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; exit code, output and errors."""
        code = self.process.wait(PATIENCE_SECONDS)
        return code, self.out.with_suffix(".out").read_text(), self.out.with_suffix(".err").read_text()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Look every 50 milliseconds whether something has come about, as long as the command runs."""
        start = time.monotonic()
        while not condition():
            assert self.process.poll() is None, f"ended before: {what}\n{self.ended()}"
            assert time.monotonic() - start < PATIENCE_SECONDS, f"never came about: {what}"
            time.sleep(0.05)

    def kill_worker(self) -> None:
        """Kill one of its workers, as soon as it has any."""
        driver = psutil.Process(self.process.pid)
        self.wait_until(lambda: bool(workers_below(driver)), "a worker")
        _kill(workers_below(driver)[0])

    def offspring(self) -> list[psutil.Process]:
        """All processes that it has started, and those that they have started."""
        return list(psutil.Process(self.process.pid).children(recursive=True))


@contextmanager
def command(folder: Path, *arguments: object) -> Iterator[Command]:
    """Start `dynarch` with these arguments; whatever it leaves is killed in the end."""
    out = folder / f"command{time.monotonic_ns()}"
    line = [sys.executable, "-c", "from dynarch.service import main; main()", *map(str, arguments)]
    with out.with_suffix(".out").open("w") as stdout, out.with_suffix(".err").open("w") as stderr:
        process = subprocess.Popen(line, stdout=stdout, stderr=stderr, text=True, cwd=folder, start_new_session=True)
    try:
        yield Command(process, out)
    finally:
        if process.poll() is None:
            doomed = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for each in doomed:
                _kill(each)
            process.wait(60)


def run_command(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Run `dynarch` to its end."""
    with command(folder, *arguments) as running:
        return running.ended()


def survivors(processes: Sequence[psutil.Process]) -> list[str]:
    """Which of these live on although they had time to end."""
    _, alive = psutil.wait_procs(processes, timeout=180)
    return [each.name() for each in alive]


@contextmanager
def killing_workers(doomed: Callable[[], bool], *, most: int) -> Iterator[list[int]]:
    """Kill this process's search workers with signal 9 while `doomed` says so; the ids of those killed."""
    killed: list[int] = []
    over = threading.Event()

    def hunt() -> None:
        while not over.wait(0.05) and len(killed) < most:
            for worker in workers_of_this_process():
                if len(killed) < most and worker.pid not in killed and doomed():
                    _kill(worker)
                    killed.append(worker.pid)

    thread = threading.Thread(target=hunt)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def workers_of_this_process() -> list[psutil.Process]:
    """The processes in which the candidates of this process's searches are trained."""
    return workers_below(psutil.Process())


def workers_below(process: psutil.Process) -> list[psutil.Process]:
    """The processes in which candidates are trained, among those that a process has started."""
    found = []
    for each in process.children(recursive=True):
        try:
            title = " ".join(each.cmdline())
            if title.startswith(("ray::_Evaluation", "ray::ResourceTrainable")):  # idle, at work
                found.append(each)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
