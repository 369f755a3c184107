"""Measured latencies of one device and software environment after another, versioned by content."""

from __future__ import annotations

from .entities import (
    FULL,
    Density,
    Entry,
    Source,
    StoredCorrection,
    TableSummary,
    TableVersion,
    Visited,
)
from .store import LATENCY_TABLE, LatencyTable

__all__ = [
    "FULL",
    "LATENCY_TABLE",
    "Density",
    "Entry",
    "LatencyTable",
    "Source",
    "StoredCorrection",
    "TableSummary",
    "TableVersion",
    "Visited",
]
