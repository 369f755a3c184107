"""Feasibility: bounds that hold for every policy, and the cheapest value that can be reached by name."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.evaluators.operating import score
from dynarch.evaluators.score_table import ScoreTable, ScoreTables
from dynarch.evaluators.testing import made_up_book
from dynarch.hardware.book import LatencyBook
from dynarch.hardware.inventory import Costs, costs_of
from dynarch.search.feasibility import check_feasible, hopeless, least_metrics
from dynarch.search.problem import Constraint, Problem
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import InfeasibleError
from dynarch.spaces.policy import Policy
from dynarch.spaces.space import build
from dynarch.tests.inline_searches import SPACE, book_of, parts_of, small_data, small_problem

SIGNATURE = small_data().signature


@cache
def members() -> tuple[tuple[Architecture, Costs], ...]:
    """Every network of the space."""
    made = dict.fromkeys(member for _, member in SPACE.enumerate(SIGNATURE))
    return tuple((member, costs_of(build(member, SIGNATURE).eval())) for member in made)


def exits_of(costs: Costs) -> int:
    return max((part.exit + 1 for part in costs.parts if part.exit is not None), default=0)


def path_metrics(costs: Costs, k: int, book: LatencyBook) -> dict[str, float]:
    """All metrics if everybody leaves at exit `k` and no other is tried."""
    exits = exits_of(costs)
    table = ScoreTable(
        {"max_prob": np.zeros((1, exits), np.float32)}, np.zeros((1, exits + 1), np.int64), np.zeros(1, np.int64)
    )
    return dict(score(ScoreTables((table,)), costs, book, Policy.single(exits, k), seed=0).metrics)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_policy_gets_below_the_bounds(data: st.DataObject) -> None:
    _, costs = data.draw(st.sampled_from(members()))
    exits, n = exits_of(costs), data.draw(st.integers(1, 8))
    thresholds = data.draw(st.tuples(*[st.sampled_from([None, -math.inf, 0.3, 0.6])] * exits))
    scores = np.array(
        data.draw(st.lists(st.lists(st.floats(0, 1, width=16), min_size=exits, max_size=exits), min_size=n, max_size=n))
    )
    table = ScoreTable(
        {"max_prob": scores.reshape(n, exits).astype(np.float32)},
        np.zeros((n, exits + 1), np.int64),
        np.zeros(n, np.int64),
    )
    book = made_up_book([costs], {"cpu": 1, "four": 4})
    least = least_metrics(costs, book)
    reached = score(ScoreTables((table,)), costs, book, Policy("max_prob", thresholds), seed=0).metrics
    assert set(least) == set(reached) - {"accuracy"}
    assert all(least[name] <= reached[name] + 1e-9 for name in least)


def test_the_bounds_are_reached() -> None:
    book = book_of(SPACE)
    for _, costs in members():
        paths = [path_metrics(costs, k, book) for k in range(exits_of(costs) + 1)]
        for name, value in least_metrics(costs, book).items():
            assert value == pytest.approx(min(path[name] for path in paths)), name


def problem_with(metric: str, maximum: float, *, hard: bool = True) -> Problem:
    return small_problem(constraints=(Constraint(metric, maximum=maximum, hard=hard),))


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        ("latency_ms", "latency_ms@cpu"),
        ("latency_p95_ms@cpu", "latency_p95_ms@cpu"),
        ("latency_worst_ms", "latency_worst_ms@cpu"),
        ("macs", "macs"),
        ("parameters", "parameters"),
    ],
)
def test_a_bound_that_nothing_can_meet_says_the_cheapest_reachable_value(metric: str, key: str) -> None:
    """By trying all 28 networks along all of their paths."""
    book, found = book_of(SPACE), parts_of(SPACE)
    cheapest = min(path_metrics(costs, k, book)[key] for _, costs in members() for k in range(exits_of(costs) + 1))
    check_feasible(problem_with(metric, cheapest * 1.0001), found.costs, book)
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(problem_with(metric, cheapest * 0.9), found.costs, book)
    assert str(caught.value) == (
        f"constraints.0.maximum: {metric} <= {cheapest * 0.9:g} cannot be met: the cheapest network of the space "
        f"needs {cheapest:.4g}; raise the bound or add smaller backbones"
    )


def test_the_second_constraint_is_named_by_its_place() -> None:
    bounds = (Constraint("accuracy", minimum=0.5), Constraint("parameters", maximum=3))
    with pytest.raises(InfeasibleError, match=r"^constraints\.1\.maximum: parameters <= 3 cannot be met"):
        check_feasible(small_problem(constraints=bounds), parts_of(SPACE).costs, book_of(SPACE))


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("parameters", maximum=3, hard=False),
        Constraint("accuracy", minimum=0.999),
        Constraint("macs", minimum=1e12),
    ],
)
def test_what_training_may_repair_or_only_steers_refuses_nothing(constraint: Constraint) -> None:
    problem = small_problem(constraints=(constraint,))
    check_feasible(problem, parts_of(SPACE).costs, book_of(SPACE))
    assert not any(hopeless(member, problem, book_of(SPACE)) for member, _ in members())


@pytest.mark.parametrize("metric", ["latency_ms", "macs", "parameters"])
def test_the_hopeless_are_exactly_those_whose_cheapest_way_breaks_the_bound(metric: str) -> None:
    book = book_of(SPACE)
    key = "latency_ms@cpu" if metric == "latency_ms" else metric
    least = {member.id: least_metrics(costs, book)[key] for member, costs in members()}
    bound = float(np.median(list(least.values())))
    problem = problem_with(metric, bound)
    refused = {member.id for member, _ in members() if hopeless(member, problem, book)}
    assert refused == {name for name, value in least.items() if value > bound}
    assert 0 < len(refused) < len(least)
