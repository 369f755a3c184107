"""A whole search with real workers, databases and MLflow: what it finds, and what it leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynarch import Constraint, Cpu, FrontPoint, Search, SearchService
from dynarch.evaluators.pareto import non_dominated
from dynarch.evaluators.splits import sealed_test
from dynarch.hardware.drift import Refreshed
from dynarch.search import profiling
from dynarch.search.events import Event
from dynarch.search.ledger import Ledger
from dynarch.search.proposals import numbers
from dynarch.search.report import read_report
from dynarch.spaces.errors import InfeasibleError, SearchNotFoundError, SpecError, StoreError
from dynarch.tests.tiny_searches import (
    PATIENCE_SECONDS,
    TRIALS,
    Tracked,
    assert_recorded_once,
    evaluations,
    local_ray,
    shared_service,
    tiny_problem,
    tracked,
    trials,
)

PROBLEM = tiny_problem(workers=1)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray(), pytest.MonkeyPatch.context() as patch:
        # A busy machine may look like another one, whose table would be measured anew between two searches.
        patch.setattr(profiling, "refresh", lambda *_: Refreshed(None))
        yield


@pytest.fixture(scope="module")
def service() -> SearchService:
    return shared_service()


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def search(service: SearchService, events: list[Event]) -> Search:
    """One finished search for all tests."""
    launched = service.launch(PROBLEM)
    launched.watch(events.append)
    report = launched.wait(timeout=PATIENCE_SECONDS)
    assert report is not None
    return launched


@pytest.fixture(scope="module")
def front(search: Search) -> tuple[FrontPoint, ...]:
    return search.front()


@pytest.fixture(scope="module")
def seen(service: SearchService, search: Search) -> Tracked:
    return tracked(service, search.id)


def test_every_candidate_is_recorded_once(service: SearchService, search: Search) -> None:
    assert_recorded_once(service, search.id, TRIALS)
    assert {each.state for each in evaluations(service, search.id)} == {"finished"}
    assert {each.attempts for each in evaluations(service, search.id)} == {1}


def test_a_front_tells_what_it_guarantees_and_what_attacks_cost(search: Search, front: tuple[FrontPoint, ...]) -> None:
    """A drop of nine tenths is beyond everybody; of an attack the whole front is told, with the same metrics."""
    assert search.guaranteed(0.9, confidence=0.6) == front
    attacked = search.under_attack(0.1, inputs=16, steps=1)
    assert [each.point for each in attacked] == list(front)
    for each in attacked:
        assert each.attacked.keys() == each.clean.keys()
        assert each.slowdown > 0
        assert each.clean["parameters"] == each.attacked["parameters"]


def test_only_fully_trained_candidates_are_on_the_front(
    service: SearchService, search: Search, front: tuple[FrontPoint, ...]
) -> None:
    done = {each.number: each.epochs_done for each in evaluations(service, search.id)}
    assert {done[int(point.label.split(".")[0])] for point in front} == {PROBLEM.budget.epochs}


def test_every_point_of_the_front_has_all_its_figures(front: tuple[FrontPoint, ...]) -> None:
    assert len(front) >= 2
    for point in front:
        assert point.test is not None
        assert point.measured is not None
        for metrics in (point.tune, point.test):
            assert metrics.keys() >= {
                "accuracy",
                "latency_ms@cpu",
                "latency_p95_ms@cpu",
                "latency_worst_ms@cpu",
                "macs",
            }
            assert all(np.isfinite(value) for value in metrics.values())
            # the worst path is at least as long as the 95 % quantile; that one need not exceed the mean
            assert 0 < metrics["latency_ms@cpu"] <= metrics["latency_worst_ms@cpu"] * (1 + 1e-9)
            assert metrics["latency_p95_ms@cpu"] <= metrics["latency_worst_ms@cpu"] * (1 + 1e-9)
        assert 0 <= point.certify_accuracy <= 1
        assert point.measured["cpu"]["latency_ms"] > 0
        assert point.measured["cpu"]["latency_p95_ms"] > 0


def test_nothing_on_the_front_is_dominated_on_unseen_data(front: tuple[FrontPoint, ...]) -> None:
    values = np.array([PROBLEM.values(point.test or {}) for point in front])
    assert non_dominated(values, PROBLEM.directions).all()
    speeds = [point.tune["latency_ms@cpu"] for point in front]
    assert speeds == sorted(speeds)


def test_the_search_learnt_something(front: tuple[FrontPoint, ...]) -> None:
    # three classes of equal size: one in three is right by chance, and of 60 inputs more than 31 are with
    # a probability below 0.1 % (binomial with p = 1/3: mean 20, deviation 3.65, three deviations are 31)
    assert max((point.test or {})["accuracy"] for point in front) > 31 / 60


def test_a_loaded_point_predicts_what_was_recorded(front: tuple[FrontPoint, ...]) -> None:
    part = sealed_test(PROBLEM.data, PROBLEM.splits, PROBLEM.strategy.seed)
    for point in front:
        network = point.load()
        assert isinstance(network, nn.Module)
        with torch.no_grad():
            right = network(part.x).argmax(1) == part.y
            alone = torch.cat([network(x[None]) for x in part.x]).argmax(1) == part.y
        assert point.test is not None
        assert float(right.double().mean()) == point.test["accuracy"]
        assert torch.equal(right, alone)


def test_the_report_says_what_the_front_says(search: Search, front: tuple[FrontPoint, ...]) -> None:
    report = search.wait()
    assert report is not None
    rows = {row.label: row for row in report.rows if row.front and row.kind != "static"}
    dynamic = {point.label: point for point in front if point.architecture.families}
    assert rows.keys() == dynamic.keys()
    for label, point in dynamic.items():
        assert point.test is not None
        assert point.measured is not None
        assert rows[label].accuracy == point.test["accuracy"]
        assert rows[label].latency_ms == point.test["latency_ms@cpu"]
        assert rows[label].measured_ms == point.measured["cpu"]["latency_ms"]
        assert rows[label].tune_accuracy == point.tune["accuracy"]
    static = list(PROBLEM.space.baselines(PROBLEM.data.signature))
    assert {row.architecture_id for row in report.rows if row.kind == "static"} == {each.id for each in static}


def test_the_files_of_the_report_are_written_and_whole(search: Search) -> None:
    folder = search.folder / "report"
    report = search.wait()
    assert report is not None
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "</html>" in (folder / "front.html").read_text()
    rows = list(csv.DictReader((folder / "front.csv").open()))
    assert {row["label"] for row in rows} == {row.label for row in report.rows}
    assert json.loads((folder / "report.json").read_text())["search_id"] == search.id
    assert read_report(folder) == report


def test_no_checkpoint_and_nothing_half_written_is_left(search: Search) -> None:
    left = [path.name for path in search.folder.rglob("*") if path.suffix in (".pt", ".partial")]
    assert left == []
    assert list((search.folder / "tune").iterdir()) == []


def test_mlflow_has_one_parent_and_the_report(seen: Tracked, search: Search) -> None:
    (parent,) = seen.parents
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "tiny")
    files = {file.path for file in seen.client.list_artifacts(parent.info.run_id)}
    assert files >= {"front.html", "front.png", "front.csv", "report.json", "spec.json"}
    assert "front" in parent.data.tags["mlflow.note.content"].lower()


def test_the_candidates_of_the_front_are_tagged(seen: Tracked, front: tuple[FrontPoint, ...]) -> None:
    tagged = {int(run.data.tags["dynarch.number"]) for run in seen.children if run.data.tags["pareto"] == "true"}
    assert tagged == {int(point.label.split(".")[0]) for point in front}


def test_the_hypervolume_is_a_stepped_metric_that_never_falls(seen: Tracked, search: Search) -> None:
    history = seen.client.get_metric_history(seen.parents[0].info.run_id, "hypervolume")
    volumes = [metric.value for metric in sorted(history, key=lambda metric: metric.step)]
    assert volumes == sorted(volumes)
    report = search.wait()
    assert report is not None
    assert volumes == pytest.approx([volume for _, volume in report.hypervolume_history])
    assert 0 < volumes[-1] < 1


def test_the_run_of_a_candidate_has_curves_and_results(seen: Tracked) -> None:
    for run in seen.children:
        losses = seen.client.get_metric_history(run.info.run_id, "train_loss")
        assert [metric.step for metric in losses] == list(range(1, PROBLEM.budget.epochs + 1))
        assert run.data.metrics.keys() >= {"accuracy", "latency_ms", "best_accuracy", "operating_points", "epochs"}
        assert run.data.params["network"].startswith("residual w4 d1-1-1")


def test_the_study_knows_every_candidate_and_its_other_points(service: SearchService, search: Search) -> None:
    told = trials(service, search.id)
    asked = [trial for trial in told if not trial.extra and trial.candidate is not None]
    assert {trial.state for trial in asked} == {"complete"}
    assert {trial.candidate for trial in told if trial.extra} <= set(range(TRIALS))
    assert any(trial.extra for trial in told)


def test_watchers_are_told_of_every_phase(events: list[Event], search: Search) -> None:
    phases = list(dict.fromkeys(event.phase.split()[0] for event in events))
    assert phases[-2:] == ["searching", "timing"]
    ends = [event for event in events if event.phase == "searching"]
    assert [event.done for event in ends] == list(range(1, TRIALS + 1))
    assert {event.total for event in ends} == {TRIALS}


def test_status_and_list_agree(service: SearchService, search: Search) -> None:
    status = service.get(search.id).status()
    assert (status.state, status.trials, status.counts.done, status.counts.total) == (
        "finished",
        TRIALS,
        TRIALS,
        TRIALS,
    )
    assert status in service.list()
    assert not search.running_here


def test_the_problem_of_a_search_can_be_read_again(service: SearchService, search: Search) -> None:
    again = service.get(search.id).problem()
    assert again.to_mapping() == PROBLEM.to_mapping()
    assert np.array_equal(again.data.x, PROBLEM.data.x)


def test_the_same_device_again_gives_a_front_without_training(service: SearchService, search: Search) -> None:
    retargeted = search.front(device=Cpu())
    assert retargeted
    assert all(point.test is None and point.measured is None for point in retargeted)
    with Ledger.open(service.storage.ledger_url) as ledger:
        best = max(numbers(point)["accuracy"] for point in ledger.points(search.id))
    # a shorter search for policies on the same score tables: at most one of the 45 inputs apart
    assert max(point.tune["accuracy"] for point in retargeted) == pytest.approx(best, abs=1.5 / 45)


def test_a_device_that_is_known_is_not_looked_at_again(
    service: SearchService, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts of the candidates are in the table, so neither the space is listed nor anything measured."""
    with service.storage.open_table() as table:
        environment = Cpu().environment().environment_id
        before = table.describe(environment)

        monkeypatch.setattr(profiling, "inventory", lambda *_, **__: pytest.fail("the whole space was listed"))
        on_device = search.front(device=Cpu())
        told = search.front(table=environment)
        assert [point.label for point in told] == [point.label for point in on_device]
        assert table.describe(environment) == before


