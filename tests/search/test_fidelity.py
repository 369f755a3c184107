from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynarch.search.fidelity import ParetoRungs
from dynarch.spaces.errors import DataError, SpecError

BOTH = ("minimize", "minimize")
Sets = list[list[tuple[float, float]]]

number = st.integers(0, 9).map(float)  # coarse, so that ties and repeats are common
candidates = st.lists(st.lists(st.tuples(number, number), min_size=1, max_size=3), min_size=1, max_size=14)


def verdicts(sets: Sets, eta: int = 3, directions: tuple[str, ...] = BOTH) -> list[bool]:
    rungs = ParetoRungs(27, eta=eta, directions=directions)
    return [rungs.report(i, 1, np.array(points)) for i, points in enumerate(sets)]


@pytest.mark.parametrize(
    ("epochs", "first", "eta", "rungs"),
    [
        (27, 1, 3, (1, 3, 9)),  # 27 itself is the full fidelity
        (28, 1, 3, (1, 3, 9, 27)),
        (16, 2, 2, (2, 4, 8)),
        (1, 1, 3, ()),
        (5, 9, 3, ()),
    ],
)
def test_rungs(epochs: int, first: int, eta: int, rungs: tuple[int, ...]) -> None:
    assert ParetoRungs(epochs, first=first, eta=eta, directions=BOTH).rungs == rungs


def test_nobody_is_stopped_before_eta_were_seen() -> None:
    # three points in a row, each dominated by the one before: only the third meets two others
    assert verdicts([[(0, 0)], [(1, 1)], [(2, 2)]]) == [True, True, False]
    assert verdicts([[(0, 0)], [(1, 1)], [(2, 2)], [(3, 3)]], eta=4) == [True, True, True, False]


def test_one_point_on_the_front_saves_its_candidate() -> None:
    sets: Sets = [[(0, 5)], [(1, 4)], [(9, 9), (8, 8), (5, 0)]]
    assert verdicts(sets) == [True, True, True]


def test_at_equal_rank_the_empty_place_wins() -> None:
    # eta 2, four seen: two places, one taken by (0, 0); (1, 10), (10, 1) and the fourth are of rank 1.
    crowd: Sets = [[(0, 0)], [(1, 10)], [(10, 1)]]
    # (1.5, 9.5) lies 0.07 from (1, 10) in units of the ranges, and (10, 1) is farther from all: no place left
    assert verdicts([*crowd, [(1.5, 9.5)]], eta=2)[-1] is False
    # (5, 5) lies 0.64 from both others, and neither has more room than that
    assert verdicts([*crowd, [(5, 5)]], eta=2)[-1] is True


def test_own_points_do_not_crowd_each_other() -> None:
    # as above, but the newcomer brings a second point 0.04 beside its first one
    crowd: Sets = [[(0, 0)], [(1, 10)], [(10, 1)]]
    assert verdicts([*crowd, [(5, 5), (5.3, 4.7)]], eta=2)[-1] is True


def test_a_better_rank_comes_before_room() -> None:
    # six seen, eta 3: two places. (0, 0) and (1, 1) hold them; the loner (9, 2) stands behind three
    sets: Sets = [[(0, 0)], [(1, 1)], [(2, 1.5)], [(3, 3)], [(4, 4)], [(9, 2)]]
    assert verdicts(sets)[-1] is False


def dominated(point: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in others)


@given(candidates, st.sampled_from((2, 3, 4)))
def test_owners_of_a_non_dominated_point_are_never_stopped(sets: Sets, eta: int) -> None:
    for i, kept in enumerate(verdicts(sets, eta)):
        pool = [point for points in sets[: i + 1] for point in points]
        if not all(dominated(point, pool) for point in sets[i]):
            assert kept


@given(candidates, st.sampled_from((2, 3, 4)))
def test_those_with_enough_betters_are_stopped(sets: Sets, eta: int) -> None:
    # A candidate all of whose points each of `room` non-dominated candidates beats everywhere has no place.
    for i, kept in enumerate(verdicts(sets, eta)):
        seen = sets[: i + 1]
        pool = [point for points in seen for point in points]
        leaders = [points for points in seen if any(not dominated(p, pool) for p in points)]
        own = all(dominated(point, pool) for point in sets[i])
        if own and len(seen) >= eta and len(leaders) >= math.ceil(len(seen) / eta):
            assert not kept


