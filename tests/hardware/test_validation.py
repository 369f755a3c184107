"""How well predictions agree with measurements, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynarch.hardware.validation import better, kendall, scores
from dynarch.spaces.errors import DataError

MEASURED = np.array([1.0, 2.0, 4.0, 8.0])
PREDICTED = np.array([1.05, 1.8, 4.0, 10.0])  # off by 5 %, -10 %, 0 and 25 %
EVERYBODY = np.arange(4)[None]


def test_statistics_by_hand() -> None:
    """Mean (5 + 10 + 0 + 25) / 4 = 10 %; root mean square sqrt(750 / 4) = 13.69 %; median of -10, 0, 5, 25 is 2.5."""
    found = scores(PREDICTED, MEASURED, seed=0)
    values = {name: score.value for name, score in found.items()}
    assert values == pytest.approx(
        {"mape": 0.1, "rmspe": math.sqrt(0.0750 / 4), "within_5": 0.5, "within_10": 0.75, "bias": 0.025, "kendall": 1.0}
    )
    assert all(score.low <= score.value <= score.high for score in found.values())
    assert all(math.isnan(score.over_floor) for score in found.values())


def test_a_value_stands_over_that_of_the_repeated_measurement() -> None:
    """The repetition is off by 5 % each time: mape 5 %, so 10 % are twice the floor."""
    found = scores(PREDICTED, MEASURED, floor_ms=1.05 * MEASURED, seed=0)
    assert found["mape"].over_floor == pytest.approx(2.0)


def test_nothing_stands_over_a_floor_of_zero() -> None:
    """The repetition is off by 20 % each time, so none of it is within 5 %: there is nothing to divide by."""
    found = scores(PREDICTED, MEASURED, floor_ms=1.2 * MEASURED, seed=0)
    assert found["mape"].over_floor == pytest.approx(0.5)
    assert math.isnan(found["within_5"].over_floor)


def test_the_better_predictor_gains_what_it_is_less_off() -> None:
    """15 % against 10 % on average, 5 points gained; against itself nothing."""
    assert better(PREDICTED, 1.15 * MEASURED, MEASURED, seed=0).value == pytest.approx(0.05)
    same = better(PREDICTED, PREDICTED, MEASURED, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("order", "tau"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([1, 3, 2, 4], 4 / 6), ([1, 1, 2, 3], 5 / math.sqrt(5 * 6))],
)
def test_kendall_by_hand(order: list[int], tau: float) -> None:
    """Concordant less discordant pairs of 6: one swap leaves 5 - 1 = 4; a tie leaves 5 over sqrt(5 * 6)."""
    assert float(kendall(np.array(order, dtype=float), MEASURED, EVERYBODY)[0]) == pytest.approx(tau)


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, 2.0]), np.array([1.0, 2.0, 0.0, 4.0]), MEASURED * np.nan])
def test_what_is_no_time_is_refused(bad: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    with pytest.raises(DataError, match="predicted_ms: must be 4 finite times above 0"):
        scores(bad, MEASURED, seed=0)
