"""Unseen parts: a made-up device that keeps to a known law, so that every estimate has a right answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynarch.hardware.composition import PartCurve
from dynarch.hardware.device import Environment
from dynarch.hardware.estimate import Estimate
from dynarch.hardware.interval import Outcome, calibrate, network_relsd
from dynarch.hardware.keys import PartKey, part_key
from dynarch.hardware.operations import FAMILIES, dense_convolutions, dominant, features
from dynarch.hardware.profile import Row
from dynarch.hardware.roofline import inside
from dynarch.hardware.session import Session
from dynarch.hardware.table import Entry, LatencyTable
from dynarch.hardware.timer import RoundTiming
from dynarch.hardware.unseen import UnseenParts
from dynarch.spaces.errors import DataError, MissingEntryError, SpecError

Law = Callable[[PartKey, int], float]
# Milliseconds an operation, a multiply-accumulate and a byte.
CALL_MS, MAC_MS, BYTE_MS = 0.002, 1e-6, 2e-7


def key_of(module: nn.Module, *shape: int, kind: str = "segment") -> PartKey:
    return part_key(module.eval(), (torch.linspace(-1, 1, math.prod(shape)).reshape(1, *shape),), kind=kind)


def linear(inputs: int, outputs: int, kind: str = "segment") -> PartKey:
    return key_of(nn.Linear(inputs, outputs), inputs, kind=kind)


def conv(inputs: int, outputs: int, side: int, kernel: int = 3, groups: int = 1) -> PartKey:
    module = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return key_of(module, inputs, side, side)


def law(key: PartKey, batch: int) -> float:
    """One roofline for everything."""
    count, macs, moved = features(key, batch).sum(axis=0)
    return float(CALL_MS * count + MAC_MS * macs + BYTE_MS * moved)


def parts_of(
    keys: Iterable[PartKey], batches: tuple[int, ...] = (1,), law: Law = law, relsd: float = 0.0
) -> UnseenParts:
    known = {key.hash: key for key in keys}
    measured = {(name, b): Entry(law(key, b), relsd, 3) for name, key in known.items() for b in batches}
    return UnseenParts(measured, known)


GRID = [linear(i, o) for i in (16, 64, 128, 256) for o in (8, 32, 96, 192)]


# Operations as numbers.


def row(key: PartKey, family: str, batch: int = 1) -> list[float]:
    return [float(value) for value in features(key, batch)[FAMILIES.index(family)]]


def test_features_of_a_linear_layer() -> None:
    # 16 x 5 products an input; bias and weight are 5 + 80 numbers, read once; 16 + 5 numbers an input go in and out.
    assert row(linear(16, 5), "linear", batch=4) == [1, 4 * 80, 4 * 85 + 4 * 4 * 21]
    assert row(linear(16, 5), "view", batch=4) == [1, 0, 0]  # the weight is transposed on paper only


@pytest.mark.parametrize(
    ("key", "family", "macs", "numbers"),
    [
        (conv(3, 8, 6), "conv_kxk", 36 * 8 * 27, 8 * 27 + 36 * 11),
        (conv(3, 8, 6, kernel=1), "conv_1x1", 36 * 24, 24 + 36 * 11),
        (conv(8, 8, 6, groups=8), "conv_depthwise", 36 * 8 * 9, 72 + 36 * 16),
        (conv(8, 8, 6, groups=2), "conv_grouped", 36 * 8 * 4 * 9, 8 * 36 + 36 * 16),
        # Batch norm: weight, bias, mean and variance.
        (key_of(nn.BatchNorm2d(3), 3, 2, 2), "norm", 0, 4 * 3 + 24),
        (key_of(nn.ReLU(), 7), "elementwise", 0, 14),
        (key_of(nn.ConvTranspose2d(4, 6, 2, 2, bias=False), 4, 3, 3), "conv_kxk", 9 * 4 * 6 * 4, 96 + 36 + 216),
    ],
)
def test_features_of_each_family(key: PartKey, family: str, macs: int, numbers: int) -> None:
    assert row(key, family) == [1, macs, 4 * numbers]
    assert key.macs == macs
    assert dominant(key) == (family if macs else "")


def test_arithmetic_that_no_formula_splits_is_kept() -> None:
    key = key_of(nn.LSTM(8, 4, batch_first=True), 3, 8)
    assert features(key, 1)[:, 1].sum() == key.macs
    assert row(key, "other", batch=2)[1] == 2 * key.macs
    assert dominant(key) == "other"


def test_operations_of_a_foreign_table_are_counted_at_least() -> None:
    key = PartKey("f" * 24, "segment", ({"op": "convolution"}, {"op": "linear"}), 700, 0)
    assert row(key, "other") == [2, 700, 0]


def test_dense_convolutions_are_told_by_form_and_size() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
    (only,) = dense_convolutions(key_of(module, 2, 8, 8))
    assert only.form == (3, 3, 2, 2, 1, 1, 0)
    assert only.size == tuple(map(math.log, (2, 4, 16)))


# The ladder.


def test_what_was_measured_is_handed_out_as_it_is() -> None:
    parts = parts_of(GRID, (1, 4), relsd=0.01)
    assert parts.estimate(GRID[0], 4) == Estimate(law(GRID[0], 4), 0.01, "measured")


def test_a_batch_between_measured_ones_is_interpolated() -> None:
    key = GRID[0]
    parts = UnseenParts({(key.hash, 2): Entry(1.0, 0.03, 3), (key.hash, 8): Entry(4.0, 0.04, 3)}, {key.hash: key})
    # Log-log: 4 lies halfway between 2 and 8, so 2 ms. Nothing was checked, so the truth may lie anywhere between
    # 1 and 4 ms on a logarithmic scale: deviation ln 4 / sqrt 12.
    found = parts.estimate(key, 4)
    assert found.how == "interpolated"
    assert found.ms == pytest.approx(2.0)
    assert found.relsd == pytest.approx(math.hypot(0.04, math.log(4) / math.sqrt(12)))


def test_interpolation_is_as_unsure_as_it_was_wrong_where_it_could_be_checked() -> None:
    keys = GRID[:6]
    measured = {(key.hash, b): Entry(ms, 0.0, 3) for key in keys for b, ms in ((1, 1.0), (4, 2.0 * 1.1), (16, 4.0))}
    parts = UnseenParts(measured, {key.hash: key for key in keys})
    # From 1 and 16, batch 4 is told to be 2 ms; each of the six was 10 % above.
    assert parts.estimate(keys[0], 8).relsd == pytest.approx(math.log(1.1))
    curve = PartCurve((1, 4, 16), (1.0, 2.2, 4.0))
    assert parts.estimate(keys[0], 8).ms == pytest.approx(curve.at(8))


def test_a_density_between_measured_ones_is_interpolated() -> None:
    key = GRID[0]
    one = {(key.hash, 1): Entry(4.0, 0.0, 3)}
    quarter = {(key.hash, 1): Entry(2.0, 0.05, 3)}
    parts = UnseenParts(one, {key.hash: key}, densities={(1, 4): quarter})
    assert parts.estimate(key, 1, density=(1, 4)) == Estimate(2.0, 0.05, "measured")
    # A third of the way from 1/4 to 1: 2 ms and a third of the rise by 2.
    found = parts.estimate(key, 1, density=(1, 2))
    assert found.how == "interpolated"
    assert found.ms == pytest.approx(2 + 2 / 3)
    assert found.relsd == pytest.approx(math.hypot(0.05, math.log(2) / math.sqrt(12)))
    with pytest.raises(MissingEntryError, match="density 1/8 does not lie between") as caught:
        parts.estimate(key, 1, density=(1, 8))
    assert caught.value.keys == (key.hash,)


def test_a_law_is_recovered() -> None:
    parts = parts_of(GRID, (1, 8))
    for key in (linear(100, 60), linear(200, 20), linear(32, 128)):
        for batch in (1, 3, 8):
            found = parts.estimate(key, batch)
            assert found.how == "modelled"
            assert found.ms == pytest.approx(law(key, batch), rel=1e-6)
            assert found.relsd < 1e-6


def test_each_family_has_its_own_roofline() -> None:
    """Two families in every part, one of them ten times slower a multiply-accumulate."""
    slow = FAMILIES.index("conv_depthwise")

    def uneven(key: PartKey, batch: int) -> float:
        return law(key, batch) + 9 * MAC_MS * float(features(key, batch)[slow, 1])

    def block(channels: int, outputs: int, side: int) -> PartKey:
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        return key_of(nn.Sequential(depthwise, nn.Conv2d(channels, outputs, 1, bias=False)), channels, side, side)

    keys = [block(c, o, s) for c in (8, 16, 32) for o in (16, 24, 48) for s in (4, 8)]
    parts = parts_of(keys, law=uneven)
    for key in (block(12, 20, 6), block(24, 32, 5), block(20, 40, 8)):
        assert parts.estimate(key, 1).ms == pytest.approx(uneven(key, 1), rel=0.03)


def test_held_out_parts_lie_within_the_stated_spread() -> None:
    noise = np.random.default_rng(0)
    factors: dict[tuple[str, int], float] = {}

    def noisy(key: PartKey, batch: int) -> float:
        return law(key, batch) * factors.setdefault((key.hash, batch), math.exp(0.05 * noise.normal()))

    parts = parts_of([linear(i, o) for i in (16, 40, 96, 180, 256) for o in (8, 20, 60, 120, 192)], law=noisy)
    held_out = [linear(i, o) for i in (20, 64, 80, 128, 200, 250) for o in (10, 16, 32, 100, 150, 190)]
    found = [parts.estimate(key, 1) for key in held_out]
    errors = [abs(math.log(noisy(key, 1) / each.ms)) for key, each in zip(held_out, found, strict=True)]
    # Noise of 5 % on both sides, no more than a little lost in the fit: and the model knows it.
    assert all(0.04 < each.relsd < 0.09 for each in found)
    # Of 36 normal errors 95.4 % lie within two deviations; fewer than 31 would be a chance of one in 2000.
    assert sum(error <= 2 * each.relsd for error, each in zip(errors, found, strict=True)) >= 31


def test_beyond_the_measured_range_the_deviation_doubles() -> None:
    wiggle: Mapping[str, float] = {key.hash: 1.1 if index % 2 else 0.9 for index, key in enumerate(GRID)}
    parts = parts_of(GRID, law=lambda key, batch: law(key, batch) * wiggle[key.hash])
    within, beyond = parts.estimate(linear(100, 60), 1), parts.estimate(linear(4096, 4096), 1)
    assert within.relsd > 0.05
    assert beyond.relsd == pytest.approx(2 * within.relsd)
    # A batch beyond those that were measured is beyond their range as well.
    assert parts.estimate(linear(256, 192), 64).relsd == pytest.approx(2 * within.relsd)


def test_inside_is_the_convex_hull() -> None:
    square = np.array([[0.0, 0], [4, 0], [0, 4], [4, 4]])
    assert inside(np.array([1.0, 3]), square)
    assert inside(np.array([0.0, 2]), square)
    assert not inside(np.array([4.1, 2]), square)
    assert not inside(np.array([3.0, 3]), square[:3])  # in the box around the three, but not between them
    assert inside(np.array([4.1, 2]), square, margin=0.11)
    assert not inside(np.array([4.1, 2]), square, margin=0.09)
    assert not inside(np.array([4.1, 4.1]), square, margin=0.14)  # the corner is 0.1 * sqrt 2 away


# Refusals.


def refusal(parts: UnseenParts, key: PartKey) -> str:
    with pytest.raises(MissingEntryError) as caught:
        parts.estimate(key, 1)
    assert caught.value.keys == (key.hash,)
    return str(caught.value)


def test_an_operation_that_no_measured_part_has_is_named() -> None:
    key = key_of(nn.Sequential(nn.Linear(64, 32), nn.GELU()), 64)
    assert "neither a measured part like it nor a formula covers aten.gelu.default" in refusal(parts_of(GRID), key)


def test_an_operation_without_a_formula_is_named_even_if_it_was_measured() -> None:
    keys = [PartKey(key.hash, key.kind, key.ops, key.macs, 0, ("aten.addmm.default",)) for key in GRID]
    asked = linear(100, 60)
    asked = PartKey(asked.hash, asked.kind, asked.ops, asked.macs, 0, ("aten.addmm.default",))
    assert "covers aten.addmm.default" in refusal(parts_of(keys), asked)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (linear(100, 60, kind="exit"), r"only 0 parts like it \(exit linear\) are measured, 8 needed"),
        (PartKey("0" * 24, "segment", (), 0, 0), r"\(no operations\): only 0 parts"),
    ],
)
def test_a_part_without_relatives_is_refused(key: PartKey, text: str) -> None:
    with pytest.raises(MissingEntryError, match=text):
        parts_of(GRID).estimate(key, 1)


def test_seven_relatives_are_too_few_and_eight_enough() -> None:
    asked = linear(100, 60)
    assert "only 7 parts like it (segment linear)" in refusal(parts_of(GRID[:7]), asked)
    assert "addmm" in refusal(parts_of(GRID[:7]), asked)
    assert parts_of(GRID[:8]).estimate(asked, 1).ms > 0


def test_dense_convolutions_are_told_between_measured_shapes_only() -> None:
    parts = parts_of([conv(i, o, s) for i in (4, 16) for o in (4, 16) for s in (8, 16)])
    assert parts.estimate(conv(8, 10, 12), 1).ms == pytest.approx(law(conv(8, 10, 12), 1), rel=1e-6)
    assert "dense convolution (3, 3, 1, 1, 1, 1, 0) does not lie between" in refusal(parts, conv(8, 20, 12))
    assert "dense convolution (5, 5, " in refusal(parts, conv(8, 8, 12, kernel=5))
    # The library has one way only to multiply matrices: those may be told beyond, with more doubt.
    points = parts_of([conv(i, o, s, kernel=1) for i in (4, 16) for o in (4, 16) for s in (8, 16)])
    assert points.estimate(conv(8, 20, 12, kernel=1), 1).how == "modelled"


def test_mistakes_are_refused() -> None:
    with pytest.raises(SpecError, match="batch: must be an integer of at least 1"):
        parts_of(GRID).estimate(GRID[0], 0)
    with pytest.raises(DataError, match="each measured part needs its key"):
        UnseenParts({("unknown", 1): Entry(1.0, 0.0, 1)}, {})


def test_a_stored_table_is_all_it_needs(tmp_path: Path) -> None:
    environment = Environment((("kind", "cpu"),))

    def timing(ns: int) -> RoundTiming:
        return RoundTiming(9, ns, ns, ns, ns, ns, ns, 0)

    with LatencyTable.open(f"sqlite:///{tmp_path / 'table.db'}") as table:
        rows = [Row(key, 1, 0, timing(round(1e6 * law(key, 1)))) for key in GRID]
        table.record(environment, Session("one", seed=0, finished=True), rows)
        name = environment.environment_id
        parts = UnseenParts(table.measured(name), table.part_keys(name))
    asked = linear(100, 60)
    assert parts.estimate(asked, 1).ms == pytest.approx(law(asked, 1), rel=1e-3)
    assert parts.estimate(GRID[0], 1).how == "measured"


# Intervals of whole networks.


def test_deviation_of_a_network_by_hand() -> None:
    # 3 ms at 10 % and twice 2 ms at 20 %: 0.3 and 0.8 ms alone, 0.3 of 1.1 ms together.
    parts = [(1.0, Estimate(3.0, 0.1, "measured")), (2.0, Estimate(2.0, 0.2, "modelled"))]
    assert network_relsd(parts) == pytest.approx(math.sqrt(0.3**2 + 0.8**2 + (0.3 * 1.1) ** 2) / 7)
    for wrong in ([], [(0.0, Estimate(1.0, 0.1, "measured"))], [(math.nan, Estimate(1.0, 0.1, "measured"))]):
        with pytest.raises(DataError, match="parts: must add up"):
            network_relsd(wrong)


@pytest.mark.parametrize(
    ("n", "place"),
    [(9, 9), (10, 10), (18, 18), (19, 18), (29, 27)],  # ceil((n + 1) * 0.9)
)
def test_the_scale_is_the_quantile_of_finite_samples(n: int, place: int) -> None:
    outcomes = [Outcome(1.0, 0.1, math.exp(0.1 * index)) for index in range(1, n + 1)]  # scores 1, 2, ... n
    found = calibrate(outcomes)
    assert found.n == n
    assert found.scale == pytest.approx(place)


def test_few_networks_never_narrow_an_interval() -> None:
    assert calibrate([]).scale == pytest.approx(1.645)
    assert calibrate([Outcome(1.0, 0.1, 1.0)] * 8).scale == pytest.approx(1.645)
    assert calibrate([Outcome(1.0, 0.1, math.exp(0.5))] * 8).scale == pytest.approx(5.0)


def test_intervals_hold_nine_in_ten_whatever_the_deviations_are_worth() -> None:
    g = np.random.default_rng(1)
    relsd = g.uniform(0.04, 0.3, size=1200)
    measured = np.exp(2.5 * relsd * g.standard_t(4, size=1200))  # stated 2.5 times too small, with heavy tails
    outcomes = [Outcome(1.0, float(s), float(ms)) for s, ms in zip(relsd, measured, strict=True)]
    fitted = calibrate(outcomes[:200])
    held = [low <= o.measured_ms <= high for o in outcomes[200:] for low, high in [fitted.interval(1.0, o.relsd)]]
    assert 0.85 <= np.mean(held) <= 0.95


@pytest.mark.parametrize("outcome", [Outcome(0.0, 0.1, 1.0), Outcome(1.0, -0.1, 1.0), Outcome(1.0, 0.1, math.inf)])
def test_impossible_outcomes_are_refused(outcome: Outcome) -> None:
    with pytest.raises(DataError, match=r"outcomes\[1\]"):
        calibrate([Outcome(1.0, 0.1, 1.0), outcome])
