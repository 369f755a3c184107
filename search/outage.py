"""Outage: what a driver does while a store is away, which is to wait, and to give up when waiting is no use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import final

from ..spaces.errors import StoreError

PATIENCE_SECONDS = 300.0  # for one outage
PAUSE_SECONDS = 2.0  # between two looks
IN_VAIN = 3  # times that a store fails again although nothing was achieved in between


@final
class Outage:
    """Waits for a store that failed.

    Args:
        ask: says that the driver is alive; raises `StoreError` while the store is away.
        progress: anything that changes when the search gets on.
        stopping: set once somebody wants the search to end.
        patience_seconds: how long one outage may last.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        ask: Callable[[], None],
        progress: Callable[[], object],
        *,
        stopping: threading.Event,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._progress = progress
        self._stopping = stopping
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._before: object = None
        self._in_vain = 0

    def wait(self, error: StoreError) -> None:
        """Return once it is worth starting again.

        Raises:
            StoreError: the given one, if the store stays away, or fails again and again without any progress.
        """
        since = self._clock()
        while not self._answers():
            if self._clock() - since > self._patience_seconds or self._stopping.wait(PAUSE_SECONDS):
                raise error
        if self._in_vain >= IN_VAIN or self._stopping.wait(self._in_vain * PAUSE_SECONDS):
            raise error

    def _answers(self) -> bool:
        """Whether the store is there; if so, whether anything was achieved since it failed the last time."""
        try:
            self._ask()
            now = self._progress()
        except StoreError:
            return False
        self._in_vain = self._in_vain + 1 if now == self._before else 0
        self._before = now
        return True
