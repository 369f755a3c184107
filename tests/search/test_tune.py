"""Ray Tune as transport: clusters that come and go, candidates that fail, and messages that cross as plain JSON."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import ray
from ray.tune import Tuner

from dynarch import Budget, Problem, Search, SearchService
from dynarch.search import tune
from dynarch.search.ledger import Ledger
from dynarch.search.tune import transport
from dynarch.spaces.errors import StoreError
from dynarch.tests.tiny_searches import (
    PATIENCE_SECONDS,
    SPACE,
    assert_recorded_once,
    evaluations,
    local_ray,
    shared_service,
    tiny_data,
    tiny_problem,
    trials,
)


@pytest.fixture(scope="module")
def service() -> SearchService:
    return shared_service()


# -- clusters -------------------------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray says about it is several lines of its own affairs; one line of it is kept."""

    def nobody(**_: object) -> None:
        raise ConnectionError("could not connect to 10.0.0.9:6379\nand much more")

    monkeypatch.setattr(ray, "init", nobody)
    with (
        pytest.raises(StoreError, match=r"no Ray cluster at '10\.0\.0\.9:6379' \(could not connect .*\); start one or"),
        tune.cluster("10.0.0.9:6379", cpus=1),
    ):
        pytest.fail("it was entered")


def test_a_cluster_that_does_not_come_up_here_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is busy with something else: the driver waits and tries again."""

    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nand more")

    monkeypatch.setattr(ray, "init", slow)
    with (
        pytest.raises(StoreError, match=r"Ray did not start here \(The current node timed out during startup\.\); see"),
        tune.cluster(None, cpus=1),
    ):
        pytest.fail("it was entered")


def test_auto_without_any_cluster_is_a_mistake_of_the_user() -> None:
    assert not ray.is_initialized()
    with pytest.raises(StoreError, match="no Ray cluster at 'auto'") as refused, tune.cluster("auto", cpus=1):
        pytest.skip("another Ray cluster runs on this machine, so there is one to connect to")
    assert "\n" not in str(refused.value)
    assert not ray.is_initialized()


def test_a_cluster_that_was_killed_is_not_waited_for() -> None:
    """Nobody listens at the port any more; Ray by itself would try for half an hour."""
    with socket.socket() as held:
        held.bind(("", 0))
        port = held.getsockname()[1]
        with (
            pytest.raises(StoreError, match=f"no Ray cluster at '127.0.0.1:{port}' .nothing answers at .*:{port}"),
            tune.cluster(f"127.0.0.1:{port}", cpus=1),
        ):
            pytest.fail("it was entered")
    assert not ray.is_initialized()


def test_servers_of_a_cluster_that_is_started_here_listen_on_this_machine_alone() -> None:
    with tune.cluster(None, cpus=1):
        ours = psutil.Process().children(recursive=True)
        listening = [each for process in ours for each in process.net_connections("tcp") if each.status == "LISTEN"]
    assert len(listening) >= 2  # the raylet, the store of its state
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} <= {"127.0.0.1", "::1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_is_connected_already_is_used_and_left_alone() -> None:
    before = ray.get_runtime_context().get_node_id()
    with tune.cluster(None, cpus=1):
        assert ray.get_runtime_context().get_node_id() == before
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 2


# -- candidates that fail -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hopeless(service: SearchService, cluster: None) -> Search:
    """A search on inputs so large that single precision overflows: no loss is ever a number."""
    data = tiny_data()
    problem = Problem(
        space=SPACE,
        data=(data.x / np.abs(data.x).max() * np.float32(1e38), data.y),
        budget=Budget(trials=3, epochs=2, workers=2),
        strategy=tiny_problem().strategy,
    )
    launched = service.launch(problem)
    report = launched.wait(timeout=PATIENCE_SECONDS)
    assert report is not None
    return launched


def test_candidates_that_fail_are_recorded_with_their_cause(service: SearchService, hopeless: Search) -> None:
    assert_recorded_once(service, hopeless.id, 3)
    for each in evaluations(service, hopeless.id):
        assert each.state == "failed"
        assert each.cause is not None
        assert "the training loss became nan in epoch 1" in each.cause
    assert {trial.state for trial in trials(service, hopeless.id) if trial.candidate is not None} == {"fail"}


def test_a_failed_candidate_leaves_no_files(hopeless: Search) -> None:
    assert list(hopeless.folder.glob("candidates/*/*")) == []


def test_a_search_without_any_finished_candidate_has_an_empty_front(hopeless: Search) -> None:
    assert hopeless.status().state == "finished"
    assert hopeless.front() == ()
    report = hopeless.wait()
    assert report is not None
    assert (report.finished, report.failed, report.front) == (0, 3, ())
    assert (hopeless.folder / "report" / "front.html").exists()


def test_tune_leaves_no_notes(hopeless: Search) -> None:
    assert list((hopeless.folder / "tune").iterdir()) == []


@pytest.mark.usefixtures("cluster")
def test_a_search_whose_time_is_up_ends_with_what_it_has(service: SearchService) -> None:
    """A millisecond: the deadline is past before the first candidate is proposed."""
    budget = Budget(trials=3, epochs=1, workers=1, minutes=0.001 / 60)
    launched = service.launch(Problem(space=SPACE, data=tiny_data(), budget=budget))
    report = launched.wait(timeout=PATIENCE_SECONDS)
    assert report is not None
    assert (launched.status().state, launched.status().counts.total) == ("finished", 0)
    assert any("minutes is spent" in note for note in report.notes)


# -- a ledger that fails --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_a_database_that_fails_in_the_middle_is_outlasted(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune would end in an error of its own; the driver waits, and starts over from the ledger."""
    failures, finish = iter(["away", "away"]), Ledger.finish

    def weak(ledger: Ledger, search_id: str, number: int, **options: Any) -> bool:
        if number == 2 and next(failures, None):
            raise StoreError("the database is away")
        return finish(ledger, search_id, number, **options)

    monkeypatch.setattr(Ledger, "finish", weak)
    launched = service.launch(tiny_problem(trials=4))
    phases: list[str] = []
    launched.watch(lambda event: phases.append(event.phase))
    assert launched.wait(timeout=PATIENCE_SECONDS) is not None
    assert "waiting, as a store failed: the database is away" in phases
    assert_recorded_once(service, launched.id, 4)
    assert {each.state for each in evaluations(service, launched.id)} == {"finished"}


# -- rounds ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_a_search_goes_through_rounds(service: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five candidates that train nothing, two a round: Tune begins three times, and each candidate is recorded once."""
    monkeypatch.setattr(transport, "ROUND", 2)
    monkeypatch.setattr(transport, "ROUNDS_PER_WORKER", 1)
    begun: list[int] = []
    fit = Tuner.fit

    def listen(tuner: Tuner) -> object:
        begun.append(1)
        return fit(tuner)

    monkeypatch.setattr(Tuner, "fit", listen)
    problem = tiny_problem(trials=5, epochs=1, workers=1)
    problem = replace(problem, strategy=replace(problem.strategy, evaluator="nothing"))
    launched = service.launch(problem)
    assert launched.wait(timeout=PATIENCE_SECONDS) is None
    assert launched.status().state == "finished"
    assert_recorded_once(service, launched.id, 5)
    assert {each.evaluator for each in evaluations(service, launched.id)} == {"nothing"}
    assert len(begun) == 3