def test_a_finished_search_is_not_run_again(service: SearchService, search: Search) -> None:
    with pytest.raises(SpecError, match="has finished"):
        service.get(search.id).resume()
    service.get(search.id).cancel()
    assert service.get(search.id).status().state == "finished"


def test_syncing_a_finished_search_changes_nothing(service: SearchService, search: Search, seen: Tracked) -> None:
    assert service.get(search.id).sync() == 0
    after = tracked(service, search.id)
    assert {run.info.run_id for run in after.children} == {run.info.run_id for run in seen.children}
    assert_recorded_once(service, search.id, TRIALS)


def test_one_seed_and_one_worker_give_one_front(service: SearchService, front: tuple[FrontPoint, ...]) -> None:
    again = service.launch(tiny_problem(workers=1))
    again.wait(timeout=PATIENCE_SECONDS)
    assert [_without_stopwatch(point) for point in again.front()] == [_without_stopwatch(point) for point in front]


def _without_stopwatch(point: FrontPoint) -> tuple[object, ...]:
    """All of a point that no clock has a part in but through the latency table, which both searches share."""
    return point.label, point.architecture, point.policy, dict(point.tune), point.certify_accuracy, point.test


def test_neither_stopped_candidates_nor_forbidden_points_are_on_the_front(
    service: SearchService, search: Search
) -> None:
    """The bound lies between the points of the unconstrained search, so that it must bite."""
    with Ledger.open(service.storage.ledger_url) as ledger:
        speeds = [numbers(point)["latency_ms@cpu"] for point in ledger.points(search.id)]
    bound = (min(speeds) + max(speeds)) / 2
    fast = Constraint("latency_ms", maximum=bound)
    problem = tiny_problem(trials=6, epochs=2, rungs=True, seed=1, sampler="random", constraints=(fast,))
    launched = service.launch(problem)
    assert launched.wait(timeout=PATIENCE_SECONDS) is not None
    assert_recorded_once(service, launched.id, 6)
    by_number = {each.number: each for each in evaluations(service, launched.id)}
    for each in by_number.values():
        assert (each.state, each.epochs_done) in (("finished", 2), ("stopped", 1))
    front = launched.front()
    assert front
    assert all(by_number[int(point.label.split(".")[0])].state == "finished" for point in front)
    assert all(point.tune["latency_ms@cpu"] <= bound for point in front)


def test_what_nothing_can_meet_is_refused_with_what_can_be_reached(service: SearchService) -> None:
    problem = tiny_problem(constraints=(Constraint("latency_ms", maximum=1e-6),))
    launched = service.launch(problem)
    with pytest.raises(InfeasibleError, match=r"constraints\.0\.maximum.*cheapest network of the space needs 0\.\d+"):
        launched.wait(timeout=PATIENCE_SECONDS)
    assert launched.status().state == "failed"
    assert launched.status().counts.total == 0


def test_wait_needs_a_run_of_this_process(service: SearchService, search: Search) -> None:
    with pytest.raises(SpecError, match="not run by this process; call resume"):
        service.get(search.id).wait()


def test_an_unknown_search_is_named_with_the_known_ones(service: SearchService, search: Search) -> None:
    with pytest.raises(SearchNotFoundError, match=f"'nobody'.*{search.id}"):
        service.get("nobody")


def test_the_newest_search_is_the_default(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no search in .*; launch one"):
        SearchService(tmp_path).get()


def test_a_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"storage .*file.* cannot be written .*name another folder"):
        SearchService(tmp_path / "file" / "below")
