"""What does a trial cost that trains nothing? A search of dynarch beside stock Ray Tune + Optuna + MLflow.

    python benchmarks/overhead.py [--trials 100 1000 10000] [--seeds 3] [--stock-most 1000] [--at DIR]

A trial of `ours` is proposed, recorded in the ledger, placed by Ray Tune, told to Optuna and written to MLflow, all of
it durable: the search is launched and driven as any other, only that its evaluator trains nothing. A trial of `stock`
is one of `Tuner` with `OptunaSearch` (in memory) and `MLflowLoggerCallback`, in its fastest form: a class, with
`reuse_actors` and without the files that Tune writes for every trial. Both ask a multi-objective TPE for as many
parameters, run two workers at once, and write to an MLflow store in SQLite.

Every run is a fresh process. `cost` is wall time a trial from the end of the first trial to the end of all, when
everything is written; `set-up` is what comes before: Ray, the databases, the first actors and the first trial. `last`
is the cost of the last tenth of the trials, `cpu` the processor time of the driver a trial, which tells more on a
machine that others use too, and `last cpu` that of the last tenth. Memory is that of the driver: the largest
proportional set size seen in looks a second apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_AIR_NEW_OUTPUT": "0"}

import numpy as np
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune import CheckpointConfig, RunConfig, TuneConfig, Tuner
from ray.tune.search.optuna import OptunaSearch

from dynarch import Budget, Problem, SearchService, Strategy
from dynarch.hardware.book import DevicePages, LatencyBook
from dynarch.hardware.correction import IDENTITY
from dynarch.search.storage import BOOK

WORKERS = 2
REFERENCE = (0.0, 6.0)  # worse than any made-up point
PARAMETERS = 16  # of a stock trial; `ours` says how many its own have on average


# -- the two sides --------------------------------------------------------------------------------------------


def ours(trials: int, seed: int, folder: Path) -> dict[str, float]:
    """A search of the default space on the digits; its latencies are made up, so there is nothing to profile."""
    service = SearchService(folder)
    problem = Problem(
        budget=Budget(trials=trials, epochs=1, workers=WORKERS),
        strategy=Strategy(name="overhead", seed=seed, rungs=False, evaluator="nothing"),
    )
    service.storage.keep_data(problem.data)
    with service.storage.open_ledger() as ledger:
        ledger.create_search(
            "s", name="overhead", spec=problem.to_mapping(), seed=seed, created_at=time.time(), data_id=problem.data.id
        )
        ledger.set_hypervolume_reference("s", REFERENCE)
    book = LatencyBook({"cpu": DevicePages(1, "none", "none", IDENTITY, {})})
    place = service.storage.search_folder("s")
    place.mkdir(parents=True)
    (place / BOOK).write_text(json.dumps(book.to_mapping()))
    service.get("s").resume().wait()
    end = time.time()
    with service.storage.open_ledger() as ledger:
        evaluations = ledger.evaluations("s")
    assert len(evaluations) == trials
    assert all(each.told and each.logged and each.state == "finished" for each in evaluations)
    ends = sorted(each.finished_at or 0.0 for each in evaluations)
    asked = statistics.mean(len(each.params) + 1 for each in evaluations)
    return {"began": ends[0], "end": end, "parameters": asked} | _tenth(ends)


class Idle(tune.Trainable):  # type: ignore[misc]
    """A stock trial: two made-up values, once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the configuration."""
        self._seed = json.dumps(config, sort_keys=True)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next one."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The values."""
        generator = np.random.default_rng(list(self._seed.encode()))
        return {"accuracy": generator.uniform(0.5, 1), "latency_ms": generator.uniform(1, 5), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing."""


def stock(trials: int, seed: int, folder: Path) -> dict[str, float]:
    """The same number of trials by the usual three."""
    import logging

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ends: list[float] = []

    class Clock(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ends.append(time.time())

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    half = PARAMETERS // 2
    space = {f"c{i}": tune.choice([0, 1, 2]) for i in range(half)} | {f"f{i}": tune.uniform(0, 1) for i in range(half)}
    tracking = f"sqlite:///{folder / 'mlflow.db'}"
    callback = MLflowLoggerCallback(tracking_uri=tracking, experiment_name="overhead", save_artifact=False)
    tuner = Tuner(
        tune.with_resources(Idle, {"cpu": 1}),
        param_space=None,
        tune_config=TuneConfig(
            search_alg=OptunaSearch(space, metric=["accuracy", "latency_ms"], mode=["max", "min"], seed=seed),
            num_samples=trials,
            max_concurrent_trials=WORKERS,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name="stock",
            storage_path=str(folder),
            callbacks=[callback, Clock()],
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    results = tuner.fit()
    end = time.time()
    assert len(results) == trials
    ray.shutdown()
    return {"began": ends[0], "end": end, "parameters": float(PARAMETERS)} | _tenth(ends)


def _tenth(ends: Sequence[float]) -> dict[str, float]:
    """When the last tenth began and ended, and of how many trials it is."""
    count = max(len(ends) // 10, 1)
    return {"from": ends[-1 - count], "to": ends[-1], "of": float(count)}


SIDES = {"ours": ours, "stock": stock}


# -- one run, in a process of its own -------------------------------------------------------------------------


Look = tuple[float, float, int]  # epoch seconds, processor seconds of this process, its proportional set size in bytes


@contextmanager
def watched() -> Iterator[list[Look]]:
    """What this process takes, looked at every second."""
    looks: list[Look] = []
    over = threading.Event()

    def look() -> None:
        while True:
            rollup = Path("/proc/self/smaps_rollup").read_text()
            here = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            looks.append((time.time(), time.process_time(), 1024 * here))
            if over.wait(1.0):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


def cpu_between(looks: Sequence[Look], start: float, end: float) -> float:
    """Processor seconds between two times, interpolated."""
    times, cpu = [each[0] for each in looks], [each[1] for each in looks]
    return float(np.interp(end, times, cpu) - np.interp(start, times, cpu))


def one(side: str, trials: int, seed: int, folder: Path) -> dict[str, float]:
    """Run one side; its times in seconds and its memory in bytes."""
    start = time.time()
    with watched() as looks:
        found = SIDES[side](trials, seed, folder)
    return {
        "cost": (found["end"] - found["began"]) / (trials - 1),
        "last": (found["to"] - found["from"]) / found["of"],
        "cpu": cpu_between(looks, found["began"], found["end"]) / (trials - 1),
        "last_cpu": cpu_between(looks, found["from"], found["to"]) / found["of"],
        "set_up": found["began"] - start,
        "parameters": found["parameters"],
        "peak_bytes": float(max(each[2] for each in looks)),
    }


def in_a_process(side: str, trials: int, seed: int, at: Path | None) -> dict[str, float]:
    """The same in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="overhead-", dir=at) as folder:
        command = [sys.executable, "-m", "dynarch.benchmarks.overhead", "--one", side, str(trials), str(seed), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} {trials} {seed} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


