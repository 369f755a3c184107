"""What a search found, as plain values: the rows of every table and picture of the front.

A row is one operating point with its accuracy on data no search step saw, its latency as the table
predicted it and, where the device was asked again, as it was measured. Static baselines are rows too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Literal, final

from ..hardware.drift import Shift

Kind = Literal["dynamic", "static", "single_exit", "random_exit"]

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal distribution


@final
@dataclass(frozen=True)
class DeviceTimes:
    """The latency of an operating point on one more device, in milliseconds; measured ones are None if not timed."""

    device: str
    latency_ms: float
    latency_p95_ms: float
    measured_ms: float | None = None
    measured_p95_ms: float | None = None


@final
@dataclass(frozen=True)
class ReportRow:
    """One operating point of a report.

    Args:
        label: "17.3" is point 3 of candidate 17; a baseline has its own label.
        kind: "static" is a backbone trained without any dynamic family.
        number: of the candidate.
        summary: the network in a few words, "residual w16 d2-2-2, exits after 1, 3".
        policy: the settings of the decisions, "max_prob .91 .72".
        front: whether the point is a member of the front.
        accuracy: fraction right on the test split.
        accuracy_low: lower end of its 95 % Wilson interval.
        accuracy_high: upper end of its 95 % Wilson interval.
        tune_accuracy: fraction right on the split the search chose by.
        latency_ms: predicted mean.
        latency_p95_ms: predicted 95th percentile.
        measured_ms: mean measured again on the device, or None.
        measured_p95_ms: 95th percentile measured again on the device, or None.
        macs: mean multiply-accumulates an input.
        work_saved: 1 - mean work / work of the same backbone run whole, or None.
        exit_share: fraction of inputs that leave at each exit.
        elsewhere: latencies on the further devices of the search; the fields above are those of the first.
    """

    label: str
    kind: Kind
    number: int
    architecture_id: str
    backbone: str
    families: tuple[str, ...]
    summary: str
    policy: str
    front: bool
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    tune_accuracy: float
    latency_ms: float
    latency_p95_ms: float
    measured_ms: float | None
    measured_p95_ms: float | None
    macs: float
    work_saved: float | None
    exit_share: tuple[float, ...]
    elsewhere: tuple[DeviceTimes, ...] = ()

    def on(self, device: str | None) -> DeviceTimes:
        """Its latencies on a device; None is the first.

        Raises:
            KeyError: if it is none of the search's.
        """
        if device is None:
            return DeviceTimes("", self.latency_ms, self.latency_p95_ms, self.measured_ms, self.measured_p95_ms)
        return {each.device: each for each in self.elsewhere}[device]


@final
@dataclass(frozen=True)
class FrontReport:
    """The outcome of one search.

    Args:
        device: the device in words.
        objectives: (metric, direction, unit) each.
        finished: candidates trained to the end; `stopped` early; `failed` with a cause.
        hypervolume_history: (candidates done, hypervolume) pairs.
        seconds: wall time of the search.
        notes: why the search stopped, dropped points, quantiles that are bounds.
        devices: names of the devices, as a spec gives them.
        machine_change: how much longer the same work took on the first device while the front was timed than when
            its table was measured, as a fraction; None if that is unknown. A change says nothing below
            `machine_noise`.
    """

    search_id: str
    name: str
    device: str
    objectives: tuple[tuple[str, str, str], ...]
    rows: tuple[ReportRow, ...]
    finished: int
    stopped: int
    failed: int
    hypervolume: float | None
    hypervolume_history: tuple[tuple[int, float], ...]
    epochs_spent: float
    seconds: float
    notes: tuple[str, ...] = ()
    machine_change: float | None = None
    machine_noise: float | None = None
    devices: tuple[str, ...] = ()

    @property
    def machine(self) -> Shift | None:
        """How the first device's machine has changed since its table was measured; None if that is unknown."""
        if self.machine_change is None or self.machine_noise is None:
            return None
        return Shift(self.machine_change, self.machine_noise)

    @property
    def latency_error(self) -> float | None:
        """Mean |predicted - measured| / measured over the rows timed again; None if none was."""
        errors = [abs(row.latency_ms - row.measured_ms) / row.measured_ms for row in self.rows if row.measured_ms]
        return sum(errors) / len(errors) if errors else None

    @property
    def front(self) -> tuple[ReportRow, ...]:
        """The dynamic members of the front, fastest first."""
        return _fastest_first(row for row in self.rows if row.front and row.kind == "dynamic")

    @property
    def baselines(self) -> tuple[ReportRow, ...]:
        """The static networks, single exits and random exits, fastest first."""
        return _fastest_first(row for row in self.rows if row.kind != "dynamic")

    @property
    def statics(self) -> tuple[ReportRow, ...]:
        """The networks without a decision: static ones and single exits, fastest first."""
        return _fastest_first(row for row in self.rows if row.kind in ("static", "single_exit"))

    @property
    def against_random(self) -> tuple[int, int]:
        """How many front members beat a gate that is drawn at random at the same rates, and how many have one."""
        rows = {row.label: row.accuracy for row in self.rows if row.kind == "random_exit"}
        pairs = [(row.accuracy, rows[f"{row.label} random"]) for row in self.front if f"{row.label} random" in rows]
        return sum(mine > drawn for mine, drawn in pairs), len(pairs)

    @property
    def others(self) -> tuple[ReportRow, ...]:
        """The dynamic points that something beats, fastest first."""
        return _fastest_first(row for row in self.rows if not row.front and row.kind == "dynamic")

    @property
    def headline(self) -> str:
        """How the search went, on one line."""
        parts = [f"{self.finished} finished, {self.stopped} stopped early, {self.failed} failed"]
        if self.hypervolume is not None:
            parts.append(f"hypervolume {self.hypervolume:.4g}")
        parts.append(f"{self.epochs_spent:g} epochs in {_duration(self.seconds)}")
        if self.latency_error is not None:
            parts.append(f"predicted latency off by {self.latency_error:.1%} on average")
            if self.machine is not None:
                parts.append(str(self.machine))
        return " · ".join(parts)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of `correct` right answers out of `n`; (0, 1) for n = 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if n <= 0:
        return 0.0, 1.0
    rate, z2 = correct / n, _Z95 * _Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # rounding may leave 1e-17 beyond an end that is exact
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)


def milliseconds(value: float | None) -> str:
    """A latency to about three digits, "-" where there is none."""
    if value is None:
        return "-"
    if 0 < value < 0.01:
        return f"{value:.1e}" if value < 1e-4 else f"{value:.4f}"
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def printable(text: str) -> str:
    """`text` on one line and without control characters: a name must not steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _fastest_first(rows: Iterable[ReportRow]) -> tuple[ReportRow, ...]:
    return tuple(sorted(rows, key=lambda row: (row.latency_ms, -row.accuracy, row.label)))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
