"""Metrics: the numbers of an operating point, each with a unit and a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..spaces.errors import SpecError, UnknownNameError

MAXIMIZE, MINIMIZE = "maximize", "minimize"


@final
@dataclass(frozen=True)
class Metric:
    """One number.

    Args:
        name: as in specs, with the unit in it.
        unit: for axes and tables.
        direction: what is better.
        on_device: whether it differs between devices; then `name@device` asks for one of several.
        title: for axes and tables.
        bounds: the values it can take.
    """

    name: str
    unit: str
    direction: str
    on_device: bool
    title: str
    bounds: tuple[float, float] = (0.0, float("inf"))


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "fraction", MAXIMIZE, False, "accuracy", (0.0, 1.0)),
    Metric("latency_ms", "ms", MINIMIZE, True, "mean latency"),
    Metric("latency_p95_ms", "ms", MINIMIZE, True, "95th percentile latency"),
    Metric("latency_worst_ms", "ms", MINIMIZE, True, "latency of the longest path"),
    Metric("macs", "MAC", MINIMIZE, False, "mean multiply-accumulates"),
    Metric("parameters", "count", MINIMIZE, False, "parameters"),
)


@final
@dataclass(frozen=True)
class MetricReference:
    """A metric, on a device where that matters: `latency_ms` (first device) or `latency_ms@phone`."""

    metric: Metric
    device: str | None

    @property
    def key(self) -> str:
        """The key in an operating point's metrics."""
        return self.metric.name if self.device is None else f"{self.metric.name}@{self.device}"


def metric_reference(text: str, devices: tuple[str, ...], path: str) -> MetricReference:
    """Resolve a reference.

    Raises:
        UnknownNameError: for an unknown metric or device.
        SpecError: for a device where none is needed.
    """
    name, at, device = text.partition("@")
    found = next((metric for metric in METRICS if metric.name == name), None)
    if found is None:
        raise UnknownNameError(path, name, [metric.name for metric in METRICS])
    if not found.on_device:
        if at:
            raise SpecError(path, f"{name} is the same on every device; write {name!r}")
        return MetricReference(found, None)
    if not at:
        return MetricReference(found, devices[0])
    if device not in devices:
        raise UnknownNameError(path, device, devices)
    return MetricReference(found, device)
