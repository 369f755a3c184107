"""The ledger on SQLite and PostgreSQL: one winner per key, nothing half written, the test split used once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from dynarch.search.ledger import Counts, Evaluation, Ledger, NewPoint, Search
from dynarch.spaces.errors import SearchNotFoundError, StoreError
from dynarch.tests.databases import BACKENDS, fresh_url
from dynarch.tests.search.ledger_writers import POINTS, finish, propose

SPEC = {"space": {"families": ["early_exit"]}, "budget": 4}


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        opened.create_search("s", name="digits", spec=SPEC, seed=7, created_at=1.0)
        yield opened


def test_a_new_search_is_returned_as_it_was_asked_for(ledger: Ledger) -> None:
    expected = Search(
        id="s",
        name="digits",
        created_at=1.0,
        status="created",
        reason=None,
        seed=7,
        spec=SPEC,
        data_id=None,
        table_version=None,
        correction_id=None,
        mlflow_run_id=None,
        holder=None,
        heartbeat_at=None,
        cancel_requested=False,
        test_opened_at=None,
        hypervolume_reference=None,
    )
    assert ledger.search("s") == expected
    assert ledger.create_search("s", name="again", spec=SPEC, seed=7, created_at=9.0) == expected
    with pytest.raises(StoreError, match="'s' is taken by 'digits'"):
        ledger.create_search("s", name="other", spec=SPEC, seed=8, created_at=9.0)
    ledger.create_search("r", name="later", spec={}, seed=0, created_at=2.0)
    assert [search.id for search in ledger.searches()] == ["s", "r"]


def test_what_becomes_known_of_a_search_is_kept(ledger: Ledger) -> None:
    ledger.set_status("s", "failed", reason="disk\x00 full")
    ledger.set_data("s", "data-1")
    ledger.set_table("s", "v1", correction_id="c1")
    ledger.set_tracking("s", "run-1")
    ledger.set_hypervolume_reference("s", (1.0, 20.5))
    found = ledger.search("s")
    assert (found.status, found.reason, found.data_id) == ("failed", "disk full", "data-1")
    assert (found.table_version, found.correction_id, found.mlflow_run_id) == ("v1", "c1", "run-1")
    assert found.hypervolume_reference == [1.0, 20.5]
    ledger.set_status("s", "running")
    assert ledger.search("s").reason is None
    with pytest.raises(StoreError, match=r"must be one of created, .* but got 'paused'"):
        ledger.set_status("s", "paused")  # type: ignore[arg-type]


NOTHING: tuple[Callable[[Ledger], object], ...] = (
    lambda ledger: ledger.search("t"),
    lambda ledger: ledger.set_status("t", "running"),
    lambda ledger: ledger.acquire("t", "me", now=0.0, ttl_seconds=1.0),
    lambda ledger: ledger.request_cancel("t"),
    lambda ledger: propose(ledger, 0, search="t"),
    lambda ledger: ledger.start("t", 0),
    lambda ledger: ledger.open_test("t", 0.0),
    lambda ledger: ledger.mark_front("t", []),
)


@pytest.mark.parametrize("call", NOTHING)
def test_an_unknown_search_is_named_with_the_known_ones(ledger: Ledger, call: Callable[[Ledger], object]) -> None:
    with pytest.raises(SearchNotFoundError, match=r"'t'.*the latest ones are: s$"):
        call(ledger)


def test_the_first_proposal_of_a_key_stands(ledger: Ledger) -> None:
    first = propose(ledger, 0, architecture="x")
    assert (first.state, first.attempts, first.terminal) == ("proposed", 0, False)
    assert first.params == {"early_exit.count": 2, "lr": 0.1}
    assert propose(ledger, 0, architecture="x") == first
    assert propose(ledger, 5, architecture="x") == first  # the number says that it is a known one
    assert propose(ledger, 1, architecture="x", fidelity=9).number == 1  # another fidelity, another key
    with pytest.raises(StoreError, match="evaluation 0 of search 's' is already architecture 'x'"):
        propose(ledger, 0, architecture="y")
    assert [e.number for e in ledger.evaluations("s")] == [0, 1]


def test_a_key_belongs_to_its_search(ledger: Ledger) -> None:
    ledger.create_search("r", name="r", spec={}, seed=0, created_at=2.0)
    propose(ledger, 0)
    assert propose(ledger, 4, architecture="a0", search="r").number == 4
    assert ledger.counts("r") == Counts(proposed=1)
    assert ledger.counts("s") == Counts(proposed=1)


def test_the_way_of_an_evaluation(ledger: Ledger) -> None:
    propose(ledger, 0)
    assert ledger.start("s", 0).attempts == 1
    assert ledger.start("s", 0).attempts == 2
    ledger.link_trial("s", 0, 17)
    assert finish(ledger, 0)
    ledger.mark_told("s", 0)
    assert ledger.mark_logged("s", {0: "run-a"}) == {0: "run-a"}
    assert ledger.mark_logged("s", {0: "run-b"}) == {0: "run-a"}
    found = ledger.evaluation("s", 0)
    assert found == Evaluation(
        id=found.id if found else -1,
        search_id="s",
        number=0,
        architecture_id="a0",
        architecture={"backbone": "cnn", "widths": [8, 16]},
        params={"early_exit.count": 2, "lr": 0.1},
        level=0.5,
        seed=7,
        fidelity=3,
        evaluator="from_scratch",
        state="finished",
        cause=None,
        epochs_done=3,
        attempts=2,
        seconds=1.5,
        metrics={"error": 0.1},
        curve=[{"epoch": 1, "loss": 2.0}],
        artefacts="candidates/0",
        optuna_trial=17,
        told=True,
        mlflow_run_id="run-a",
        logged=True,
        created_at=10.0,
        finished_at=20.0,
    )
    assert ledger.start("s", 0) == found  # what has ended is not started again
    assert ledger.evaluation("s", 1) is None


def test_the_first_end_stands(ledger: Ledger) -> None:
    propose(ledger, 0)
    assert ledger.finish("s", 0, state="failed", cause="worker died\x00", finished_at=5.0, epochs_done=1, seconds=0.5)
    before = ledger.evaluation("s", 0)
    assert not finish(ledger, 0)
    assert ledger.evaluation("s", 0) == before
    assert before is not None
    assert before.cause == "worker died"
    assert ledger.points("s") == ()


def test_counts_and_the_unfinished(ledger: Ledger) -> None:
    for number in range(7):
        propose(ledger, number)
    for number in (0, 1, 2):
        finish(ledger, number)
    for number, state in ((3, "stopped"), (4, "failed")):
        ledger.finish("s", number, state=state, finished_at=1.0, epochs_done=0, seconds=0.0)  # type: ignore[arg-type]
    ledger.start("s", 5)
    statements: list[str] = []
    event.listen(ledger.database._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert ledger.counts("s") == Counts(done=3, stopped=1, failed=1, running=1, proposed=1)
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    assert ledger.counts("s").total == 7
    assert [e.number for e in ledger.unfinished("s")] == [5, 6]
    assert ledger.counts("of nobody") == Counts()


@pytest.mark.parametrize("step", ["told", "logged"])
def test_nobody_hears_of_an_outcome_before_the_ledger(ledger: Ledger, step: str) -> None:
    propose(ledger, 0)
    ledger.start("s", 0)
    with pytest.raises(StoreError, match="is running, so there is no outcome yet"):
        ledger.mark_told("s", 0) if step == "told" else ledger.mark_logged("s", {0: "run"})


def test_rungs_come_back_in_the_order_of_recording(ledger: Ledger) -> None:
    for number in range(3):
        propose(ledger, number)
    order = [(2, 1, True), (0, 1, False), (2, 3, True), (1, 1, True)]
    for number, epoch, kept in order:
        verdict = ledger.record_rung("s", number, epoch, points=[[0.1, float(number)]], kept=kept)
        assert (verdict.kept, verdict.points) == (kept, [[0.1, float(number)]])
    first = ledger.rungs("s")[1]
    assert ledger.record_rung("s", 0, 1, points=[], kept=True) == first  # the verdict that stands
    assert [(r.number, r.epoch, r.kept) for r in ledger.rungs("s")] == order
    assert sorted(r.sequence for r in ledger.rungs("s")) == [r.sequence for r in ledger.rungs("s")]
    with pytest.raises(StoreError, match="has no evaluation 9; propose it first"):
        ledger.record_rung("s", 9, 1, points=[], kept=True)


def test_points_and_the_front(ledger: Ledger) -> None:
    for number in (1, 0):
        propose(ledger, number)
        finish(ledger, number)
    ledger.mark_front("s", [(0, 1), (1, 0)])
    ledger.mark_front("s", [(1, 0), (1, 1)])
    flags = {(p.number, p.index): p.front for p in ledger.points("s")}
    assert flags == {(0, 0): False, (0, 1): False, (1, 0): True, (1, 1): True}
    assert list(flags) == sorted(flags)
    front = ledger.points("s", front_only=True)
    assert [(p.number, p.index, p.policy, p.metrics) for p in front] == [
        (1, index, point.policy, point.metrics) for index, point in enumerate(POINTS)
    ]
    with pytest.raises(StoreError, match=r"has no points \(1, 2\)"):
        ledger.mark_front("s", [(0, 0), (1, 2)])
    assert ledger.points("s", front_only=True) == front
    ledger.mark_front("s", [])
    assert ledger.points("s", front_only=True) == ()


def test_more_points_than_a_statement_takes(ledger: Ledger) -> None:
    propose(ledger, 0)
    finish(ledger, 0, points=[NewPoint({"i": i}, {}) for i in range(1_201)])
    ledger.mark_front("s", [(0, i) for i in range(1_200)])
    assert [p.index for p in ledger.points("s", front_only=True)] == list(range(1_200))


def test_partly_trained_points_stay_off_the_front(ledger: Ledger) -> None:
    propose(ledger, 0)
    ledger.finish("s", 0, state="stopped", finished_at=1.0, epochs_done=1, seconds=1.0, points=POINTS)
    with pytest.raises(StoreError, match=r"only points of finished evaluations.*did not finish: 0"):
        ledger.mark_front("s", [(0, 0)])


def test_the_test_split_is_used_once(ledger: Ledger) -> None:
    propose(ledger, 0)
    finish(ledger, 0)
    with pytest.raises(StoreError, match="has not been opened"):
        ledger.score_points("s", {(0, 0): {"error": 0.3}})
    assert ledger.open_test("s", 50.0)
    assert not ledger.open_test("s", 60.0)
    assert ledger.search("s").test_opened_at == 50.0
    ledger.score_points("s", {(0, 0): {"error": 0.3}})
    with pytest.raises(StoreError, match=r"used once, but these points of search 's' .*\(0, 0\)"):
        ledger.score_points("s", {(0, 1): {"error": 0.0}, (0, 0): {"error": 0.0}})
    assert [p.test for p in ledger.points("s")] == [{"error": 0.3}, None]
    ledger.score_points("s", {(0, 1): {"error": 0.4}})
    ledger.record_measured("s", {(0, 0): {"mean_ms": 2.0}})
    ledger.record_measured("s", {(0, 0): {"mean_ms": 1.0}})
    assert [(p.test, p.measured) for p in ledger.points("s")] == [
        ({"error": 0.3}, {"mean_ms": 1.0}),
        ({"error": 0.4}, None),
    ]


def test_what_is_not_finite_never_becomes_a_figure(ledger: Ledger) -> None:
    propose(ledger, 0)
    nan = math.nan
    for bad in (
        lambda: finish(ledger, 0, points=[NewPoint({}, {"error": nan})]),
        lambda: finish(ledger, 0, points=[NewPoint({"threshold": [math.inf]}, {})]),
        lambda: ledger.record_rung("s", 0, 1, points=[[nan]], kept=True),
        lambda: ledger.set_hypervolume_reference("s", [1.0, nan]),
    ):
        with pytest.raises(StoreError, match="must be finite"):
            bad()
    assert ledger.counts("s") == Counts(proposed=1)
    assert (ledger.points("s"), ledger.rungs("s")) == ((), ())
    ledger.finish(
        "s",
        0,
        state="failed",
        finished_at=1.0,
        epochs_done=2,
        seconds=1.0,
        curve=[{"loss": 9.0}, {"loss": nan}],
    )
    found = ledger.evaluation("s", 0)
    assert found is not None
    assert found.curve == [{"loss": 9.0}, {"loss": None}]  # a training that diverged is data


@pytest.mark.parametrize("artefacts", ["/etc", "../other", "a/../../b", "C:\\x"])
def test_artefacts_stay_inside_the_search(ledger: Ledger, artefacts: str) -> None:
    propose(ledger, 0)
    with pytest.raises(StoreError, match="give a relative path"):
        ledger.finish("s", 0, state="failed", finished_at=1.0, epochs_done=0, seconds=0.0, artefacts=artefacts)


def test_events_are_remembered_in_order(ledger: Ledger) -> None:
    ledger.add_event("s", at=5.0, kind="resume", message="first")
    ledger.add_event("s", at=4.0, kind="resume", message="second, by a clock that was set back")
    assert [(e.at, e.message[:6]) for e in ledger.events("s")] == [(5.0, "first"), (4.0, "second")]


def test_cancelling_is_a_request_that_may_be_taken_back(ledger: Ledger) -> None:
    assert not ledger.cancel_requested("s")
    ledger.request_cancel("s")
    assert ledger.cancel_requested("s")
    ledger.withdraw_cancel("s")
    assert not ledger.cancel_requested("s")


def test_attempts_count_the_starts_before_the_end(ledger: Ledger) -> None:
    propose(ledger, 0)
    for _ in range(3):
        ledger.start("s", 0)
    finish(ledger, 0)
    ledger.start("s", 0)
    found = ledger.evaluation("s", 0)
    assert found is not None
    assert found.attempts == 3


def test_cost_of_an_evaluation_is_printed(ledger: Ledger) -> None:
    evaluations = 30
    began = time.perf_counter()
    for number in range(evaluations):
        propose(ledger, number)
        ledger.start("s", number)
        assert finish(ledger, number)
    each_ms = (time.perf_counter() - began) / evaluations * 1e3
    print(f"{ledger.database.backend}: {each_ms:.1f} ms for propose, start and finish together")
    assert ledger.counts("s") == Counts(done=evaluations)
