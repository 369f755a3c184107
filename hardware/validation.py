"""Validation: predicted latencies beside measured ones, each number with an interval and over the noise floor.

No predictor can be told from another below the error that measuring the same networks twice makes. So every
statistic stands beside that of the repeated measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError
from .correction import Floats

RESAMPLES: Final = 2000
STATISTICS: Final = ("mape", "rmspe", "within_5", "within_10", "bias", "kendall")
_SMALLEST_FLOOR: Final = 1e-9  # nothing is compared with a floor of zero

_Rows = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Score:
    """A statistic.

    Args:
        value: of all networks.
        low, high: 95 % bootstrap interval over networks.
        over_floor: the value divided by that of the repeated measurement; nan if there is none, or it is zero.
        over_floor_low, over_floor_high: its interval, with the same networks drawn for both.
    """

    value: float
    low: float
    high: float
    over_floor: float = math.nan
    over_floor_low: float = math.nan
    over_floor_high: float = math.nan


def scores(
    predicted_ms: Floats, measured_ms: Floats, *, floor_ms: Floats | None = None, seed: int
) -> Mapping[str, Score]:
    """How well `n` predictions agree with `n` measurements.

    `mape` and `rmspe` are the mean and the root mean square of the relative error, `within_5` and `within_10` the
    shares of networks off by at most 5 and 10 %, `bias` is the median of predicted over measured less 1, and
    `kendall` tau-b of the two orders.

    Args:
        predicted_ms: predictions.
        measured_ms: measurements.
        floor_ms: another measurement of the same networks, whose agreement with the first is the noise floor.
        seed: of the bootstrap.

    Raises:
        DataError: if there are none, the numbers differ, or a time is not finite and above 0.
    """
    for name, values in (("predicted_ms", predicted_ms), ("measured_ms", measured_ms), ("floor_ms", floor_ms)):
        if values is not None:
            _check(name, values, len(measured_ms))
    rows = np.random.default_rng(seed).integers(len(measured_ms), size=(RESAMPLES, len(measured_ms)))
    everything = np.arange(len(measured_ms))[None]
    own = [_statistics(predicted_ms, measured_ms, each) for each in (everything, rows)]
    if floor_ms is None:
        return {name: _score(own[0][name], own[1][name], None, None) for name in STATISTICS}
    floor = [_statistics(floor_ms, measured_ms, each) for each in (everything, rows)]
    return {name: _score(own[0][name], own[1][name], floor[0][name], floor[1][name]) for name in STATISTICS}


def better(one_ms: Floats, other_ms: Floats, measured_ms: Floats, *, seed: int) -> Score:
    """How much smaller the mean relative error of one predictor is than that of another, on the same networks.

    An interval that does not hold 0 tells them apart.

    Raises:
        DataError: as `scores` does.
    """
    for name, values in (("one_ms", one_ms), ("other_ms", other_ms), ("measured_ms", measured_ms)):
        _check(name, values, len(measured_ms))
    gain = np.abs(other_ms / measured_ms - 1) - np.abs(one_ms / measured_ms - 1)
    drawn = gain[np.random.default_rng(seed).integers(len(gain), size=(RESAMPLES, len(gain)))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Score(float(gain.mean()), float(low), float(high))


def kendall(predicted_ms: Floats, measured_ms: Floats, rows: _Rows) -> Floats:
    """Tau-b of each of `r x n` draws, all of them at once: pairs are counted with how often both were drawn."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (predicted_ms, measured_ms)]
    drawn = np.stack([np.bincount(row, minlength=len(measured_ms)) for row in rows]).astype(np.float64)

    def pairs(agreement: Floats) -> Floats:
        total: Floats = ((drawn @ agreement) * drawn).sum(axis=1)
        return total

    untied = np.sqrt(pairs(np.abs(signs[0])) * pairs(np.abs(signs[1])))
    return np.where(untied > 0, pairs(signs[0] * signs[1]) / np.maximum(untied, 1), 0.0)


def _statistics(predicted_ms: Floats, measured_ms: Floats, rows: _Rows) -> Mapping[str, Floats]:
    """Each statistic of each of `r x n` draws: `r`."""
    ratios = predicted_ms / measured_ms
    errors = np.abs(ratios - 1)[rows]
    # Whoever is off by exactly 5 % is within 5 %, whatever the last bit says.
    within = {limit: (errors <= limit / 100 + 1e-12).mean(axis=1) for limit in (5, 10)}
    return {
        "mape": errors.mean(axis=1),
        "rmspe": np.sqrt((errors**2).mean(axis=1)),
        "within_5": within[5],
        "within_10": within[10],
        "bias": np.median(ratios[rows], axis=1) - 1,
        "kendall": kendall(predicted_ms, measured_ms, rows),
    }


def _score(value: Floats, drawn: Floats, floor: Floats | None, floor_drawn: Floats | None) -> Score:
    low, high = np.quantile(drawn, (0.025, 0.975))
    if floor is None or floor_drawn is None or abs(floor[0]) < _SMALLEST_FLOOR:
        return Score(float(value[0]), float(low), float(high))
    ratios = np.concatenate([_over(value, floor), np.quantile(_over(drawn, floor_drawn), (0.025, 0.975))])
    return Score(float(value[0]), float(low), float(high), *map(float, ratios))


def _over(values: Floats, floor: Floats) -> Floats:
    return np.abs(values) / np.maximum(np.abs(floor), _SMALLEST_FLOOR)


def _check(name: str, values: Floats, n: int) -> None:
    if values.shape != (n,) or n == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(name, f"must be {n or 'some'} finite times above 0, but got shape {values.shape}")
