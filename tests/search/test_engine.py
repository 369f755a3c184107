"""The engine: asked is recorded is told, whatever fails or dies; only what is fully trained comes to a front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from dynarch.evaluators.from_scratch import FromScratch
from dynarch.evaluators.splits import sealed_test
from dynarch.hardware.inventory import costs_of
from dynarch.search.feasibility import least_metrics
from dynarch.search.outcome import tune_front
from dynarch.search.problem import Constraint
from dynarch.search.proposals import numbers
from dynarch.search.samplers import TrialRecord
from dynarch.search.testing import Killed, kill_at
from dynarch.spaces.errors import StoreError
from dynarch.spaces.space import build
from dynarch.tests.inline_searches import (
    FOUR,
    ID,
    SPACE,
    Driven,
    Tabular,
    architecture_of,
    book_of,
    quick_folder,
    small_problem,
    worth,
)

ENDINGS = {"finished": "complete", "stopped": "pruned", "failed": "fail"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Driven]:
    """Eight candidates on one worker, with rungs: some finish, some are stopped."""
    with quick_folder() as made:
        search = Driven(made, small_problem())
        assert search.run() is None
        yield search


def own_trials(search: Driven) -> list[TrialRecord]:
    return [trial for trial in search.study().trials() if not trial.extra]


def test_asked_is_recorded_is_told(undisturbed: Driven) -> None:
    evaluations = undisturbed.evaluations()
    assert [each.number for each in evaluations] == list(range(8))
    assert len({each.architecture_id for each in evaluations}) == 8
    assert all(each.told and each.attempts == 1 for each in evaluations)
    assert [each.number for each in undisturbed.ended] == list(range(8))
    states = {trial.number: trial.state for trial in own_trials(undisturbed)}
    assert {e.optuna_trial: ENDINGS[e.state] for e in evaluations}.items() <= states.items()
    assert "running" not in states.values()
    candidates = [trial.candidate for trial in own_trials(undisturbed) if trial.candidate is not None]
    assert candidates == list(range(8))


def test_finished_and_stopped_are_both_there(undisturbed: Driven) -> None:
    """Or the tests below would prove nothing."""
    assert {each.state for each in undisturbed.evaluations()} == {"finished", "stopped"}


def test_stopped_candidates_leave_no_points(undisturbed: Driven) -> None:
    finished = {each.number for each in undisturbed.evaluations() if each.state == "finished"}
    assert {point.number for point in undisturbed.points()} == finished
    for each in undisturbed.evaluations():
        if each.state == "stopped":
            assert each.epochs_done in (1, 2)
            assert each.cause == f"stopped at epoch {each.epochs_done}: others were better at every operating point"


def test_no_half_trained_point_is_on_the_front(undisturbed: Driven) -> None:
    full = undisturbed.problem.budget.epochs
    with undisturbed.ledger() as ledger:
        front = tune_front(undisturbed.problem, ledger, ID)
        ledger.mark_front(ID, [(point.number, point.index) for point in front])
        marked = ledger.points(ID, front_only=True)
        evaluations = {each.number: each for each in ledger.evaluations(ID)}
    assert {(p.number, p.index) for p in front} == {(p.number, p.index) for p in marked} != set()
    for point in marked:
        assert evaluations[point.number].state == "finished"
        assert evaluations[point.number].epochs_done == evaluations[point.number].fidelity == full
        told = [value for value, _ in worth(evaluations[point.number].architecture_id, full)]
        assert numbers(point)["accuracy"] == told[point.index]


def test_the_ledger_refuses_a_half_trained_front(folder: Path) -> None:
    search = Driven(folder, small_problem(trials=2))
    with pytest.raises(Killed):
        search.run(kill_at(2))  # the first candidate has read at its first rung and is going on
    with search.ledger() as ledger:
        assert [e.state for e in ledger.evaluations(ID)] == ["running"]
        assert ledger.points(ID) == ()
        with pytest.raises(StoreError, match="no points"):
            ledger.mark_front(ID, [(0, 0)])


def test_static_baselines_come_first_and_are_never_stopped(folder: Path) -> None:
    """The statics are made to be worse than everybody at every operating point."""
    problem = small_problem(trials=10)
    static = {each.id for each in problem.space.baselines(problem.data.signature)}

    def badly(architecture_id: str, epoch: int) -> tuple[tuple[float, float], ...]:
        return ((0.01, 99.0),) if architecture_id in static else worth(architecture_id, epoch)

    search = Driven(folder, problem, Tabular(worth=badly))
    search.run()
    first, second, *others = search.evaluations()
    assert {first.architecture_id, second.architecture_id} == static
    assert {first.state, second.state} == {"finished"}
    assert "stopped" in {each.state for each in others}
    with search.ledger() as ledger:
        assert all(verdict.kept for verdict in ledger.rungs(ID) if verdict.number < 2)


def test_without_rungs_everybody_finishes(folder: Path) -> None:
    search = Driven(folder, small_problem(trials=6, rungs=False))
    search.run()
    assert {each.state for each in search.evaluations()} == {"finished"}
    with search.ledger() as ledger:
        assert ledger.rungs(ID) == ()


# -- seeds ----------------------------------------------------------------------------------------------------


def chosen(search: Driven) -> list[str]:
    return [each.architecture_id for each in search.evaluations()]


def test_the_same_seed_gives_the_same_search_twice(folder: Path, undisturbed: Driven) -> None:
    again = Driven(folder, undisturbed.problem)
    again.run()
    assert again.record() == undisturbed.record()


def test_another_seed_gives_another_search(folder: Path, undisturbed: Driven) -> None:
    other = Driven(folder, small_problem(seed=1))
    other.run()
    assert chosen(other)[:2] == chosen(undisturbed)[:2]  # the static baselines
    assert chosen(other) != chosen(undisturbed)


def front_of(search: Driven) -> list[tuple[int, Sequence[float]]]:
    with search.ledger() as ledger:
        return [(p.number, search.problem.values(numbers(p))) for p in tune_front(search.problem, ledger, ID)]


def test_training_for_real_gives_the_same_front_twice() -> None:
    """The same seed and one worker; another seed gives other weights, hence another front."""
    fronts = []
    for seed in (0, 0, 1):
        with quick_folder() as made:
            search = Driven(made, small_problem(space=FOUR, trials=3, epochs=2, seed=seed), FromScratch())
            search.run()
            assert [each.cause for each in search.evaluations() if each.state == "failed"] == []
            fronts.append(front_of(search))
    assert fronts[0] == fronts[1] != fronts[2]
    assert fronts[0]


# -- ends -----------------------------------------------------------------------------------------------------


def test_a_space_smaller_than_the_budget_ends_with_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four networks in all: each is tried once, then the search says why it ends."""
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 12)
    search = Driven(folder, small_problem(space=FOUR, trials=20, rungs=False))
    assert search.run() == "every architecture that the space and its constraints admit has been evaluated"
    assert len(search.evaluations()) == 4
    every = {made.id for _, made in FOUR.enumerate(search.problem.data.signature)}
    assert set(chosen(search)) == every
    assert {each.state for each in search.evaluations()} == {"finished"}


