"""What the latency table hands out: frozen values, never rows of the database."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from ..device import Environment, Statistic
from ..timer import RoundTiming

Source = Literal["measured", "imported"]

Visited = tuple[str, int]
"""What a value belongs to inside an environment: the hash of a part's key, and a batch size."""

Density = tuple[int, int]
"""Which share of its work a part does, as numerator and denominator."""

FULL: Density = (1, 1)

# The median absolute deviation of normal samples is this fraction of their standard deviation.
_MAD_OF_SD = 0.6745


@final
@dataclass(frozen=True)
class Entry:
    """What the table says about one part at one batch size.

    Args:
        ms: isolated latency: the best round by the device's statistic, in milliseconds a call.
        relsd: standard deviation of a round in a process that nobody has seen yet, over the mean; of a single
            round, that of its samples.
        n_rounds: rounds it rests on.
        n_processes: processes that made them.
    """

    ms: float
    relsd: float
    n_rounds: int
    n_processes: int = 1

    @classmethod
    def of(cls, rounds: Mapping[str, Sequence[RoundTiming]], statistic: Statistic = "min") -> Entry:
        """The value of at least one round, given by the process that made it."""
        values = [[float(timing.value_ns(statistic)) for timing in each] for each in rounds.values()]
        every = [value for each in values for value in each]
        mean = statistics.fmean(every)
        if len(every) > 1:
            relsd = math.sqrt(variance(values)) / mean if mean > 0 else 0.0
        else:
            ((only,),) = rounds.values()
            relsd = only.mad_ns / _MAD_OF_SD / only.median_ns if only.median_ns > 0 else 0.0
        return cls(ms=min(every) / 1e6, relsd=relsd, n_rounds=len(every), n_processes=len(values))


def variance(groups: Sequence[Sequence[float]]) -> float:
    """The variance of one more value from one more group, given at least two values in groups.

    The sum of the two components of a one-way random-effects analysis of variance: that within groups, and that
    of the groups' means, which a pooled variance of few groups takes for smaller than it is. Of a single group,
    the sample variance.
    """
    n, k = sum(map(len, groups)), len(groups)
    means = [statistics.fmean(each) for each in groups]
    rest = sum((value - mean) ** 2 for each, mean in zip(groups, means, strict=True) for value in each)
    within = rest / (n - k) if n > k else 0.0
    if k == 1:
        return within
    grand = sum(map(sum, groups)) / n
    of_means = sum(len(each) * (mean - grand) ** 2 for each, mean in zip(groups, means, strict=True)) / (k - 1)
    size = (n - sum(len(each) ** 2 for each in groups) / n) / (k - 1)  # of a group; their mean where all are equal
    return within + max(0.0, (of_means - within) / size)


@final
@dataclass(frozen=True)
class TableVersion:
    """A frozen state of one environment's measurements; `version` is a hash of their contents."""

    version: str
    environment_id: str
    created_at: float
    parent: str | None


@final
@dataclass(frozen=True)
class StoredCorrection:
    """A correction, as plain data, with the version it was fitted on."""

    correction_id: str
    environment_id: str
    version: str
    created_at: float
    payload: Mapping[str, object]


@final
@dataclass(frozen=True)
class TableSummary:
    """What the table holds for one environment; `parts` counts the measured ones by kind."""

    environment_id: str
    environment: Environment
    parts: Mapping[str, int]
    batches: tuple[int, ...]
    measurements: int
    sessions: int
    rejected_sessions: int
    versions: tuple[TableVersion, ...]
