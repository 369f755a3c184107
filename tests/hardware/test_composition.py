"""Composition: rows worked out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.hardware.composition import PartCurve, compose
from dynarch.hardware.correction import IDENTITY, Correction
from dynarch.spaces.errors import DataError, MissingEntryError


def _flat(*ms: float) -> list[PartCurve]:
    """Parts measured at batch 1 only."""
    return [PartCurve((1,), (one,), f"part{index}") for index, one in enumerate(ms)]


# Segment 2 ms, exit head 0.5 ms, segment 3 ms. Rows: leaves at the exit; goes through; likewise.
COUNTS = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=np.float64)


def test_batch_one_by_hand() -> None:
    # b + a * sum + c * calls = 0.1 + 2 * (2 + 0.5) + 0.01 * 2 and 0.1 + 2 * 5.5 + 0.01 * 3.
    correction = Correction(a=2.0, b_ms=0.1, c_ms=0.01)
    result = compose(COUNTS, _flat(2.0, 0.5, 3.0), correction=correction, seed=0)
    assert result.per_sample_ms.tolist() == pytest.approx([5.12, 11.13, 11.13])
    assert result.mean_ms == pytest.approx((5.12 + 2 * 11.13) / 3)
    assert result.p50_ms == pytest.approx(11.13)
    assert result.correction_id == correction.correction_id
    assert (result.low_ms, result.high_ms) == correction.interval(result.mean_ms)


def test_repeated_parts_are_repeated_calls_and_densities_a_share_of_one() -> None:
    # Twice 2 ms is 4 ms and two calls; at density 1/4, 2 ms cost 0.5 ms and one call.
    correction = Correction(c_ms=1.0)
    result = compose(np.array([[2.0], [0.25], [0.0]]), _flat(2.0), correction=correction, seed=0)
    assert result.per_sample_ms.tolist() == pytest.approx([4 + 2, 0.5 + 1, 0.0])


def test_worst_is_the_path_that_the_caller_gives() -> None:
    # The longest reachable path tries the exit and runs everything: 5.5 ms, though nobody did here.
    early = np.array([[1.0, 1.0, 0.0]])
    curves = _flat(2.0, 0.5, 3.0)
    given_path = compose(early, curves, correction=IDENTITY, seed=0, worst=np.ones(3))
    assert [given_path.worst_ms, given_path.mean_ms] == pytest.approx([5.5, 2.5])
    assert compose(early, curves, correction=IDENTITY, seed=0).worst_ms == pytest.approx(2.5)
    shorter = compose(early, curves, correction=IDENTITY, seed=0, worst=np.array([1.0, 0.0, 0.0]))
    assert shorter.worst_ms == pytest.approx(2.5)  # never below what was observed


def test_batch_with_compaction_by_hand() -> None:
    # Four inputs in one batch of four; two leave at the exit, one of the rest runs the last part twice.
    # Segment at 4: 6 ms; exit at 4: 1 ms; last part at 2 inputs: 3 ms, its second call at 1 input: 2 ms.
    # Batch done at 12 ms after four calls of 0.1 ms: 12.4 ms, 3.1 ms an input, whatever the shuffle.
    counts = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 0]], dtype=np.float64)
    curves = [PartCurve((1, 4), (2.0, 6.0)), PartCurve((4,), (1.0,)), PartCurve((1, 2, 4), (2.0, 3.0, 9.0))]
    result = compose(counts, curves, batch=4, correction=Correction(c_ms=0.1), seed=1, repeats=5)
    assert result.per_sample_ms.tolist() == pytest.approx([3.1] * 5)
    assert result.batch == 4
    assert result.mean_ms == pytest.approx(3.1)
    # Worst: all four run everything, the last part twice: (6 + 1 + 9 + 9 + 0.4) / 4.
    worst = compose(counts, curves, batch=4, correction=Correction(c_ms=0.1), seed=1, worst=np.array([1.0, 1.0, 2.0]))
    assert worst.worst_ms == pytest.approx(25.4 / 4)


def test_a_part_that_nobody_reaches_is_neither_paid_nor_looked_up() -> None:
    counts = np.array([[1, 0], [1, 0]], dtype=np.float64)
    curves = [PartCurve((2,), (5.0,)), PartCurve((64,), (99.0,))]
    result = compose(counts, curves, batch=2, correction=Correction(c_ms=1.0), seed=0)
    assert result.mean_ms == pytest.approx((5 + 1) / 2)


def test_densities_in_a_batch_add_up() -> None:
    # Densities 0.5 and 1 make 1.5 inputs: halfway between 2 ms at one and 3 ms at two.
    curve = PartCurve((1, 2), (2.0, 3.0))
    result = compose(np.array([[0.5], [1.0]]), [curve], batch=2, correction=IDENTITY, seed=0)
    assert result.mean_ms == pytest.approx(2.5 / 2)
    # Densities 0.25 and 0.25 make half an input: half of what one costs.
    half = compose(np.array([[0.25], [0.25]]), [curve], batch=2, correction=IDENTITY, seed=0)
    assert half.mean_ms == pytest.approx(1.0 / 2)


def test_a_trace_shorter_than_a_batch_still_fills_it() -> None:
    result = compose(np.ones((3, 1)), [PartCurve((8,), (4.0,))], batch=8, correction=IDENTITY, seed=0, repeats=1)
    assert result.per_sample_ms.tolist() == [0.5]


def test_every_input_counts_equally_often_in_batches() -> None:
    # Linear costs, every size measured: the mean of batches is the mean of inputs, exactly, as 12
    # inputs x 6 shuffles fill 18 batches of 4 without rest.
    counts = np.zeros((12, 1))
    counts[:7] = 1
    curve = PartCurve((1, 2, 3, 4), (1.0, 2.0, 3.0, 4.0))
    result = compose(counts, [curve], batch=4, correction=IDENTITY, seed=3, repeats=6)
    assert len(result.per_sample_ms) == 18
    assert result.mean_ms == pytest.approx(7 / 12)


def test_the_seed_decides_the_batches() -> None:
    counts = (np.arange(40) % 3 > 0).astype(np.float64)[:, None]
    curve = PartCurve((1, 2, 4, 8), (1.0, 1.5, 2.0, 4.0))
    runs = [compose(counts, [curve], batch=8, correction=IDENTITY, seed=s).per_sample_ms for s in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("n", "batch", "bounds"),
    [
        (63, 1, ("p90", "p95", "p99")),
        (64, 1, ("p95", "p99")),
        (129, 1, ("p95", "p99")),
        (130, 1, ("p99",)),
        (661, 1, ("p99",)),
        (662, 1, ()),
        (662, 4, ("p99",)),  # 165 independent batches
        (255, 4, ("p90", "p95", "p99")),  # 63
    ],
)
def test_quantiles_of_small_samples_are_bounds(n: int, batch: int, bounds: tuple[str, ...]) -> None:
    counts = np.linspace(1, 2, n)[:, None]
    curve = PartCurve(tuple(range(1, 9)), tuple(float(k) for k in range(1, 9)))
    result = compose(counts, [curve], batch=batch, correction=IDENTITY, seed=0)
    assert result.quantile_is_bound == bounds
    for name in bounds:
        assert result.summary()[f"{name}_ms"] == result.per_sample_ms.max()


def test_quantiles_are_observed_values() -> None:
    # Times 1 ... 1000 ms: the least value that 90 % do not exceed is the 900th.
    result = compose(np.arange(1.0, 1001.0)[::-1, None], _flat(1.0), correction=IDENTITY, seed=0)
    assert (result.p50_ms, result.p90_ms, result.p95_ms, result.p99_ms) == (500, 900, 950, 990)


def test_curve_is_exact_and_log_log_between() -> None:
    curve = PartCurve((1, 4, 16), (1.0, 2.0, 8.0), "k")
    assert [curve.at(n) for n in (0, 1, 4, 16)] == [0.0, 1.0, 2.0, 8.0]
    assert curve.at(2) == pytest.approx(math.sqrt(2))  # halfway in logarithms between 1 and 2
    assert curve.at(8) == pytest.approx(4.0)


@settings(max_examples=50)
@given(st.floats(0.01, 100), st.floats(0, 2), st.integers(1, 32))
def test_interpolation_is_exact_for_powers_of_the_batch(scale: float, power: float, n: int) -> None:
    batches = (1, 2, 4, 8, 16, 32)
    curve = PartCurve(batches, tuple(scale * b**power for b in batches))
    assert curve.at(n) == pytest.approx(scale * n**power)


@pytest.mark.parametrize("n", [1, 33])
def test_outside_the_measured_range_is_refused(n: int) -> None:
    with pytest.raises(MissingEntryError, match="outside the measured 2 to 32") as caught:
        PartCurve((2, 32), (1.0, 2.0), "abc").at(n)
    assert caught.value.keys == ("abc",)


@pytest.mark.parametrize(
    ("batches", "ms"),
    [((), ()), ((1, 1), (1.0, 1.0)), ((2, 1), (1.0, 1.0)), ((1,), ()), ((1,), (0.0,)), ((0,), (1.0,))],
)
def test_impossible_curves_are_refused(batches: tuple[int, ...], ms: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="ascending"):
        PartCurve(batches, ms)


@pytest.mark.parametrize(
    "counts", [np.ones((2, 2)), np.ones(3), np.empty((0, 3)), -np.ones((1, 3)), np.full((1, 3), np.nan)]
)
def test_impossible_traces_are_refused(counts: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(DataError) as caught:
        compose(counts, _flat(1.0, 1.0, 1.0), correction=IDENTITY, seed=0)
    assert caught.value.path == "counts"


def test_impossible_worst_paths_and_batches_are_refused() -> None:
    with pytest.raises(DataError, match="worst"):
        compose(COUNTS, _flat(1, 1, 1), correction=IDENTITY, seed=0, worst=np.ones(2))
    with pytest.raises(DataError, match="batch"):
        compose(COUNTS, _flat(1, 1, 1), correction=IDENTITY, seed=0, batch=0)


# -- how sure it is --------------------------------------------------------------------------------------------


def test_of_measured_parts_nothing_is_in_doubt() -> None:
    result = compose(COUNTS, _flat(2.0, 0.5, 3.0), correction=IDENTITY, seed=0)
    assert result.steps == (("measured", 1.0),)
    assert result.relsd == 0.0


def test_shares_and_doubt_of_estimated_parts_by_hand() -> None:
    # One path: 3 ms measured, 1 ms interpolated at 10 %, 4 ms modelled at 20 %. Doubts of 0.1 and 0.8 ms: alone
    # sqrt(0.01 + 0.64), together 0.3 * 0.9 = 0.27, of 8 ms. The correction doubles the sum and adds 4 ms: 20 ms.
    curves = [
        PartCurve((1,), (3.0,)),
        PartCurve((1,), (1.0,), doubts=(("interpolated", 0.1),)),
        PartCurve((1,), (4.0,), doubts=(("modelled", 0.2),)),
    ]
    correction = Correction(a=2.0, b_ms=4.0, radius=0.3, residual_sd=0.1)
    result = compose(np.ones((5, 3)), curves, correction=correction, seed=0)
    assert result.mean_ms == pytest.approx(20.0)
    assert result.steps == (("measured", 3 / 8), ("interpolated", 1 / 8), ("modelled", 4 / 8))
    assert result.relsd == pytest.approx(2 * math.sqrt(0.65 + 0.27**2) / 20)
    # The half-width grows as the deviation does: 0.3 * sqrt(0.1^2 + relsd^2) / 0.1.
    radius = 3 * math.hypot(0.1, result.relsd)
    assert (result.low_ms, result.high_ms) == pytest.approx((20 * math.exp(-radius), 20 * math.exp(radius)))


def test_reading_between_two_sizes_is_interpolation() -> None:
    # Four inputs, two of which go on: the first part runs at the measured 4, the second at 2, between 1 and 4.
    counts = np.array([[1, 0], [1, 1], [1, 1], [1, 0]], dtype=np.float64)
    curves = [PartCurve((1, 4), (1.0, 3.0)), PartCurve((1, 4), (0.5, 2.0), between_relsd=0.1)]
    result = compose(counts, curves, batch=4, correction=IDENTITY, seed=0)
    # Halfway in logarithms between 0.5 and 2 ms lies 1 ms: 3 ms measured and 1 ms interpolated, off by 0.1 ms.
    assert dict(result.steps) == pytest.approx({"measured": 0.75, "interpolated": 0.25})
    assert result.relsd == pytest.approx(0.1 * math.hypot(1, 0.3) / 4)


def test_a_curve_says_how_each_size_was_come_by() -> None:
    curve = PartCurve((1, 4), (1.0, 4.0), "k", (("measured", 0.0), ("modelled", 0.3)), 0.4)
    assert (curve.estimate(1).how, curve.estimate(1).relsd) == ("measured", 0.0)
    assert (curve.estimate(4).how, curve.estimate(4).relsd) == ("modelled", 0.3)
    # Between the two nothing is surer than the less sure of them; 0.3 and 0.4 are the sides of 0.5.
    assert curve.estimate(2).how == "modelled"
    assert curve.estimate(2).relsd == pytest.approx(0.5)
    assert curve.estimate(2).ms == pytest.approx(2.0)
    assert curve.estimate(0.25).ms == pytest.approx(0.25)
    assert PartCurve.from_list(json.loads(json.dumps(curve.to_list())), "k") == curve


@pytest.mark.parametrize(
    ("doubts", "between"),
    [((("guessed", 0.1),), 0.0), ((("modelled", -0.1),), 0.0), ((("measured", 0.0),) * 2, 0.0), ((), math.nan)],
)
def test_impossible_doubts_are_refused(doubts: Any, between: float) -> None:
    with pytest.raises(DataError, match="step of the ladder"):
        PartCurve((1,), (1.0,), "k", doubts, between)
