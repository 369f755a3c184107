"""One durable record of every evaluation, in SQLite or PostgreSQL."""

from __future__ import annotations

from .entities import (
    EVALUATION_STATES,
    SEARCH_STATUSES,
    TERMINAL_STATES,
    Counts,
    Evaluation,
    EvaluationState,
    Event,
    NewPoint,
    Point,
    PointKey,
    Rung,
    Search,
    SearchStatus,
    TerminalState,
)
from .store import LEDGER, Ledger

__all__ = [
    "EVALUATION_STATES",
    "LEDGER",
    "SEARCH_STATUSES",
    "TERMINAL_STATES",
    "Counts",
    "Evaluation",
    "EvaluationState",
    "Event",
    "Ledger",
    "NewPoint",
    "Point",
    "PointKey",
    "Rung",
    "Search",
    "SearchStatus",
    "TerminalState",
]
