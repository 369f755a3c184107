"""Intervals around the latency of a network that is summed from parts, some of them only estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from ..spaces.errors import DataError
from .estimate import Estimate

COVERAGE: Final = 0.90
# Errors of parts of one network go together in part: they share the machine and the model.
SHARED_ERROR: Final = 0.3
# Nine in ten of a normal distribution lie within so many standard deviations.
NORMAL_SCALE: Final = 1.645
# No prediction is taken to be better: canaries may drift by as much before a session is flagged.
MIN_RELSD: Final = 0.03


@final
@dataclass(frozen=True)
class Outcome:
    """A whole network that was measured: what was predicted, with which relative deviation, what it took."""

    predicted_ms: float
    relsd: float
    measured_ms: float


@final
@dataclass(frozen=True)
class Calibration:
    """How wide intervals must be to hold nine in ten measurements.

    Args:
        scale: half-width as a log ratio, in relative standard deviations.
        n: networks it rests on; with fewer than 9 no such quantile exists, and it is the larger of the normal
            distribution's and the worst seen.
    """

    scale: float = NORMAL_SCALE
    n: int = 0

    def interval(self, ms: float, relsd: float) -> tuple[float, float]:
        """Where nine in ten measurements of a network predicted at `ms` are expected."""
        radius = self.scale * max(relsd, MIN_RELSD)
        return ms * math.exp(-radius), ms * math.exp(radius)


def network_relsd(parts: Sequence[tuple[float, Estimate]]) -> float:
    """Relative standard deviation of a sum of parts, each given with how often it runs.

    `sd^2 = sum (t_i * relsd_i)^2 + (0.3 * sum t_i * relsd_i)^2`

    Raises:
        DataError: if there is no part, or nothing runs.
    """
    times = np.array([count * estimate.ms for count, estimate in parts])
    total = float(times.sum())
    if not (math.isfinite(total) and total > 0 and (times >= 0).all()):
        raise DataError("parts", f"must add up to a finite time above 0, but got {total} ms of {len(parts)} parts")
    each = times * np.array([estimate.relsd for _, estimate in parts])
    return math.hypot(float(np.linalg.norm(each)), SHARED_ERROR * float(each.sum())) / total


def calibrate(outcomes: Sequence[Outcome]) -> Calibration:
    """The scale that nine in ten measured networks keep to.

    Source: Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018: split conformal
    intervals on normalised residuals. The networks must not be those that anything else was fitted on.

    Raises:
        DataError: if a time is not finite and above 0, or a deviation is negative.
    """
    for index, outcome in enumerate(outcomes):
        times = (outcome.predicted_ms, outcome.measured_ms)
        if not (all(math.isfinite(ms) and ms > 0 for ms in times) and 0 <= outcome.relsd < math.inf):
            raise DataError(f"outcomes[{index}]", f"needs times above 0 and a deviation, but got {outcome}")
    scores = sorted(abs(math.log(o.measured_ms / o.predicted_ms)) / max(o.relsd, MIN_RELSD) for o in outcomes)
    # The quantile of finite samples: with one more network, each place among them is equally likely.
    rank = math.ceil((len(scores) + 1) * COVERAGE)
    if rank > len(scores):
        return Calibration(max([NORMAL_SCALE, *scores]), len(scores))
    return Calibration(scores[rank - 1], len(scores))
