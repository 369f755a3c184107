"""Parts whose rows add up, by hand: a call on `n` rows costs sqrt(n) ms, which interpolation tells exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dynarch.hardware.book import DevicePages
from dynarch.hardware.composition import PartCurve, compose
from dynarch.hardware.correction import IDENTITY, Correction
from dynarch.hardware.inventory import Costs
from dynarch.spaces.errors import DataError, MissingEntryError
from dynarch.spaces.policy import Policy
from dynarch.spaces.trace import PartInfo, Recorder, counts, dearest_usage, usage_row

SIZES = (1, 2, 4, 8, 16)
CURVE = PartCurve(SIZES, tuple(math.sqrt(size) for size in SIZES), "rows")
ROWS = np.array([[3.0], [1.0], [0.0], [8.0]])
CALL = Correction(c_ms=0.1)


def test_the_rows_of_one_input_are_one_call() -> None:
    made = compose(ROWS, [CURVE], correction=CALL, seed=0, together=[True])
    assert made.per_sample_ms.tolist() == pytest.approx([math.sqrt(3) + 0.1, 1.1, 0.0, math.sqrt(8) + 0.1])
    apart = compose(ROWS[:2], [CURVE], correction=CALL, seed=0)
    assert apart.per_sample_ms.tolist() == pytest.approx([3 * 1.1, 1.1]), "without rows, 3 are three calls"


def test_the_rows_of_a_batch_add_up() -> None:
    """A batch of all four inputs brings 3 + 1 + 0 + 8 = 12 rows, in whatever order."""
    made = compose(ROWS, [CURVE], batch=4, correction=CALL, seed=0, together=[True], repeats=3)
    assert made.per_sample_ms.tolist() == pytest.approx([(math.sqrt(12) + 0.1) / 4] * 3)


def test_the_worst_batch_brings_all_rows_of_all_inputs() -> None:
    made = compose(ROWS[:3], [CURVE], batch=2, correction=IDENTITY, seed=0, together=[True], worst=np.array([8.0]))
    assert made.worst_ms == pytest.approx(math.sqrt(16) / 2)


def test_more_rows_than_were_measured_are_refused() -> None:
    with pytest.raises(MissingEntryError, match="a batch of 17 lies outside"):
        compose(np.array([[17.0]]), [CURVE], correction=IDENTITY, seed=0, together=[True])


def test_it_must_be_said_of_every_part() -> None:
    with pytest.raises(DataError, match="must say so of 1 parts, but does of 2"):
        compose(ROWS, [CURVE], correction=IDENTITY, seed=0, together=[True, False])


PARTS = (PartInfo("segment.0", "segment", 0), PartInfo("tiles.0", "tiles", 0, choice="tiles.0", rows=8))
COSTS = Costs(PARTS, ("s", "rows"), (100, 10), 0)
PLAIN = PartCurve((1, 2), (1.0, 1.5), "s")


def pages(batch: int) -> DevicePages:
    return DevicePages(batch, "made-up", "made-up", IDENTITY, {"s": PLAIN, "rows": CURVE})


@pytest.mark.parametrize(
    ("batch", "expected", "worst"), [(1, [2.0, 1 + math.sqrt(2)], 1 + math.sqrt(8)), (2, None, (1.5 + 4) / 2)]
)
def test_a_book_prices_rows(batch: int, expected: list[float] | None, worst: float) -> None:
    usage = {"tiles.0": np.array([1.0, 2.0])}
    made = pages(batch).predict(COSTS, Policy.never(0), np.zeros(2, dtype=np.int64), seed=0, usage=usage)
    if expected is None:  # both together: 3 rows
        expected = [(1.5 + math.sqrt(3)) / 2] * len(made.per_sample_ms)
    assert made.per_sample_ms.tolist() == pytest.approx(expected)
    assert made.worst_ms == pytest.approx(worst), "all rows of every input"


def test_one_row_is_charged_its_share_of_a_full_call() -> None:
    """sqrt(8) for 8 rows, and sqrt(16) for the 16 of two inputs."""
    assert pages(1).part_ms(COSTS).tolist() == pytest.approx([1.0, math.sqrt(8) / 8])
    assert pages(2).part_ms(COSTS).tolist() == pytest.approx([1.5 / 2, 4 / 16])


def test_without_usage_all_rows_run() -> None:
    taken = np.zeros(1, dtype=np.int64)
    assert counts(PARTS, Policy.never(0), taken).tolist() == [[1.0, 8.0]]
    assert usage_row(PARTS, {}).tolist() == [1.0, 8.0]
    assert usage_row(PARTS, dearest_usage(PARTS, np.array([1.0, 1.0]))).tolist() == [1.0, 8.0]
    other = PartInfo("other", "branch", 0, choice="tiles.0")
    # 8 rows of 1 cost more than 7, and less than 9.
    assert usage_row((*PARTS, other), dearest_usage((*PARTS, other), np.array([1.0, 1.0, 7.0]))).tolist() == [1, 8, 0]
    assert usage_row((*PARTS, other), dearest_usage((*PARTS, other), np.array([1.0, 1.0, 9.0]))).tolist() == [1, 0, 1]


def test_a_recorder_counts_rows() -> None:
    recorder = Recorder(3)
    recorder.add("tiles.0", torch.tensor([0, 2]), torch.tensor([4, 1]))
    alive: Tensor | None = None
    recorder.add("segment.0", alive)
    assert recorder.counts(PARTS).tolist() == [[1, 4], [1, 0], [1, 1]]