@given(candidates)
def test_directions_only_turn_the_sign(sets: Sets) -> None:
    turned = [[(-a, b) for a, b in points] for points in sets]
    assert verdicts(turned, directions=("maximize", "minimize")) == verdicts(sets)


@given(candidates, st.lists(st.tuples(st.integers(0, 13), st.sampled_from((1, 3, 9))), max_size=30))
def test_same_report_same_answer_also_after_replay(sets: Sets, order: list[tuple[int, int]]) -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    first: dict[tuple[int, int], bool] = {}
    for pick, epoch in order:
        number = pick % len(sets)
        answer = rungs.report(number, epoch, np.array(sets[number]))
        assert first.setdefault((number, epoch), answer) is answer
    replayed = ParetoRungs(27, directions=BOTH)
    again = {(number, epoch): replayed.report(number, epoch, np.array(sets[number])) for number, epoch in first}
    assert again == first
    # and both live on alike
    newcomer = np.array([(4.0, 4.0)])
    assert rungs.report(99, 3, newcomer) is replayed.report(99, 3, newcomer)


def test_a_repeated_report_counts_once() -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    for _ in range(5):
        assert rungs.report(0, 1, np.array([(0.0, 0.0)]))
    # were the repeats pooled, this would be the sixth at the rung and be stopped
    assert rungs.report(1, 1, np.array([(1.0, 1.0)]))


def test_the_caller_may_reuse_its_array() -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    buffer = np.array([(0.0, 0.0)])
    rungs.report(0, 1, buffer)
    buffer[:] = 9.0
    rungs.report(1, 1, np.array([(1.0, 1.0)]))
    assert rungs.report(2, 1, np.array([(5.0, 5.0)])) is False  # (0, 0) and (1, 1) stand before it


def test_between_rungs_and_at_the_end_all_go_on() -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    for candidate in range(6):
        for epoch in (2, 5, 27):
            assert rungs.report(candidate, epoch, np.full((1, 2), float(candidate)))


def test_rungs_are_compared_each_by_itself() -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    for candidate in range(3):
        rungs.report(candidate, 3, np.array([(0.0, 0.0)]))
    assert rungs.report(9, 1, np.array([(5.0, 5.0)]))  # first at rung 1, whatever stands at rung 3


@pytest.mark.parametrize(
    "points",
    [
        np.empty((0, 2)),
        np.array([1.0, 2.0]),
        np.array([[1.0, 2.0, 3.0]]),
        np.array([[1.0, math.nan]]),
        np.array([[1.0, math.inf]]),
    ],
)
@pytest.mark.parametrize("epoch", [1, 2])
def test_unusable_points_are_refused(points: NDArray[np.float64], epoch: int) -> None:
    with pytest.raises(DataError, match="points"):
        ParetoRungs(27, directions=BOTH).report(0, epoch, points)


def test_a_refused_report_leaves_no_trace() -> None:
    rungs = ParetoRungs(27, directions=BOTH)
    rungs.report(0, 1, np.array([(0.0, 0.0)]))
    with pytest.raises(DataError):
        rungs.report(1, 1, np.array([[math.nan, 0.0]]))
    assert rungs.report(1, 1, np.array([(1.0, 1.0)]))  # the second at the rung, not the third


@pytest.mark.parametrize(
    ("name", "epochs", "first", "eta", "directions"),
    [
        ("epochs", 0, 1, 3, BOTH),
        ("first", 9, 0, 3, BOTH),
        ("eta", 9, 1, 1, BOTH),
        ("directions", 9, 1, 3, ()),
        ("directions", 9, 1, 3, ("min",)),
    ],
)
def test_settings_are_checked(name: str, epochs: int, first: int, eta: int, directions: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        ParetoRungs(epochs, first=first, eta=eta, directions=directions)
    assert caught.value.path == name
