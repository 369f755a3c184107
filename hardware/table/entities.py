"""What the latency table hands out: frozen values, never rows of the database."""

from __future__ import annotations

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
        relsd: standard deviation of the rounds over their mean; of a single round, that of its samples.
        n_rounds: rounds it rests on.
    """

    ms: float
    relsd: float
    n_rounds: int

    @classmethod
    def of(cls, rounds: Sequence[RoundTiming], statistic: Statistic = "min") -> Entry:
        """The value of at least one round."""
        values = [timing.value_ns(statistic) for timing in rounds]
        if len(values) > 1:
            mean = statistics.fmean(values)
            relsd = statistics.stdev(values) / mean if mean > 0 else 0.0
        else:
            (only,) = rounds
            relsd = only.mad_ns / _MAD_OF_SD / only.median_ns if only.median_ns > 0 else 0.0
        return cls(ms=min(values) / 1e6, relsd=relsd, n_rounds=len(values))


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
