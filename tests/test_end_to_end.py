"""Searches that are killed, interrupted, cancelled and robbed of their workers: asked is recorded, once each."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import ray

from dynarch import Search, SearchService
from dynarch.search.ledger import Evaluation, Ledger
from dynarch.search.tune import RETRIES
from dynarch.spaces.errors import SearchBusyError, StoreError
from dynarch.tests.tiny_searches import (
    PATIENCE_SECONDS,
    Command,
    assert_recorded_once,
    command,
    killing_workers,
    local_ray,
    shared_service,
    shared_storage,
    survivors,
    tiny_problem,
    tiny_spec,
    trials,
)

slow = pytest.mark.slow  # the tests that start three drivers and more, or wait for workers that die


@pytest.fixture(scope="module")
def service() -> SearchService:
    return shared_service()


@pytest.fixture(scope="module")
def ledger(service: SearchService) -> Iterator[Ledger]:
    """Kept open, as it is looked at every few milliseconds."""
    with service.storage.open_ledger() as opened:
        yield opened


def ids(ledger: Ledger) -> set[str]:
    return {search.id for search in ledger.searches()}


def ended(ledger: Ledger, search_id: str) -> dict[int, Evaluation]:
    return {each.number: each for each in ledger.evaluations(search_id) if each.terminal}


def appeared(running: Command, ledger: Ledger, before: set[str]) -> str:
    """The id of the search that the command launches."""
    running.wait_until(lambda: len(ids(ledger) - before) == 1, "a new search in the ledger")
    (search_id,) = ids(ledger) - before
    return search_id


def outcome(evaluation: Evaluation) -> tuple[object, ...]:
    """What a second training would change: how often it was begun, when it ended, how long it took, its results."""
    return evaluation.state, evaluation.attempts, evaluation.finished_at, evaluation.seconds, evaluation.metrics


# -- the driver dies ------------------------------------------------------------------------------------------


@slow
def test_a_search_that_lost_a_worker_and_its_driver_is_finished_by_one_of_two_that_resume_it(
    service: SearchService, ledger: Ledger, tmp_path: Path
) -> None:
    """A short run of what `benchmarks/chaos.py` does at length."""
    asked, before = 6, ids(ledger)
    spec = tiny_spec(tmp_path, trials=asked, epochs=6)
    with command(tmp_path, "search", spec, "--storage", shared_storage()) as running:
        search_id = appeared(running, ledger, before)
        running.kill_worker()
        running.wait_until(lambda: len(ended(ledger, search_id)) >= 2, "two candidates ended")
        offspring = running.offspring()
        running.kill()
    at_death = ended(ledger, search_id)
    assert 2 <= len(at_death) < asked
    assert service.get(search_id).status().state == "running"  # nobody was left to say otherwise
    again = ("resume", search_id, "--storage", shared_storage())
    with command(tmp_path, *again) as first, command(tmp_path, *again) as second:
        drivers = {first.process.pid: first.ended(), second.process.pid: second.ended()}
    (done, (code, out, _)), (_, (refused, _, err)) = sorted(drivers.items(), key=lambda each: each[1][0])
    assert (code, refused) == (0, 1)
    assert err.startswith(f"error: search '{search_id}' is held by '{socket.gethostname()}:{done}:")
    assert f"wrote {shared_storage() / 'searches' / search_id / 'report' / 'front.html'}" in out
    assert_recorded_once(service, search_id, asked)
    assert service.get(search_id).status().state == "finished"
    now = ended(ledger, search_id)
    assert {each.state for each in now.values()} == {"finished"}
    assert {number: outcome(now[number]) for number in at_death} == {n: outcome(e) for n, e in at_death.items()}
    assert offspring
    assert survivors(offspring) == []


# -- somebody ends it -----------------------------------------------------------------------------------------


def begun(running: Command, ledger: Ledger, search_id: str, count: int) -> list[psutil.Process]:
    """Wait until so many candidates have ended; what the command has started by then."""
    running.wait_until(lambda: len(ended(ledger, search_id)) >= count, f"{count} candidates ended")
    return running.offspring()


def assert_saved(service: SearchService, search_id: str, stopped: tuple[int, str, str]) -> None:
    """After Ctrl-C: the exit code that shells expect, the way to go on, and the state."""
    code, _, err = stopped
    assert code == 130
    assert err.strip().endswith(f"continue with: dynarch resume {search_id} --storage {shared_storage()}")
    assert len(err.strip().splitlines()) == 1
    assert service.get(search_id).status().state == "interrupted"


@slow
def test_a_search_goes_on_after_every_kind_of_end(service: SearchService, ledger: Ledger, tmp_path: Path) -> None:
    """Ctrl-C, then SIGTERM, then a cancellation from another process; a second driver is refused meanwhile."""
    asked, before = 7, ids(ledger)
    spec = tiny_spec(tmp_path, trials=asked, epochs=8, workers=1)
    started: list[psutil.Process] = []
    with command(tmp_path, "search", spec, "--storage", shared_storage()) as running:
        search_id = appeared(running, ledger, before)
        started += begun(running, ledger, search_id, 1)
        assert_busy(service, search_id, running.process.pid)
        running.interrupt(signal.SIGINT)
        assert_saved(service, search_id, running.ended())
    with command(tmp_path, "resume", search_id, "--storage", shared_storage()) as running:
        started += begun(running, ledger, search_id, 2)
        running.process.terminate()
        assert_saved(service, search_id, running.ended())
    with command(tmp_path, "resume", search_id, "--storage", shared_storage()) as running:
        started += begun(running, ledger, search_id, 3)
        service.get(search_id).cancel()
        code, out, _ = running.ended()
    assert (code, service.get(search_id).status().state) == (0, "cancelled")
    assert f"search {search_id} is cancelled: cancelled on request" in out
    assert survivors(started) == []
    earlier = ended(ledger, search_id)
    assert len(earlier) < asked
    assert service.get(search_id).resume().wait(timeout=PATIENCE_SECONDS) is not None
    assert not ray.is_initialized()  # it had a cluster of its own
    assert_recorded_once(service, search_id, asked)
    now = ended(ledger, search_id)
    assert {number: outcome(now[number]) for number in earlier} == {n: outcome(e) for n, e in earlier.items()}


def assert_busy(service: SearchService, search_id: str, driver: int) -> None:
    """A second driver is told who drives, and changes nothing."""
    with pytest.raises(SearchBusyError, match="is held by") as refused:
        service.get(search_id).resume().wait(timeout=PATIENCE_SECONDS)
    assert refused.value.holder.split(":")[1] == str(driver)
    assert service.get(search_id).status().state == "running"


def test_cancelling_a_search_that_nobody_runs_takes_effect_at_once(service: SearchService, ledger: Ledger) -> None:
    """As after the death of its driver: the holder in the ledger is a process that is no more."""
    spec = tiny_problem().to_mapping()
    ledger.create_search("orphan", name="tiny", spec=spec, seed=0, created_at=0.0)
    holder = f"{socket.gethostname()}:{_dead_process()}:0"
    ledger.acquire("orphan", holder, now=0.0, ttl_seconds=60.0)
    ledger.set_status("orphan", "running")
    service.get("orphan").cancel()
    assert service.get("orphan").status().state == "cancelled"


def _dead_process() -> int:
    """The id of a process that has ended."""
    with psutil.Popen(["true"]) as process:
        process.wait()
        return int(process.pid)


# -- workers die, and MLflow is away --------------------------------------------------------------------------

ONCE, ALWAYS = 0, 2  # the candidates whose workers are killed


@dataclass
class BadDay:
    """A search without MLflow, one of whose workers is killed once and another each time."""

    search: Search
    epochs: int
    warnings: list[str] = field(default_factory=list)
    kills: dict[int, int] = field(default_factory=lambda: {ONCE: 0, ALWAYS: 0})

    def doomed(self, ledger: Ledger) -> bool:
        """Whether the worker at hand is to be killed now."""
        at_work = [each.number for each in ledger.evaluations(self.search.id) if each.state == "running"]
        if not at_work or at_work[0] not in self.kills:
            return False
        number, most = at_work[0], {ONCE: 1, ALWAYS: RETRIES + 1}
        checkpoint = self.search.folder / f"candidates/{number:05d}/checkpoint.pt"
        if self.kills[number] == most[number] or (number == ONCE and not checkpoint.exists()):
            return False
        self.kills[number] += 1
        return True


@pytest.fixture(scope="module")
def bad_day(ledger: Ledger) -> Iterator[BadDay]:
    with local_ray():
        yield _bad_day(ledger)


def _bad_day(ledger: Ledger) -> BadDay:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    problem = tiny_problem(trials=4, epochs=12, workers=1)
    warnings: list[str] = []
    search = SearchService(shared_storage(), tracking=nobody).launch(problem, warn=warnings.append)
    day = BadDay(search, problem.budget.epochs, warnings)
    with killing_workers(lambda: day.doomed(ledger), most=RETRIES + 2):
        assert search.wait(timeout=PATIENCE_SECONDS) is not None
    return day


@slow
def test_a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint(ledger: Ledger, bad_day: BadDay) -> None:
    assert bad_day.kills[ONCE] == 1
    robbed = ended(ledger, bad_day.search.id)[ONCE]
    assert (robbed.state, robbed.epochs_done) == ("finished", bad_day.epochs)
    # A worker reports at the end of its training. The dead one never did, so that what is on record are the
    # epochs after its last checkpoint: all of them would mean that the second worker began from nothing.
    rows: list[Any] = list(robbed.curve or ())
    epochs = [row["epoch"] for row in rows if "train_loss" in row]
    assert epochs[0] > 1
    assert epochs == list(range(epochs[0], bad_day.epochs + 1))


@slow
def test_a_candidate_whose_worker_always_dies_fails_alone(
    service: SearchService, ledger: Ledger, bad_day: BadDay
) -> None:
    assert bad_day.kills[ALWAYS] == RETRIES + 1
    states = {each.number: each.state for each in ledger.evaluations(bad_day.search.id)}
    assert states == {0: "finished", 1: "finished", ALWAYS: "failed", 3: "finished"}
    cause = ended(ledger, bad_day.search.id)[ALWAYS].cause
    assert cause == "its worker died 3 times; out of memory is the usual reason"
    assert {t.state for t in trials(service, bad_day.search.id) if t.candidate == ALWAYS} == {"fail"}
    assert bad_day.search.status().state == "finished"
    assert bad_day.search.front()


@slow
def test_a_search_without_mlflow_says_so_once(bad_day: BadDay) -> None:
    assert len(bad_day.warnings) == 1
    assert bad_day.warnings[0].startswith("MLflow is away, results wait in the ledger for `dynarch resume`: MLflow at")
    assert "\n" not in bad_day.warnings[0]


@slow
def test_what_mlflow_missed_is_written_when_it_is_back(service: SearchService, bad_day: BadDay) -> None:
    search_id = bad_day.search.id
    with pytest.raises(StoreError, match="MLflow is away"):
        bad_day.search.sync()
    assert service.get(search_id).sync() == 4
    assert_recorded_once(service, search_id, 4)
    assert service.get(search_id).sync() == 0
