"""What a search writes to a real MLflow store, and what becomes of it while MLflow is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynarch import Problem
from dynarch.search.candidate_run import candidate_run
from dynarch.search.ledger import Counts, Ledger
from dynarch.search.records import RETRY_SECONDS
from dynarch.search.report import write_report
from dynarch.search.report_rows import FrontReport, ReportRow
from dynarch.search.summary import Standing
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import StoreError
from dynarch.tests.search.recorded import POINTS, Open, Outages, add, history, known, points_of, seen

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
    assert run.tags == {"family": "early_exit", "backbone": "residual", "stage": "full", "pareto": "false"}
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
    assert run.tags["stage"] == "failed"
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
    records.flush()
    assert seen(search_id).numbers == [1]
    assert known(ledger, search_id, 1).mlflow_run_id == seen(search_id).children[0].info.run_id
    assert known(ledger, search_id, 1).logged


def test_a_step_written_twice_is_one_step(ledger: Ledger, problem: Problem, search_id: str, outages: Outages) -> None:
    outages.there = True
    for _ in range(2):  # a resumed search goes through all its steps again
        records = outages.records(ledger, problem, search_id)
        records.progress(Standing(0.25, 2, Counts(done=1)), at=10.0)
        records.progress(Standing(0.5, 3, Counts(done=1, failed=1)), at=20.0)
        assert history(search_id, "hypervolume")[0] == (1, 0.25)  # the first is written at once, others may wait
        records.flush()
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
    assert parent.data.metrics.items() >= {"front_points": 1.0, "latency_error": 0.25, "machine_change": 0.125}.items()
    assert parent.data.tags["dynarch.drift"] == "true"
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
        machine_change=0.125,
        machine_noise=0.05,
    )


def test_exit_shares_and_gate_rates_are_metrics(ledger: Ledger, problem: Problem, search_id: str) -> None:
    """Of the point at the candidate's level. What carries inputs to a branch runs when it does, and is left out."""
    evaluation = add(ledger, problem, search_id, 1)
    recorded = {"exit_share": [0.5, 0.25, 0.25], "usage": {"branch.0.1": 0.75, "move.0.1": 0.75, "tiles.2": 0.5}}
    points = [replace(point, metrics={**point.metrics, **recorded}) for point in points_of(ledger, search_id, 1)]
    metrics = candidate_run(problem, evaluation, points).metrics
    shares = {name: value for name, value in metrics.items() if name.endswith("_share")}
    assert shares == {"exit_0_share": 0.5, "exit_1_share": 0.25, "final_share": 0.25}
    assert {name for name in metrics if name.startswith("rate/")} == {"rate/branch.0.1", "rate/tiles.2"}
    assert metrics["rate/tiles.2"] == 0.5


def test_how_far_a_candidate_came_can_be_filtered_by(ledger: Ledger, problem: Problem, search_id: str) -> None:
    evaluation = add(ledger, problem, search_id, 1)
    stopped = replace(evaluation, state="stopped", epochs_done=2)
    assert candidate_run(problem, stopped, []).tags["stage"] == "rung 2"
    assert candidate_run(problem, replace(evaluation, cause="beaten"), []).run_tags(search_id, "p").items() >= {
        ("mlflow.note.content", "finished: beaten"),
        ("dynarch.cause", "beaten"),
    }
