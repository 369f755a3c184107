"""What a search writes to a real MLflow store, and what becomes of it while MLflow is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynarch import Problem
from dynarch.search.ledger import Counts, Evaluation, Ledger, NewPoint, Point
from dynarch.search.records import RETRY_SECONDS, Records, candidate_run
from dynarch.search.report import write_report
from dynarch.search.report_rows import FrontReport, ReportRow
from dynarch.search.summary import Standing
from dynarch.search.tracking import MLflowTracker
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import StoreError
from dynarch.tests.tiny_searches import Tracked, shared_service, tiny_problem, tracked

# accuracy and latency of the operating points of every candidate, sorted by latency as the ledger has them
POINTS = ((0.5, 1.0), (0.7, 2.0), (0.9, 4.0))
CURVE = ({"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": None, "final_accuracy": 0.75})
Open = Callable[[], MLflowTracker]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture
def ledger(tmp_path: Path, problem: Problem, search_id: str) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        opened.create_search(search_id, name="tiny", spec=problem.to_mapping(), seed=0, created_at=1.0)
        opened.set_hypervolume_reference(search_id, (0.0, 8.0))
        yield opened


@pytest.fixture
def search_id(request: pytest.FixtureRequest) -> str:
    """One for each test, as they share an MLflow store: to make one takes MLflow seconds."""
    return str(request.node.name)


@pytest.fixture(scope="module")
def open_tracker() -> Open:
    storage = shared_service().storage
    tracker = storage.open_tracker()
    return lambda: tracker


def metrics_of(accuracy: float, latency_ms: float) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_ms@cpu": latency_ms, "latency_p95_ms@cpu": latency_ms, "macs": 9.0}


def add(ledger: Ledger, problem: Problem, search_id: str, number: int, *, level: float = 1.0) -> Evaluation:
    """A candidate that finished at second 10, 20, ... with the points above."""
    _, architecture = list(problem.space.enumerate(problem.data.signature))[number]
    ledger.propose(
        search_id,
        number=number,
        architecture_id=architecture.id,
        architecture=architecture.to_mapping(),
        params={"early_exit.objective": "equal"},
        level=level,
        seed=0,
        fidelity=3,
        evaluator="from_scratch",
        created_at=5.0,
    )
    ledger.start(search_id, number)
    points = [
        NewPoint({"decision": "max_prob", "thresholds": []}, {"metrics": metrics_of(*pair), "certify_accuracy": 0.5})
        for pair in POINTS
    ]
    ledger.finish(
        search_id,
        number,
        state="finished",
        finished_at=10.0 * (number + 1),
        epochs_done=3,
        seconds=2.5,
        curve=CURVE,
        points=points,
    )
    return known(ledger, search_id, number)


def known(ledger: Ledger, search_id: str, number: int) -> Evaluation:
    evaluation = ledger.evaluation(search_id, number)
    assert evaluation is not None
    return evaluation


def points_of(ledger: Ledger, search_id: str, number: int) -> list[Point]:
    return [point for point in ledger.points(search_id) if point.number == number]


def seen(search_id: str) -> Tracked:
    return tracked(shared_service(), search_id)


def history(search_id: str, metric: str) -> list[tuple[int, float]]:
    found = seen(search_id)
    rows = found.client.get_metric_history(found.parents[0].info.run_id, metric)
    return [(row.step, row.value) for row in rows]


class Outages:
    """MLflow that is there or not, and a clock."""

    def __init__(self, open_tracker: Open) -> None:
        self.there = False
        self.asked = 0
        self.now = 100.0
        self.warnings: list[str] = []
        self._open = open_tracker

    def open(self) -> MLflowTracker:
        self.asked += 1
        if not self.there:
            raise StoreError("MLflow at http://nowhere cannot be reached")
        return self._open()

    def records(self, ledger: Ledger, problem: Problem, search_id: str) -> Records:
        return Records(self.open, ledger, problem, search_id, warn=self.warnings.append, clock=lambda: self.now)


@pytest.fixture
def outages(open_tracker: Open) -> Outages:
    return Outages(open_tracker)


# -- a candidate as MLflow shall show it ----------------------------------------------------------------------


@pytest.mark.parametrize(("level", "own"), [(0.0, 0), (0.24, 0), (0.26, 1), (0.5, 1), (0.74, 1), (0.76, 2), (1.0, 2)])
def test_a_candidate_stands_for_the_point_at_its_level(
    ledger: Ledger, problem: Problem, search_id: str, level: float, own: int
) -> None:
    """Three points lie at levels 0, 1/2 and 1, so that 1/4 and 3/4 are the borders."""
    evaluation = add(ledger, problem, search_id, 1, level=level)
    run = candidate_run(problem, evaluation, points_of(ledger, search_id, 1))
    assert (run.metrics["accuracy"], run.metrics["latency_ms"]) == POINTS[own]
    assert (run.metrics["best_accuracy"], run.metrics["least_latency_ms"]) == (0.9, 1.0)
    assert run.metrics["operating_points"] == 3


def test_a_candidate_tells_what_it_is_and_how_it_went(ledger: Ledger, problem: Problem, search_id: str) -> None:
    evaluation = add(ledger, problem, search_id, 1)
    run = candidate_run(problem, evaluation, points_of(ledger, search_id, 1))
    architecture = Architecture.from_mapping(evaluation.architecture)
    assert run.architecture_id == architecture.id
    assert run.params["network"].startswith("residual w4 d1-1-1, exits")
    assert run.params["early_exit.objective"] == "equal"
    assert run.tags == {"family": "early_exit", "backbone": "residual", "pareto": "false"}
    assert (run.metrics["seconds"], run.metrics["epochs"]) == (2.5, 3.0)
    assert run.curves == {"train_loss": [(1, 2.0)], "final_accuracy": [(2, 0.75)]}  # what was not finite is left out
    assert (run.started_at_ms, run.ended_at_ms) == (5_000, 20_000)


def test_a_static_candidate_that_failed(ledger: Ledger, problem: Problem, search_id: str) -> None:
    (static,) = problem.space.baselines(problem.data.signature)
    ledger.propose(
        search_id,
        number=0,
        architecture_id=static.id,
        architecture=static.to_mapping(),
        params={},
        level=1.0,
        seed=0,
        fidelity=3,
        evaluator="from_scratch",
        created_at=5.0,
    )
    ledger.finish(search_id, 0, state="failed", finished_at=6.0, epochs_done=1, seconds=1.0, cause="no memory")
    run = candidate_run(problem, known(ledger, search_id, 0), [])
    assert (run.state, run.cause, run.tags["family"], run.curves) == ("failed", "no memory", "static", {})
    assert run.metrics == {"seconds": 1.0, "epochs": 1.0}


# -- MLflow is there ------------------------------------------------------------------------------------------


def test_the_ledger_remembers_the_run_of_the_search(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages
) -> None:
    outages.there = True
    outages.records(ledger, problem, search_id).start()
    (parent,) = seen(search_id).parents
    assert ledger.search(search_id).mlflow_run_id == parent.info.run_id
    assert parent.data.params.items() >= {"trials": "5", "sampler": "tpe", "seed": "0"}.items()
    assert parent.info.status == "RUNNING"


def test_a_candidate_is_written_once_whenever_the_driver_dies(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages
) -> None:
    outages.there = True
    evaluation = add(ledger, problem, search_id, 1)
    points = points_of(ledger, search_id, 1)
    ledger.mark_told(search_id, 1)
    tracker = outages.open()
    parent = tracker.start(search_id, "tiny", "{}", {})
    tracker.log_candidate(parent, candidate_run(problem, evaluation, points))  # and then the driver died
    records = outages.records(ledger, problem, search_id)
    records.candidate(known(ledger, search_id, 1), points)
    records.candidate(known(ledger, search_id, 1), points)
    assert seen(search_id).numbers == [1]
    assert known(ledger, search_id, 1).mlflow_run_id == seen(search_id).children[0].info.run_id
    assert known(ledger, search_id, 1).logged


def test_a_step_written_twice_is_one_step(ledger: Ledger, problem: Problem, search_id: str, outages: Outages) -> None:
    outages.there = True
    for _ in range(2):  # a resumed search goes through all its steps again
        records = outages.records(ledger, problem, search_id)
        records.progress(Standing(0.25, 2, Counts(done=1)), at=10.0)
        records.progress(Standing(0.5, 3, Counts(done=1, failed=1)), at=20.0)
    assert history(search_id, "hypervolume") == [(1, 0.25), (2, 0.5)]
    assert history(search_id, "front_size") == [(1, 2.0), (2, 3.0)]
    assert history(search_id, "failed") == [(1, 0.0), (2, 1.0)]


def test_finishing_what_was_never_begun_asks_nobody(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages
) -> None:
    outages.records(ledger, problem, search_id).finish("failed")
    assert (outages.asked, outages.warnings) == (0, [])


# -- MLflow is away -------------------------------------------------------------------------------------------


def test_an_outage_is_told_once_and_asked_about_seldom(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages
) -> None:
    records = outages.records(ledger, problem, search_id)
    records.start()
    evaluation = add(ledger, problem, search_id, 1)
    for _ in range(5):
        records.candidate(evaluation, points_of(ledger, search_id, 1))
    assert outages.asked == 1
    outages.now += RETRY_SECONDS
    records.candidate(evaluation, points_of(ledger, search_id, 1))
    assert outages.asked == 2
    assert len(outages.warnings) == 1
    assert outages.warnings[0].endswith("MLflow at http://nowhere cannot be reached")
    assert not known(ledger, search_id, 1).logged


def test_a_second_outage_is_told_again(
    ledger: Ledger,
    problem: Problem,
    search_id: str,
    outages: Outages,
    monkeypatch: pytest.MonkeyPatch,
    open_tracker: Open,
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise StoreError("away")

    records = outages.records(ledger, problem, search_id)
    records.start()
    outages.there, outages.now = True, outages.now + RETRY_SECONDS
    records.start()
    with monkeypatch.context() as patched:
        patched.setattr(open_tracker(), "log_progress", gone)
        records.progress(Standing(0.5, 1, Counts(done=1)), at=1.0)
    assert len(outages.warnings) == 2


def test_a_report_writes_what_waited(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages, tmp_path: Path
) -> None:
    """Both candidates have the same points, so the front is that of one: three points, the same volume twice.

    Reference (0, 8), ideal (1, 0), box 8. Slices by latency: from 1 to 2 at accuracy 0.5, from 2 to 4 at 0.7,
    from 4 to 8 at 0.9: (0.5 + 1.4 + 3.6) / 8 = 0.6875.
    """
    records = outages.records(ledger, problem, search_id)
    records.start()
    for number in (1, 2):
        evaluation = add(ledger, problem, search_id, number)
        records.candidate(evaluation, points_of(ledger, search_id, number))
    outages.there = True
    report = report_of(search_id, member=2)
    records.report(report, write_report(report, tmp_path / "report"))
    records.finish("finished")
    found = seen(search_id)
    (parent,) = found.parents
    assert (found.numbers, parent.info.status) == ([1, 2], "FINISHED")
    assert {run.data.tags["dynarch.number"]: run.data.tags["pareto"] for run in found.children} == {
        "1": "false",
        "2": "true",
    }
    files = {file.path for file in found.client.list_artifacts(parent.info.run_id)}
    assert files >= {"front.html", "front.png", "front.csv", "report.json"}
    steps, volumes = zip(*history(search_id, "hypervolume"), strict=True)
    assert steps == (1, 2)
    assert volumes == pytest.approx((0.6875, 0.6875))
    assert parent.data.metrics.items() >= {"front_points": 1.0, "latency_error": 0.25}.items()
    assert outages.records(ledger, problem, search_id).catch_up() == 0


def report_of(search_id: str, *, member: int) -> FrontReport:
    """A report of two rows, of which the candidate `member` is on the front; 1.25 ms predicted, 1 ms measured."""
    options: dict[str, Any] = {
        "kind": "dynamic",
        "architecture_id": "3f9a1c77d20be451",
        "backbone": "residual",
        "families": ("early_exit",),
        "summary": "residual",
        "policy": "max_prob .5",
        "accuracy": 0.9,
        "accuracy_low": 0.8,
        "accuracy_high": 0.95,
        "tune_accuracy": 0.9,
        "latency_ms": 1.25,
        "latency_p95_ms": 2.0,
        "measured_ms": 1.0,
        "measured_p95_ms": 2.0,
        "macs": 9.0,
        "work_saved": 0.5,
        "exit_share": (0.5, 0.5),
    }
    rows = tuple(ReportRow(label=f"{n}.0", number=n, front=n == member, **options) for n in (1, 2))
    return FrontReport(
        search_id=search_id,
        name="tiny",
        device="cpu",
        objectives=(("accuracy", "maximize", ""), ("latency_ms@cpu", "minimize", "ms")),
        rows=rows,
        finished=2,
        stopped=0,
        failed=0,
        hypervolume=0.6875,
        hypervolume_history=((1, 0.6875), (2, 0.6875)),
        epochs_spent=6.0,
        seconds=20.0,
    )