def test_an_exhausted_space_lets_the_others_finish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two workers one may ask in vain while the other still trains: nothing running is to be ended."""
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 12)
    search = Driven(folder, small_problem(space=FOUR, trials=20, rungs=False))
    with search.enter() as engine:
        proposed = [engine.propose() for _ in range(4)]
        assert all(proposed)
        assert engine.propose() is None
        assert engine.exhausted
        assert not engine.stopped
        assert engine.live == 4


def test_minutes_end_what_has_not_started(folder: Path) -> None:
    """The clock gains ten seconds a look; after a minute nothing new begins, and what began comes to its end."""
    now = iter(range(0, 10_000, 10))
    search = Driven(folder, small_problem(trials=20, minutes=1, rungs=False), clock=lambda: float(next(now)))
    assert search.run() == "the budget of 1 minutes is spent"
    evaluations = search.evaluations()
    assert 1 <= len(evaluations) < 20
    assert {each.state for each in evaluations} == {"finished"}


def test_minutes_do_not_break_off_a_running_candidate(folder: Path) -> None:
    time = 0.0
    search = Driven(folder, small_problem(trials=20, minutes=1, rungs=False), clock=lambda: time)
    with search.enter() as engine:
        assert engine.propose() is not None
        time = 61.0
        assert engine.exhausted
        assert engine.propose() is None
        assert not engine.stopped
        assert engine.stop_reason == "the budget of 1 minutes is spent"


def test_a_budget_that_is_spent_ends_without_a_reason_of_its_own(folder: Path) -> None:
    search = Driven(folder, small_problem(trials=2))
    assert search.run() is None
    assert search.run() is None  # again: nothing is left to do
    assert len(search.evaluations()) == 2


# -- what workers get -----------------------------------------------------------------------------------------


def test_no_worker_gets_a_row_of_the_test_split(folder: Path) -> None:
    search = Driven(folder, small_problem())
    problem = search.problem
    with search.enter() as engine:
        assignment = search.assignment(engine)
    sealed = sealed_test(problem.data, problem.splits, problem.strategy.seed)
    given = {row.tobytes() for name, rows in assignment.arrays.items() if name.endswith(".x") for row in rows}
    held_back = {row.numpy().tobytes() for row in sealed.x}
    assert len(given) + len(held_back) == len(problem.data.x)
    assert not given & held_back
    assert set(assignment.arrays) == {f"{n}.{k}" for n in ("train", "calibrate", "tune", "certify") for k in "xy"}


def test_infeasible_architectures_never_reach_a_worker(folder: Path) -> None:
    """Width 2 fits below the bound at its cheapest exit, width 4 does not, nor does the static small one."""
    signature = small_problem().data.signature
    least = {
        made.id: least_metrics(costs_of(build(made, signature).eval()), book_of(SPACE))["latency_ms@cpu"]
        for _, made in SPACE.enumerate(signature)
    }
    bound = float(np.median(list(least.values())))
    constraint = Constraint("latency_ms", maximum=bound)
    search = Driven(folder, small_problem(trials=6, rungs=False, constraints=(constraint,), sampler="random"))
    search.run()
    evaluations = search.evaluations()
    assert len(evaluations) == 6
    assert all(least[each.architecture_id] <= bound for each in evaluations)
    assert {number for number, _ in search.trained()} == set(range(6))
    refused = [trial for trial in own_trials(search) if trial.candidate is None]
    assert refused
    assert {trial.state for trial in refused} <= {"fail", "complete"}
    assert {architecture_of(each).id for each in evaluations} == {each.architecture_id for each in evaluations}
