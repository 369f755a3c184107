"""Events: what a driver tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Event:
    """Something a watcher may want to show.

    Args:
        phase: what is going on.
        done, total: how far; `total` is 0 if unknown.
        stopped, failed: candidates that ended so.
        hypervolume: share of the reference box.
    """

    phase: str
    done: int = 0
    total: int = 0
    stopped: int = 0
    failed: int = 0
    hypervolume: float | None = None


Watcher = Callable[[Event], None]
