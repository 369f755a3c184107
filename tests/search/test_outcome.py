"""The end of a search: the front by hand, and the test split opened once, after the last choice was made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynarch.evaluators.data import Data
from dynarch.evaluators.from_scratch import load_candidate
from dynarch.evaluators.splits import Part, SplitSpec, sealed_test, visible_splits
from dynarch.hardware.table import LatencyTable
from dynarch.search.candidate import candidate_folder
from dynarch.search.driver import Driver
from dynarch.search.engine import Engine
from dynarch.search.ledger import Ledger, NewPoint, Point
from dynarch.search.outcome import Examiner, Scored, score_front, single_exits, static_numbers, still_front, tune_front
from dynarch.search.problem import Constraint, Problem
from dynarch.search.proposals import numbers
from dynarch.search.records import Records
from dynarch.search.report_rows import FrontReport
from dynarch.search.storage import BOOK
from dynarch.search.testing import run_inline
from dynarch.search.worker import Assignment
from dynarch.spaces.errors import StoreError
from dynarch.spaces.policy import Policy
from dynarch.tests.inline_searches import FOUR, ID, book_of, made_up_point, quick_folder, small_problem

# -- fronts by hand -------------------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with quick_folder() as folder, Ledger.open(f"sqlite:///{folder / 'l.db'}") as opened:
        opened.create_search(ID, name="small", spec={}, seed=0, created_at=1.0)
        yield opened


def add(
    ledger: Ledger, number: int, *pairs: tuple[float, float], state: str = "finished", static: bool = False
) -> None:
    """A candidate that ended with points of these (accuracy, latency)."""
    ledger.propose(
        ID,
        number=number,
        architecture_id=f"a{number}",
        architecture={"families": {} if static else {"early_exit": {}}},
        params={},
        level=1.0,
        seed=0,
        fidelity=4,
        evaluator="tabular",
        created_at=1.0,
    )
    points = [
        NewPoint(made_up_point(a, ms).policy.to_dict(), {"metrics": dict(made_up_point(a, ms).metrics)})
        for a, ms in pairs
    ]
    ledger.finish(ID, number, state=state, finished_at=1.0, epochs_done=4, seconds=1.0, points=points)  # type: ignore[arg-type]


def keys(points: list[Point]) -> list[tuple[int, int]]:
    return [(point.number, point.index) for point in points]


def test_the_front_on_the_tune_split_by_hand(ledger: Ledger) -> None:
    add(ledger, 0, (0.5, 1.0), (0.7, 3.0), (0.8, 9.0))
    add(ledger, 1, (0.6, 3.5), (0.9, 8.0))  # the first is beaten by 0.1, the second beats 0.2
    add(ledger, 2)
    assert keys(tune_front(small_problem(), ledger, ID)) == [(0, 0), (0, 1), (1, 1)]


def test_hard_constraints_keep_points_off_the_front_and_soft_ones_do_not(ledger: Ledger) -> None:
    """Without those above 4 ms the front is what the rest does not beat among itself."""
    add(ledger, 0, (0.5, 1.0), (0.7, 3.0))
    add(ledger, 1, (0.9, 8.0))
    hard = small_problem(constraints=(Constraint("latency_ms", maximum=4.0),))
    soft = small_problem(constraints=(Constraint("latency_ms", maximum=4.0, hard=False),))
    none = small_problem(constraints=(Constraint("accuracy", minimum=0.95),))
    assert keys(tune_front(hard, ledger, ID)) == [(0, 0), (0, 1)]
    assert keys(tune_front(soft, ledger, ID)) == [(0, 0), (0, 1), (1, 0)]
    assert tune_front(none, ledger, ID) == []


def test_a_front_of_nothing_is_empty(ledger: Ledger) -> None:
    assert tune_front(small_problem(), ledger, ID) == []
    assert still_front(small_problem(), {}) == set()


def test_a_long_front_is_thinned_and_keeps_its_ends(ledger: Ledger) -> None:
    add(ledger, 0, *[(0.5 + index / 100, 1.0 + index) for index in range(40)])
    kept = keys(tune_front(small_problem(), ledger, ID))
    assert len(kept) == 24  # as many as `front` allows
    assert {(0, 0), (0, 39)} <= set(kept)
    assert kept == sorted(kept)


def scored(accuracy: float, latency_ms: float) -> Scored:
    return Scored(0, made_up_point(accuracy, latency_ms), round(100 * accuracy), 100, (0.5, 0.6), 10.0, {})


def test_members_that_fall_behind_on_unseen_data_leave_the_front() -> None:
    """0.1 promised more than 0.0 and gives less at a higher price; nothing new comes in its place."""
    found = {(0, 0): scored(0.7, 1.0), (0, 1): scored(0.65, 2.0), (1, 0): scored(0.8, 3.0)}
    assert still_front(small_problem(), found) == {(0, 0), (1, 0)}


def test_static_networks_are_those_without_a_family_that_finished(ledger: Ledger) -> None:
    add(ledger, 0, (0.5, 1.0), static=True)
    add(ledger, 1, (0.5, 1.0))
    add(ledger, 2, state="failed", static=True)
    add(ledger, 3, (0.6, 1.0), static=True)
    assert static_numbers(ledger, ID) == (0, 3)


def test_a_score_survives_as_plain_values() -> None:
    made = scored(0.7, 1.0)
    back = Scored.from_mapping(0, json.loads(json.dumps(made.to_mapping())), {"cpu": {"latency_ms": 1.0}})
    assert (back.number, back.point, back.correct, back.total) == (0, made.point, 70, 100)
    assert (back.exit_accuracy, back.whole_macs, back.measured) == ((0.5, 0.6), 10.0, {"cpu": {"latency_ms": 1.0}})


# -- a whole search, on the inline transport ------------------------------------------------------------------


@dataclass
class Watched:
    """What was seen of a search that was driven from start to report."""

    folder: Path
    problem: Problem
    report: FrontReport
    opened: list[dict[str, Any]] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)

    def ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.folder / 'ledger.db'}")


def _no_tracker() -> Any:
    raise StoreError("no MLflow in this test")


@pytest.fixture(scope="module")
def driven() -> Iterator[Watched]:
    """Four candidates trained for real, scored, timed and reported; Ray, MLflow and the profile are left out."""
    problem = small_problem(space=FOUR, trials=4, epochs=2, rungs=False)
    opened: list[dict[str, Any]] = []
    assignments: list[Assignment] = []
    with quick_folder() as folder, pytest.MonkeyPatch.context() as patch:
        with (
            Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger,
            LatencyTable.open(f"sqlite:///{folder / 'ledger.db'}") as table,
        ):

            def open_sealed(data: Data, spec: SplitSpec, seed: int) -> Part:
                opened.append(
                    {
                        "states": [each.state for each in ledger.evaluations(ID)],
                        "front": keys(list(ledger.points(ID, front_only=True))),
                        "noted": ledger.search(ID).test_opened_at,
                        "scored": [point.test for point in ledger.points(ID)],
                    }
                )
                return sealed_test(data, spec, seed)

            def run(engine: Engine, assignment: Assignment, notes: Path) -> None:
                assignments.append(assignment)
                run_inline(engine, assignment)

            patch.setattr("dynarch.search.finale.sealed_test", open_sealed)
            patch.setattr("dynarch.search.driver.tune.cluster", lambda address, *, cpus: nullcontext())
            patch.setattr("dynarch.search.driver.tune.run", run)
            patch.setattr("dynarch.search.outcome.TIMED_INPUTS", 8)
            patch.setattr("dynarch.search.outcome.TIMED_ROUNDS", 2)
            ledger.create_search(ID, name="small", spec={}, seed=0, created_at=1.0)
            ledger.set_hypervolume_reference(ID, (0.0, 1.0))
            (folder / BOOK).write_text(json.dumps(book_of(FOUR).to_mapping()))
            driver = Driver(
                problem,
                ID,
                ledger=ledger,
                table=table,
                study_url=f"sqlite:///{folder / 'study.db'}",
                records=Records(_no_tracker, ledger, problem, ID, warn=lambda text: None),
                folder=folder,
                table_url=f"sqlite:///{folder / 'ledger.db'}",
            )
            report = driver.run()
        assert report is not None
        yield Watched(folder, problem, report, opened, assignments)


def test_the_test_split_is_opened_once_after_the_last_choice(driven: Watched) -> None:
    (seen,) = driven.opened
    assert seen["states"] == ["finished"] * 4
    assert seen["front"]
    assert seen["noted"] is not None
    assert set(seen["scored"]) == {None}


def test_no_worker_got_a_row_of_the_test_split(driven: Watched) -> None:
    (assignment,) = driven.assignments
    problem = driven.problem
    sealed = sealed_test(problem.data, problem.splits, problem.strategy.seed)
    given = {row.tobytes() for name, rows in assignment.arrays.items() if name.endswith(".x") for row in rows}
    held_back = {row.numpy().tobytes() for row in sealed.x}
    assert len(held_back) == len(sealed)
    assert not given & held_back
    assert len(given) + len(held_back) == len(problem.data.x)


def test_the_test_split_is_not_scored_a_second_time(driven: Watched) -> None:
    with driven.ledger() as ledger:
        assert ledger.open_test(ID, 9.0) is False
        scored_points = [point for point in ledger.points(ID) if point.test is not None]
        assert scored_points
        point = scored_points[0]
        with pytest.raises(StoreError, match="the test split is used once, but these points"):
            ledger.score_points(ID, {(point.number, point.index): {"accuracy": 1.0}})


def test_no_half_trained_point_is_on_the_front(driven: Watched) -> None:
    with driven.ledger() as ledger:
        evaluations = {each.number: each for each in ledger.evaluations(ID)}
        front = ledger.points(ID, front_only=True)
    assert front
    for point in front:
        ended = evaluations[point.number]
        assert (ended.state, ended.epochs_done, ended.fidelity) == ("finished", 2, 2)


def test_every_row_of_the_report_is_what_its_network_does_on_the_test_split(driven: Watched) -> None:
    problem = driven.problem
    sealed = sealed_test(problem.data, problem.splits, problem.strategy.seed)
    with driven.ledger() as ledger:
        points = {f"{point.number}.{point.index}": point for point in ledger.points(ID)}
    checked = 0
    for row in driven.report.rows:
        network, costs = load_candidate(driven.folder / candidate_folder(row.number))
        if row.kind == "random_exit":
            continue
        if row.label in points:
            policy = Policy.from_dict(points[row.label].policy)
        elif row.kind == "static":
            policy = Policy.never(0)
        else:
            policy = Policy.single(network.exits, int(row.label.rpartition(" ")[2]))
        routed = network.route(sealed.x, policy)
        right = int((routed.logits.argmax(1) == sealed.y).sum())
        assert row.accuracy == pytest.approx(right / len(sealed), abs=1.5 / len(sealed))  # rounding at a threshold
        share = np.bincount(routed.exit_taken.numpy(), minlength=network.exits + 1) / len(sealed)
        assert row.exit_share == pytest.approx(tuple(share), abs=1.5 / len(sealed))
        if row.kind == "static":
            assert row.macs == sum(costs.macs)
        assert row.measured_ms is not None
        assert row.measured_ms > 0
        checked += 1
    assert checked >= 3
    assert "static" in {row.kind for row in driven.report.rows}


def test_nothing_is_left_behind_but_what_is_needed(driven: Watched) -> None:
    names = {file.name for file in driven.folder.glob("candidates/*/*")}
    assert names == {"weights.safetensors", "candidate.json", "tune.npz", "certify.npz"}
    with driven.ledger() as ledger:
        record = ledger.search(ID)
        assert (record.status, record.reason) == ("finished", "the budget of 4 candidates is spent")
        assert record.holder is None


# -- the examiner ---------------------------------------------------------------------------------------------


def test_the_examiner_scores_only_what_has_no_score(driven: Watched) -> None:
    """Again over the same ledger, as after a death between scoring and report: not a row is scored anew."""
    problem = driven.problem
    blank = Part(torch.zeros(30, 1, 8, 8), torch.zeros(30, dtype=torch.long))
    examiner = Examiner(problem, driven.folder, book_of(FOUR), blank)
    with driven.ledger() as ledger:
        front = tune_front(problem, ledger, ID)
        before = {(p.number, p.index): p.test for p in ledger.points(ID)}
        found = score_front(ledger, ID, front, examiner)
        assert {(p.number, p.index): p.test for p in ledger.points(ID)} == before
    assert set(found) == set(keys(front))
    assert all(each.total == len(sealed_test(problem.data, problem.splits, 0)) for each in found.values())


def test_single_exits_are_the_undominated_ones_by_hand(driven: Watched) -> None:
    """Each exit of each network alone, and what no other of them beats."""
    problem = driven.problem
    splits = visible_splits(problem.data, problem.splits, 0)
    examiner = Examiner(problem, driven.folder, book_of(FOUR), splits.certify)
    every = {
        (number, k): examiner.score(number, Policy.single(examiner.exits(number), k))
        for number in range(4)
        for k in range(examiner.exits(number))
    }
    assert len(every) == 4  # one network with both exits, two with one, one static
    values = {key: (s.point.metrics["accuracy"], s.point.metrics["latency_ms@cpu"]) for key, s in every.items()}
    unbeaten = {
        key
        for key, (accuracy, ms) in values.items()
        if not any((a, -m) != (accuracy, -ms) and a >= accuracy and m <= ms for a, m in values.values())
    }
    found = single_exits(problem, examiner, range(4))
    assert {(s.number, s.point.policy.enabled.index(True)) for s in found} <= unbeaten
    assert {values[s.number, s.point.policy.enabled.index(True)] for s in found} == {values[key] for key in unbeaten}
    assert single_exits(problem, examiner, []) == []


def test_a_network_run_to_its_end_does_its_whole_work(driven: Watched) -> None:
    problem = driven.problem
    examiner = Examiner(problem, driven.folder, book_of(FOUR), visible_splits(problem.data, problem.splits, 0).tune)
    for number in range(4):
        full = examiner.full(number)
        assert full.point.metrics["macs"] == full.whole_macs
        assert full.exit_accuracy[-1] == full.point.metrics["accuracy"] == full.correct / full.total


def test_the_front_is_read_from_the_points_in_the_ledger(driven: Watched) -> None:
    with driven.ledger() as ledger:
        front = tune_front(driven.problem, ledger, ID)
        every = [driven.problem.values(numbers(point)) for point in ledger.points(ID)]
    for point in front:
        accuracy, ms = driven.problem.values(numbers(point))
        assert not any(a >= accuracy and m <= ms and (a, m) != (accuracy, ms) for a, m in every)
