from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynarch.evaluators.pareto import hypervolume, non_dominated
from dynarch.evaluators.policy import ExitProblem, evaluate
from dynarch.evaluators.policy_grid import CutGrid, cut_points
from dynarch.evaluators.policy_search import search_policies
from dynarch.evaluators.policy_seeds import PRICES, ascent, quotas, seeds
from dynarch.spaces.errors import DataError
from dynarch.spaces.policy import Policy
from dynarch.tests.exit_problems import problem_of, same

DIRECTIONS = ("maximize", "minimize")


# -- cuts and grid ------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-4, 4, width=32) | st.sampled_from((0.25, 0.5, 1.0)), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_cuts_lie_clear_of_every_score(scores: list[float], cuts: int) -> None:
    values = np.array(scores)
    found = cut_points(values, cuts)
    assert len(found) <= cuts
    assert (np.diff(found) > 0).all()
    assert (found == found.astype(np.float32)).all()
    for cut in found:
        assert 0 < (values > cut).sum() < len(values)
        assert np.abs(values - cut).min() > 2.0**-22 * np.abs(values).max()


def test_cuts_are_quantiles() -> None:
    # 0..99 in four equal parts: midway between 24 and 25, 49 and 50, 74 and 75
    assert cut_points(np.arange(100.0), 3).tolist() == [24.5, 49.5, 74.5]
    assert cut_points(np.array([2.0, 1.0, 2.0, 4.0]), 9).tolist() == [1.5, 3.0]
    assert cut_points(np.full(5, 0.5), 9).tolist() == []


def test_saturated_scores_are_one_tie() -> None:
    # softmax outputs that differ in the last bit only may swap places at another batch size
    one = np.float32(1.0)
    assert cut_points(np.array([np.nextafter(one, np.float32(0)), one], dtype=np.float64), 9).tolist() == []


@pytest.mark.parametrize("varied", [False, True])
def test_grid_scores_equal_evaluate(varied: bool) -> None:
    problem = problem_of(130, 4, 1, varied=varied)
    grid = CutGrid(problem, 6)
    g = np.random.default_rng(0)
    measure = g.integers(2, size=200)
    genomes = grid.normalised(measure, g.integers(0, grid.off + 1, size=(200, 4)))
    points = [evaluate(problem, grid.policy(int(m), row)) for m, row in zip(measure, genomes, strict=True)]
    found = grid.score(measure, genomes)
    assert found[:, 0] == pytest.approx([p.accuracy for p in points], abs=1e-12)
    # segments range over 1 ms, so each is rounded by at most 1/510 ms; exact where all samples pay the same
    assert found[:, 1] == pytest.approx([p.mean_cost_ms for p in points], abs=5 / 510 if varied else 1e-9)


# -- sweeps and search against enumeration ------------------------------------------------------------


def enumerated(grid: CutGrid) -> NDArray[np.float64]:
    """Accuracy and cost of every policy of the grid."""
    e = grid.problem.exits
    rows = np.array(list(itertools.product(range(grid.off + 1), repeat=e)))
    values = []
    for m in range(len(grid.measures)):
        measure = np.full(len(rows), m)
        values.append(grid.score(measure, grid.normalised(measure, rows)))
    return np.concatenate(values)


def full_cost(problem: ExitProblem) -> float:
    return evaluate(problem, Policy.never(problem.exits)).mean_cost_ms


