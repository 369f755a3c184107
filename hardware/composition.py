"""Traces times table: the latency distribution of a dynamic network that was never timed as a whole.

Every quantile needs the joint trace: which parts ran together for one input. Averages of exit rates
give the mean at batch 1 and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError, MissingEntryError
from .correction import Correction, Floats

# Fewest independent inferences for a quantile at 99 % confidence with one over-latency allowed.
# Source: Reddi et al., "MLPerf Inference Benchmark", ISCA 2020; the rule for early stopping of its
# inference policies, solved for each quantile.
SAMPLES_NEEDED: tuple[tuple[str, float, int], ...] = (
    ("p50", 0.50, 0),
    ("p90", 0.90, 64),
    ("p95", 0.95, 130),
    ("p99", 0.99, 662),
)


@final
@dataclass(frozen=True)
class PartCurve:
    """What one part costs at the batch sizes it was measured at.

    Args:
        batches: measured batch sizes, ascending.
        ms: milliseconds a call at each.
        key: the part's key, for messages.

    Raises:
        DataError: if the two do not match, or hold values that no measurement gives.
    """

    batches: tuple[int, ...]
    ms: tuple[float, ...]
    key: str = ""

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip((0, *self.batches), self.batches, strict=False))
        times = all(math.isfinite(ms) and ms > 0 for ms in self.ms)
        if not (self.batches and len(self.batches) == len(self.ms) and ascending and times):
            raise DataError(
                f"curve {self.key}".strip(),
                f"needs ascending batch sizes, one time above 0 for each, but got {self.batches}, {self.ms}",
            )

    def at(self, n: int) -> float:
        """Milliseconds of one call on `n` inputs; none cost nothing.

        Between measured sizes it is interpolated, both axes logarithmic, as cost is close to a power of
        the batch there.

        Raises:
            MissingEntryError: if `n` lies outside the measured sizes.
        """
        if n == 0:
            return 0.0
        if n in self.batches:
            return self.ms[self.batches.index(n)]
        if not self.batches[0] < n < self.batches[-1]:
            raise MissingEntryError(
                f"a batch of {n} lies outside the measured {self.batches[0]} to {self.batches[-1]}"
                f" of part {self.key or '?'}; measure it at that size",
                (self.key,),
            )
        return math.exp(float(np.interp(math.log(n), np.log(self.batches), np.log(self.ms))))


@final
@dataclass(frozen=True)
class LatencyDistribution:
    """Latency per input in milliseconds; at batch `B`, a batch's completion time divided by `B`.

    Args:
        batch: inputs in one call.
        mean_ms: mean.
        p50_ms: median.
        p90_ms: 90 % quantile.
        p95_ms: 95 % quantile.
        p99_ms: 99 % quantile.
        worst_ms: the longest reachable path, never below the largest observed value.
        low_ms: lower end of the correction's interval around the mean.
        high_ms: upper end.
        per_sample_ms: batch 1: `n`, one an input in trace order; else one a simulated batch.
        quantile_is_bound: the quantiles that so few inputs cannot tell; each holds the largest observed
            value, an upper estimate.
        correction_id: the correction that was applied.
    """

    batch: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    low_ms: float
    high_ms: float
    per_sample_ms: Floats
    quantile_is_bound: tuple[str, ...]
    correction_id: str

    def summary(self) -> dict[str, float]:
        """The numbers without the samples."""
        names = ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "worst_ms", "low_ms", "high_ms")
        return {name: getattr(self, name) for name in names}


def compose(
    counts: NDArray[np.float64],
    curves: Sequence[PartCurve],
    *,
    batch: int = 1,
    correction: Correction,
    seed: int,
    worst: NDArray[np.float64] | None = None,
    repeats: int = 32,
) -> LatencyDistribution:
    """The latency distribution of a traced network.

    At batch 1 an input costs `b + a * sum(counts * ms) + c * calls`. At larger sizes batches are drawn
    by shuffling the trace, and inputs that stop are compacted away: part `k` costs its curve at the
    number of inputs that still run it.

    Args:
        counts: `n x p`; how often each input runs each part, parts in execution order. 2 is two calls in
            a row; a fraction is a density, charged as that share of a call.
        curves: `p` costs.
        batch: inputs in one call.
        correction: of this device.
        seed: shuffling of the batches; without effect at batch 1.
        worst: `p` counts on the longest reachable path; the largest observed value stands in if absent.
        repeats: how often the whole trace is shuffled into batches.

    Raises:
        DataError: if shapes do not match, or counts are negative or not finite, or there are none.
        MissingEntryError: if a part would run at a batch size outside its measured range.
    """
    _check(counts, curves, batch, worst)
    if batch == 1:
        groups = np.arange(len(counts))[:, None]
    else:
        groups = _shuffled_batches(len(counts), batch, repeats, np.random.default_rng(seed))
    per_sample = _completion_ms(counts, groups, curves, correction) / batch
    observed = float(per_sample.max())
    worst_ms = observed
    if worst is not None:
        together = np.zeros((1, batch), dtype=np.int64)
        worst_ms = max(observed, float(_completion_ms(worst[None], together, curves, correction)[0]) / batch)
    values, bounds = _quantiles(per_sample, len(counts) // batch)
    mean = float(per_sample.mean())
    low, high = correction.interval(mean)
    return LatencyDistribution(
        batch=batch,
        mean_ms=mean,
        p50_ms=values["p50"],
        p90_ms=values["p90"],
        p95_ms=values["p95"],
        p99_ms=values["p99"],
        worst_ms=worst_ms,
        low_ms=low,
        high_ms=high,
        per_sample_ms=per_sample,
        quantile_is_bound=bounds,
        correction_id=correction.correction_id,
    )


def _check(counts: Floats, curves: Sequence[PartCurve], batch: int, worst: Floats | None) -> None:
    if batch < 1:
        raise DataError("batch", f"must be at least 1, but got {batch}")
    if counts.ndim != 2 or counts.shape[1] != len(curves) or len(counts) == 0:
        raise DataError("counts", f"must be n x {len(curves)} with n >= 1, but got shape {counts.shape}")
    if worst is not None and worst.shape != (len(curves),):
        raise DataError("worst", f"must have {len(curves)} counts, but got shape {worst.shape}")
    for name, values in (("counts", counts), ("worst", worst)):
        if values is not None and not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(name, "every count must be finite and at least 0; check the trace")


def _shuffled_batches(n: int, batch: int, repeats: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`m x batch` numbers of inputs: whole shuffles of the trace in a row, cut into batches.

    Cutting across two shuffles, rather than dropping the rest of each, lets every input count equally
    often, and lets a trace shorter than one batch still fill it.
    """
    stream = np.concatenate([rng.permutation(n) for _ in range(max(repeats, math.ceil(batch / n)))])
    whole = len(stream) // batch
    return stream[: whole * batch].reshape(whole, batch)


