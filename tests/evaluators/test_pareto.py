from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynarch.evaluators.pareto import (
    contributions,
    hypervolume,
    non_dominated,
    rank,
    reference_point,
    thin,
)
from dynarch.spaces.errors import DataError

BOTH = ("minimize", "minimize")
# A stair of three and a dominated point. Boxes to (4, 4): 3x1 + 2x1 + 1x1 below each step = 6, see below.
STAIR = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0)]


def small_sets(m: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    number = st.integers(0, 4).map(float)  # a coarse lattice, so that ties and repeats are common
    return st.lists(st.tuples(*[number] * m), min_size=1, max_size=9)


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def test_hypervolume_of_a_stair() -> None:
    # columns of width 1 from x = 1, 2, 3 up to 4 reach from y = 3, 2, 1 to 4: 1 + 2 + 3
    assert hypervolume(STAIR, BOTH, (4.0, 4.0)) == 6.0


def test_hypervolume_turns_directions() -> None:
    # accuracy 0.5 at cost 1 and 0.8 at cost 2 against (0, 4): 0.5 * 3 + 0.3 * 2 = 2.1
    found = hypervolume([(0.5, 1.0), (0.8, 2.0)], ("maximize", "minimize"), (0.0, 4.0))
    assert found == pytest.approx(2.1)


def test_outside_points_add_nothing() -> None:
    assert hypervolume([(1.0, 9.0), (9.0, 1.0), (4.0, 0.0)], BOTH, (4.0, 4.0)) == 0.0
    assert hypervolume([(1.0, 9.0), (3.0, 3.0)], BOTH, (4.0, 4.0)) == 1.0
    assert hypervolume([], BOTH, (4.0, 4.0)) == 0.0


def test_hypervolume_in_three_dimensions() -> None:
    # unit cubes from (1, 1, 1) and (0, 2, 2) to (3, 3, 3): 8 + 3 - overlap 2 * 1 * 1
    assert hypervolume([(1, 1, 1), (0, 2, 2)], ("minimize",) * 3, (3, 3, 3)) == pytest.approx(9.0)


@given(small_sets(2), st.integers(0, 8))
def test_contribution_is_what_would_be_lost(points: list[tuple[float, ...]], pick: int) -> None:
    i = pick % len(points)
    rest = points[:i] + points[i + 1 :]
    lost = hypervolume(points, BOTH, (4.0, 4.0)) - hypervolume(rest, BOTH, (4.0, 4.0))
    assert contributions(points, BOTH, (4.0, 4.0))[i] == pytest.approx(lost)


def test_contributions_of_a_stair() -> None:
    # each step alone covers one unit square, but for (3, 3), which lies inside (2, 2)'s and so lessens nothing else
    assert contributions(STAIR, BOTH, (4.0, 4.0)).tolist() == [1.0, 1.0, 1.0, 0.0]


def test_contributions_on_a_line() -> None:
    assert contributions([[2.0], [1.0], [9.0]], ("minimize",), (4.0,)).tolist() == [0.0, 1.0, 0.0]
    assert contributions([[2.0], [9.0]], ("minimize",), (4.0,)).tolist() == [2.0, 0.0]
    assert contributions([[2.0], [2.0]], ("maximize",), (0.0,)).tolist() == [0.0, 0.0]


@given(small_sets(3))
def test_non_dominated_by_the_definition(points: list[tuple[float, ...]]) -> None:
    expected = [not any(dominates(q, p) for q in points) and p not in points[:i] for i, p in enumerate(points)]
    assert non_dominated(points, ("minimize",) * 3).tolist() == expected


@given(small_sets(2))
def test_rank_by_peeling_fronts(points: list[tuple[float, ...]]) -> None:
    expected: dict[tuple[float, ...], int] = {}
    left, level = set(points), 0
    while left:
        front = {p for p in left if not any(dominates(q, p) for q in left)}
        expected.update(dict.fromkeys(front, level))
        left, level = left - front, level + 1
    assert rank(points, BOTH).tolist() == [expected[p] for p in points]


@given(small_sets(2))
def test_maximising_is_minimising_the_negative(points: list[tuple[float, ...]]) -> None:
    turned = [(-a, b) for a, b in points]
    mixed = ("maximize", "minimize")
    assert non_dominated(turned, mixed).tolist() == non_dominated(points, BOTH).tolist()
    assert rank(turned, mixed).tolist() == rank(points, BOTH).tolist()


def test_thin_takes_the_ends_then_the_middle_of_the_widest_gap() -> None:
    # ends x = 0 and 10; farthest from both is x = 5; then 2 and 8 are equally far, the first wins
    line = np.array([(x, 10.0 - x) for x in (0.0, 1.0, 2.0, 5.0, 8.0, 9.0, 10.0)])
    assert thin(line, BOTH, 2).tolist() == [0, 6]
    assert thin(line, BOTH, 3).tolist() == [0, 3, 6]
    assert thin(line, BOTH, 4).tolist() == [0, 2, 3, 6]
    assert thin(line, BOTH, 99).tolist() == [0, 1, 2, 3, 4, 5, 6]


@given(small_sets(2), st.integers(2, 9))
def test_thin_keeps_a_part_of_the_front_with_its_ends(points: list[tuple[float, ...]], k: int) -> None:
    taken = thin(points, BOTH, k)
    front = np.flatnonzero(non_dominated(points, BOTH))
    assert set(taken) <= set(front)
    assert len(taken) == min(k, len(front))
    values: NDArray[np.float64] = np.array(points)
    assert (values[taken].min(axis=0) == values[front].min(axis=0)).all()


def test_thin_of_nothing() -> None:
    assert thin([], BOTH, 3).tolist() == []


def test_reference_point_lies_behind_the_worst() -> None:
    # accuracy ranges over 0.4, cost over 2; 10 % of that beyond the worst
    found = reference_point([(0.5, 1.0), (0.9, 3.0)], ("maximize", "minimize"), 0.1)
    assert found == pytest.approx((0.46, 3.2))
    # where all are equal, 10 % of the value itself
    assert reference_point([(2.0, 5.0)], BOTH, 0.1) == pytest.approx((2.2, 5.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(bad: float) -> None:
    for call in (non_dominated, rank):
        with pytest.raises(DataError, match="row 1"):
            call([(1.0, 1.0), (bad, 1.0)], BOTH)
    with pytest.raises(DataError, match="reference"):
        hypervolume([(1.0, 1.0)], BOTH, (bad, 4.0))


def test_shapes_and_words_are_checked() -> None:
    with pytest.raises(DataError, match="n x 2"):
        rank([1.0, 2.0], BOTH)
    with pytest.raises(DataError, match="n x 2"):
        rank([(1.0, 2.0, 3.0)], BOTH)
    with pytest.raises(DataError, match="minimize or maximize"):
        rank([(1.0, 2.0)], ("minimize", "min"))
    with pytest.raises(DataError, match="one direction"):
        rank([(1.0, 2.0)], ())
    with pytest.raises(DataError, match="k >= 1"):
        thin([(1.0, 2.0)], BOTH, 0)
    with pytest.raises(DataError, match="needs a point"):
        reference_point([], BOTH, 0.1)
    with pytest.raises(DataError, match="margin"):
        reference_point([(1.0, 2.0)], BOTH, -0.1)
