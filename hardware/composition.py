"""Traces times table: the latency distribution of a dynamic network that was never timed as a whole.

Every quantile needs the joint trace: which parts ran together for one input. Averages of exit rates
give the mean at batch 1 and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError, MissingEntryError
from .correction import Correction, Floats
from .estimate import LADDER, Estimate, How, least_sure
from .interval import network_relsd

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
        batches: batch sizes, ascending.
        ms: milliseconds a call at each.
        key: the part's key, for messages.
        doubts: of each size, how its time was come by and the relative standard deviation that this brings;
            empty if all were measured, as what measurements are off by is in the correction.
        between_relsd: relative standard deviation that reading between two sizes brings.

    Raises:
        DataError: if these do not match, or hold values that no measurement gives.
    """

    batches: tuple[int, ...]
    ms: tuple[float, ...]
    key: str = ""
    doubts: tuple[tuple[How, float], ...] = ()
    between_relsd: float = 0.0

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip((0, *self.batches), self.batches, strict=False))
        times = all(math.isfinite(ms) and ms > 0 for ms in self.ms)
        if not (self.batches and len(self.batches) == len(self.ms) and ascending and times):
            raise DataError(
                f"curve {self.key}".strip(),
                f"needs ascending batch sizes, one time above 0 for each, but got {self.batches}, {self.ms}",
            )
        deviations = (self.between_relsd, *(relsd for _, relsd in self.doubts))
        known = all(how in LADDER for how, _ in self.doubts) and all(0 <= relsd < math.inf for relsd in deviations)
        if len(self.doubts) not in (0, len(self.batches)) or not known:
            raise DataError(
                f"curve {self.key}".strip(),
                f"needs a step of the ladder and a deviation for each size, but got {self.doubts}, {deviations[0]}",
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

    def estimate(self, n: float) -> Estimate:
        """One call on `n` inputs with all that is known of it; a number that is not whole is a sum of densities.

        Raises:
            MissingEntryError: if `n` lies outside the measured sizes.
        """
        if n in self.batches:
            how, relsd = self.doubts[self.batches.index(int(n))] if self.doubts else ("measured", 0.0)
            return Estimate(self.at(int(n)), relsd, how)
        if 0 < n < 1:  # that share of a call on one
            one = self.estimate(1)
            return Estimate(n * one.ms, one.relsd, one.how)
        low, share = math.floor(n), n - math.floor(n)
        ms = self.at(low) if share == 0 else (1 - share) * self.at(low) + share * self.at(low + 1)
        steps, relsds = [how for how, _ in self.doubts], [relsd for _, relsd in self.doubts]
        doubt = math.hypot(max(relsds, default=0.0), self.between_relsd)
        return Estimate(ms, doubt, least_sure("interpolated", *steps))

    def to_list(self) -> list[Any]:
        """Plain JSON values, without the key."""
        return [list(self.batches), list(self.ms), [list(doubt) for doubt in self.doubts], self.between_relsd]

    @classmethod
    def from_list(cls, values: Sequence[Any], key: str) -> PartCurve:
        """The inverse of `to_list`."""
        batches, ms, doubts, between = values
        return cls(tuple(batches), tuple(ms), key, tuple((how, relsd) for how, relsd in doubts), between)


_Spent = list[tuple[float, Estimate]]  # milliseconds in all, and one call; of one part


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
        steps: shares of the time on each step of the ladder that was used, the surest first.
        relsd: relative standard deviation of the mean from parts that were not measured as they ran.
        calls: parts that run, in the mean over batches.
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
    steps: tuple[tuple[How, float], ...] = ()
    relsd: float = 0.0
    calls: float = 0.0

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
    present: NDArray[np.float64] | None = None,
    together: Sequence[bool] = (),
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
        present: `n x p`: who is there when a part may move rows, 0 for parts that move none. Rows are moved only
            where some of those who are there move, and not all; None: whenever some do.
        together: `p`, whether a part takes rows: then a count is a number of rows, and those of all inputs of a batch
            go through it in one call. None does if absent.
        repeats: how often the whole trace is shuffled into batches.

    Raises:
        DataError: if shapes do not match, or counts are negative or not finite, or there are none.
        MissingEntryError: if a part would run at a batch size outside its measured range.
    """
    together = together or (False,) * len(curves)
    _check(counts, curves, batch, worst, present, together)
    if batch == 1:
        groups = np.arange(len(counts))[:, None]
    else:
        groups = _shuffled_batches(len(counts), batch, repeats, np.random.default_rng(seed))
    completion, spent, calls = _completion_ms(counts, groups, curves, correction, together, present)
    per_sample = completion / batch
    observed = float(per_sample.max())
    worst_ms = observed
    if worst is not None:
        alike = np.zeros((1, batch), dtype=np.int64)
        slowest = _completion_ms(worst[None], alike, curves, correction, together)[0]
        worst_ms = max(observed, float(slowest[0]) / batch)
    values, bounds = _quantiles(per_sample, len(counts) // batch)
    mean = float(per_sample.mean())
    relsd = _relsd(spent, correction, float(completion.sum()))
    low, high = correction.interval(mean, relsd)
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
        steps=_steps(spent),
        relsd=relsd,
        calls=calls,
    )


def _check(
    counts: Floats,
    curves: Sequence[PartCurve],
    batch: int,
    worst: Floats | None,
    present: Floats | None,
    together: Sequence[bool],
) -> None:
    if len(together) != len(curves):
        raise DataError("together", f"must say so of {len(curves)} parts, but does of {len(together)}")
    if batch < 1:
        raise DataError("batch", f"must be at least 1, but got {batch}")
    if counts.ndim != 2 or counts.shape[1] != len(curves) or len(counts) == 0:
        raise DataError("counts", f"must be n x {len(curves)} with n >= 1, but got shape {counts.shape}")
    if worst is not None and worst.shape != (len(curves),):
        raise DataError("worst", f"must have {len(curves)} counts, but got shape {worst.shape}")
    if present is not None and present.shape != counts.shape:
        raise DataError("present", f"must have the shape of counts, {counts.shape}, but got {present.shape}")
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
    counts: Floats,
    groups: NDArray[np.int64],
    curves: Sequence[PartCurve],
    correction: Correction,
    together: Sequence[bool],
    present: Floats | None = None,
) -> tuple[Floats, list[_Spent], float]:
    """When each of `m` groups (`m x batch` numbers of inputs) is done: `m` milliseconds; what each part took; calls."""
    sums, calls = np.zeros(len(groups)), np.zeros(len(groups))
    spent: list[_Spent] = []
    for part, curve in enumerate(curves):
        column = counts[:, part][groups]  # m x batch
        spent.append([])
        repetitions = 1 if together[part] else math.ceil(column.max(initial=0.0))
        for repetition in range(repetitions):
            running = column if together[part] else np.clip(column - repetition, 0.0, 1.0)
            alive = running.sum(axis=1)  # m: inputs, or rows
            if present is not None and present[:, part].any():
                alive = np.where(alive < present[:, part][groups].sum(axis=1), alive, 0.0)
            sums += _costs(curve, alive, spent[-1])
            calls += alive > 0
    return correction.apply_all(sums, calls), spent, float(calls.mean())


def _costs(curve: PartCurve, alive: Floats, spent: _Spent) -> Floats:
    """The curve at each number of inputs; nobody costs nothing. Notes what all of them together cost."""
    sizes, where, times = np.unique(alive, return_inverse=True, return_counts=True)
    costs = np.zeros(len(sizes))
    for index in np.flatnonzero(sizes):
        estimate = curve.estimate(float(sizes[index]))
        costs[index] = estimate.ms
        spent.append((estimate.ms * float(times[index]), estimate))
    return costs[where]


def _relsd(spent: Sequence[_Spent], correction: Correction, completion_ms: float) -> float:
    """Of the corrected sum of all parts; a part is off in the same direction at all sizes."""
    parts = []
    for part in filter(None, spent):
        total = sum(ms for ms, _ in part)
        parts.append((1.0, Estimate(total, sum(ms * each.relsd for ms, each in part) / total, "measured")))
    share = correction.a * sum(each.ms for _, each in parts) / completion_ms if parts else 0.0
    return share * network_relsd(parts) if parts else 0.0


def _steps(spent: Sequence[_Spent]) -> tuple[tuple[How, float], ...]:
    taken = {how: sum(ms for part in spent for ms, each in part if each.how == how) for how in LADDER}
    total = sum(taken.values())
    return tuple((how, ms / total) for how, ms in taken.items() if ms > 0)


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
