"""Measured latencies of one device and software environment after another, versioned by content."""

from __future__ import annotations

from .contents import Added, StoredMeasurement, StoredSession, TableContents, contents_hash
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
    "Added",
    "Density",
    "Entry",
    "LatencyTable",
    "Source",
    "StoredCorrection",
    "StoredMeasurement",
    "StoredSession",
    "TableContents",
    "TableSummary",
    "TableVersion",
    "Visited",
    "contents_hash",
]