# -- all of them ----------------------------------------------------------------------------------------------


def shown(values: Sequence[float], unit: float = 1.0, digits: int = 3) -> str:
    """Median and range."""
    scaled = sorted(value / unit for value in values)
    middle = f"{statistics.median(scaled):.{digits}f}"
    return middle if len(scaled) == 1 else f"{middle} [{scaled[0]:.{digits}f}, {scaled[-1]:.{digits}f}]"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--seeds", type=int, default=3, help="of each size; one of sizes above 1,000")
    parser.add_argument("--stock-most", type=int, default=1000, help="trials that stock is asked for at the most")
    parser.add_argument("--at", type=Path, help="folder for the stores")
    parser.add_argument("--one", nargs=4, metavar=("SIDE", "TRIALS", "SEED", "FOLDER"), help="one run, as JSON")
    chosen = parser.parse_args()
    if chosen.one:
        side, trials, seed, folder = chosen.one
        print(json.dumps(one(side, int(trials), int(seed), Path(folder))))
        return
    costs: dict[tuple[str, int], list[float]] = {}
    for trials in chosen.trials:
        for side in SIDES:
            if side == "stock" and trials > chosen.stock_most:
                continue
            seeds = range(chosen.seeds if trials <= 1000 else 1)
            runs = [in_a_process(side, trials, seed, chosen.at) for seed in seeds]
            costs[side, trials] = [run["cost"] for run in runs]
            print(
                f"{side:6}{trials:7} trials: cost {shown(costs[side, trials])} s,"
                f" last {shown([run['last'] for run in runs])} s, cpu {shown([run['cpu'] for run in runs])} s,"
                f" last cpu {shown([run['last_cpu'] for run in runs])} s,"
                f" set-up {shown([run['set_up'] for run in runs], digits=1)} s,"
                f" driver {shown([run['peak_bytes'] for run in runs], 2**20, 0)} MiB,"
                f" {runs[0]['parameters']:.1f} parameters",
                flush=True,
            )
        if ("stock", trials) in costs:
            pairs = zip(costs["ours", trials], costs["stock", trials], strict=True)
            print(f"      {trials:7} trials: ours / stock {shown([a / b for a, b in pairs])}", flush=True)
    least, most = min(chosen.trials), max(chosen.trials)
    growth = statistics.median(costs["ours", most]) / statistics.median(costs["ours", least])
    print(f"ours: a trial of {most} costs {growth:.2f} of one of {least}")


if __name__ == "__main__":
    main()
