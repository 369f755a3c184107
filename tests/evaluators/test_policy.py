from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.evaluators.policy import ExitProblem, evaluate, leave_at
from dynarch.spaces.errors import DataError, UnknownNameError
from dynarch.spaces.policy import Policy
from dynarch.tests.exit_problems import problem_of, same, walk


def test_by_hand() -> None:
    problem = ExitProblem(
        scores={"max_prob": np.array([[0.9, 0.1], [0.4, 0.8], [0.4, 0.2], [0.5, 0.9]], dtype=np.float32)},
        predictions=np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0]]),
        labels=np.array([1, 1, 1, 1]),
        segment_ms=np.array([1.0, 2.0, 4.0]),
        exit_ms=np.array([0.1, 0.2]),
        decide_ms={"max_prob": 0.01},
    )
    policy = Policy("max_prob", (0.5, 0.5))  # a score equal to the threshold does not leave
    assert leave_at(problem.scores, problem.predictions, policy).tolist() == [0, 1, 2, 1]
    # right: head 0 on sample 0, head 1 on 1, final on 2, head 1 on 3 = all four
    # cost: 4 x (1 + .1 + .01) + 3 x (2 + .2 + .01) + 1 x 4 = 4.44 + 6.63 + 4 = 15.07, a quarter each
    point = evaluate(problem, policy)
    assert (point.accuracy, point.exit_share) == (1.0, (0.25, 0.5, 0.25))
    assert point.mean_cost_ms == pytest.approx(15.07 / 4)
    # nothing is decided where all leave: 1 + 2 + .2
    assert evaluate(problem, Policy.single(2, 1)).mean_cost_ms == pytest.approx(3.2)
    assert evaluate(problem, Policy.never(2)).mean_cost_ms == pytest.approx(7.0)


def test_patience_by_hand() -> None:
    predictions = np.array([[5, 5, 1, 0], [5, 6, 6, 0], [5, 6, 5, 0]])
    all_three = Policy("patience", (1.5, 1.5, 1.5))
    assert leave_at({}, predictions, all_three).tolist() == [1, 2, 3]
    # exit 1 is not tried, so exits 0 and 2 follow each other
    assert leave_at({}, predictions, Policy("patience", (1.5, None, 1.5))).tolist() == [3, 3, 2]
    assert leave_at({}, predictions, Policy("patience", (0.5, None, None))).tolist() == [0, 0, 0]


thresholds = st.none() | st.just(-math.inf) | st.sampled_from((0.0, 0.3, 0.5, 0.9, 1.5, 2.5, 4.0))


@given(
    st.sampled_from(("max_prob", "margin", "patience")),
    st.tuples(thresholds, thresholds, thresholds, thresholds),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_evaluate_equals_the_walk(name: str, values: tuple[float | None, ...], varied: bool) -> None:
    problem = problem_of(40, 4, 3, varied=varied)
    policy = Policy(name, values)
    same(evaluate(problem, policy), problem)
    assert leave_at(problem.scores, problem.predictions, policy).tolist() == walk(problem, policy)[3]


def test_thresholds_are_compared_in_full_precision() -> None:
    # the next float64 below a float32 score would become that score in float32
    score = np.float32(0.7)
    below = math.nextafter(float(score), 0.0)
    taken = leave_at({"max_prob": np.array([[score]])}, np.zeros((1, 2), dtype=np.int64), Policy("max_prob", (below,)))
    assert taken.tolist() == [0]


def test_mistakes_are_named() -> None:
    good = problem_of(20, 2, 0)
    for change, path in (
        ({"labels": good.labels[:5]}, "labels"),
        ({"segment_ms": np.ones(2)}, "segment_ms"),
        ({"segment_ms": np.array([1.0, -1.0, 1.0])}, "segment_ms"),
        ({"exit_ms": np.array([1.0, math.nan])}, "exit_ms"),
        ({"scores": {"margin": np.full((20, 2), np.nan, dtype=np.float32)}}, "scores.margin"),
        ({"scores": {"max_prob": good.scores["max_prob"][:, :1]}}, "scores.max_prob"),
        ({"scores": {"patience": good.scores["max_prob"]}}, "scores"),
        ({"scores": {}, "patience": False}, "scores"),
        ({"decide_ms": {"max_prob": 0.1, "margin": 0.1}}, "decide_ms.patience"),
        ({"decide_ms": {"max_prob": 0.1, "margin": -0.1, "patience": 0.0}}, "decide_ms.margin"),
        ({"predictions": np.zeros((0, 3), dtype=np.int64)}, "predictions"),
    ):
        with pytest.raises(DataError) as caught:
            replace(good, **change)
        assert caught.value.path == path
    with pytest.raises(DataError, match="2 thresholds"):
        evaluate(good, Policy.never(3))
    with pytest.raises(UnknownNameError, match="entropy"):
        evaluate(good, Policy("entropy", (0.5, None)))
    with pytest.raises(UnknownNameError, match="patience"):
        evaluate(replace(good, patience=False), Policy("patience", (0.5, None)))