@pytest.mark.parametrize("seed", range(4))
def test_ascent_on_one_exit_is_optimal(seed: int) -> None:
    # with one exit the ascent solves its only sub-problem exactly, so no cut may beat it at any price
    problem = replace(problem_of(90, 1, seed), scores={"max_prob": problem_of(90, 1, seed).scores["max_prob"]})
    grid = CutGrid(problem, 12)
    everything = enumerated(grid)
    for price in PRICES:
        found = grid.score(
            np.zeros(2, dtype=np.int64), grid.normalised(np.zeros(2, dtype=np.int64), ascent(grid, 0, prices=[price]))
        )
        weights = np.array([1.0, -price / full_cost(problem)])
        assert (found @ weights).max() == pytest.approx((everything @ weights).max(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_search_reaches_the_exhaustive_optimum(seed: int) -> None:
    problem = problem_of(120, 3, seed, varied=seed % 2 == 1, patience=False)
    found = search_policies(problem, seed=seed, max_points=1000, cuts=5)
    values = np.array([(p.accuracy, p.mean_cost_ms) for p in found])
    everything = enumerated(CutGrid(problem, 5))  # 2 measures x 7 ** 3 = 686 policies
    rounding = 4 / 510 if seed % 2 else 1e-9  # costs of varied segments are enumerated on rounded values
    for price in np.geomspace(0.01, 10, 12):
        weights = np.array([1.0, -price / full_cost(problem)])
        assert (values @ weights).max() >= (everything @ weights).max() + weights[1] * rounding - 1e-12
    reference = (0.0, 2 * full_cost(problem))
    assert hypervolume(values, DIRECTIONS, reference) >= hypervolume(everything, DIRECTIONS, reference) - 2 * rounding


@pytest.mark.parametrize("seed", range(3))
def test_constructed_policies_come_near_without_any_evolution(seed: int) -> None:
    problem = problem_of(120, 3, seed, patience=False)
    grid = CutGrid(problem, 5)
    everything, found = enumerated(grid), grid.score(*seeds(grid))
    for price in PRICES:
        weights = np.array([1.0, -price / full_cost(problem)])
        assert (found @ weights).max() >= (everything @ weights).max() - 0.003


@pytest.mark.parametrize("varied", [False, True])
def test_every_point_equals_the_walk(varied: bool) -> None:
    problem = problem_of(150, 5, 7, varied=varied)
    points = search_policies(problem, seed=1)
    assert len(points) > 8
    for point in points:
        same(point, problem)


def test_points_are_a_front_sorted_by_cost_that_no_fixed_exit_beats() -> None:
    problem = problem_of(400, 5, 2)
    points = search_policies(problem, seed=0, max_points=10)
    values = np.array([(p.accuracy, p.mean_cost_ms) for p in points])
    assert len(points) == 10
    assert (np.diff(values[:, 1]) > 0).all()
    assert non_dominated(values, DIRECTIONS).all()
    for policy in (*(Policy.single(5, k) for k in range(5)), Policy.never(5)):
        baseline = evaluate(problem, policy)
        wide = search_policies(problem, seed=0, max_points=1000)
        assert any(p.accuracy >= baseline.accuracy and p.mean_cost_ms <= baseline.mean_cost_ms for p in wide)


def test_quotas_are_met() -> None:
    problem = problem_of(2000, 3, 0)
    grid = CutGrid(problem, 40)
    ninth = quotas(grid, 0, np.ones(3, dtype=np.bool_))[8]
    # ratios run from 0.05 to 2.95 in 24 steps, the ninth is 1.0587: shares 1, 1.0587, 1.1208, 1.1866 of 4.3661.
    # one cut moves at most 1/41 of the samples, so the nearest misses by half of that
    assert evaluate(problem, grid.policy(0, ninth)).exit_share[:3] == pytest.approx(
        [0.2290, 0.2425, 0.2567], abs=1 / 82
    )


def test_patience_is_found_where_scores_say_nothing() -> None:
    # heads agree exactly on the samples that they have right; the score is noise
    problem = problem_of(300, 4, 5)
    noise = np.random.default_rng(0).random((300, 4)).astype(np.float32)
    wrong = (problem.labels[:, None] + 1 + np.arange(5) % 3) % 4
    easy = np.arange(300) % 2 == 0
    predictions = np.where(easy[:, None] | (np.arange(5) == 4), problem.labels[:, None], wrong)
    clean = replace(problem, scores={"max_prob": noise}, predictions=predictions)
    points = search_policies(clean, seed=0)
    perfect = [p for p in points if p.accuracy == 1.0]
    assert perfect[0].policy.decision == "patience"
    assert perfect[0].exit_share[4] == 0.5


# -- edges --------------------------------------------------------------------------------------------


def test_a_network_without_exits_has_one_point() -> None:
    for patience in (False, True):
        problem = problem_of(30, 0, 0, patience=patience)
        (point,) = search_policies(problem, seed=0)
        assert point.policy == Policy.never(0)
        assert point.exit_share == (1.0,)
        same(point, problem)


def test_patience_alone_needs_no_scores() -> None:
    problem = replace(problem_of(60, 3, 0), scores={})
    points = search_policies(problem, seed=0)
    for point in points:
        same(point, problem)
    assert points[0].policy.thresholds == (-math.inf, None, None)


def constant(problem: ExitProblem) -> ExitProblem:
    return replace(problem, scores={name: np.full_like(s, 0.5) for name, s in problem.scores.items()})


def one_class(problem: ExitProblem) -> ExitProblem:
    return replace(problem, predictions=np.zeros_like(problem.predictions), labels=np.zeros_like(problem.labels))


def free(problem: ExitProblem) -> ExitProblem:
    return replace(problem, segment_ms=np.zeros(problem.exits + 1), exit_ms=np.zeros(problem.exits))


@pytest.mark.parametrize("change", [constant, one_class, free])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_degenerate_tables(change: Callable[[ExitProblem], ExitProblem], n: int) -> None:
    problem = change(problem_of(n, 3, 0))
    points = search_policies(problem, seed=0, evaluations=400)
    for point in points:
        same(point, problem)
    if change is one_class:  # every head is always right: only the cheapest exit is worth having
        assert [p.policy.thresholds for p in points] == [(-math.inf, None, None)]


def test_same_seed_same_points() -> None:
    problem = problem_of(300, 5, 4)
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    first = search_policies(problem, seed=5)
    assert search_policies(problem, seed=5) == first
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_settings_are_checked() -> None:
    good = problem_of(20, 2, 0)
    with pytest.raises(DataError, match="max_points >= 2"):
        search_policies(good, seed=0, max_points=1)
    with pytest.raises(DataError, match="cuts >= 1"):
        search_policies(good, seed=0, cuts=0)
    with pytest.raises(DataError, match="evaluations >= 0"):
        search_policies(good, seed=0, evaluations=-1)