def _completion_ms(
    counts: Floats, groups: NDArray[np.int64], curves: Sequence[PartCurve], correction: Correction
) -> Floats:
    """When each of `m` groups (`m x batch` numbers of inputs) is done: `m` milliseconds."""
    sums, calls = np.zeros(len(groups)), np.zeros(len(groups))
    for part, curve in enumerate(curves):
        column = counts[:, part][groups]  # m x batch
        for repetition in range(math.ceil(column.max(initial=0.0))):
            alive = np.clip(column - repetition, 0.0, 1.0).sum(axis=1)  # m
            sums += _costs(curve, alive)
            calls += alive > 0
    return correction.apply_all(sums, calls)


def _costs(curve: PartCurve, alive: Floats) -> Floats:
    """The curve at each number of inputs; below one input, that share of a call on one."""
    sizes, where = np.unique(alive, return_inverse=True)
    costs = [size * curve.at(1) if 0 < size < 1 else _between(curve, float(size)) for size in sizes]
    return np.asarray(costs, dtype=np.float64)[where]


def _between(curve: PartCurve, size: float) -> float:
    """The curve at a sum of densities, which need not be whole: linear between its neighbours."""
    low, share = math.floor(size), size - math.floor(size)
    return curve.at(low) if share == 0 else (1 - share) * curve.at(low) + share * curve.at(low + 1)


def _quantiles(values: Floats, independent: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Quantiles that were observed (the least value that so many do not exceed), or their upper bounds."""
    found, bounds = {}, []
    for name, level, needed in SAMPLES_NEEDED:
        if independent >= needed:
            found[name] = float(np.quantile(values, level, method="inverted_cdf"))
        else:
            found[name] = float(values.max())
            bounds.append(name)
    return found, tuple(bounds)
