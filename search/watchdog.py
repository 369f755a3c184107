"""Watchdog: ends the process of a candidate that has run for too long, whatever it hangs in.

A thread of the interpreter could not: code that hangs outside of Python may never let it run. `faulthandler` has a
thread of its own, which writes where the process hangs into a note and ends it. Whoever takes the candidate next, after
the worker was replaced, finds the note and does not try again.
"""

from __future__ import annotations

import faulthandler
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, final

from ..spaces.errors import EvaluationFailed

NOTE = "overdue.txt"


@final
class Watchdog:
    """One attempt at a candidate. It watches while it is entered, which may be several times.

    Args:
        folder: of the candidate.
        limit_seconds: from now, time between two entries included.
        clock: seconds, for durations.

    Raises:
        EvaluationFailed: on entering, if the time is over, or was over in the process that had it before.
    """

    def __init__(self, folder: Path, limit_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._note = folder / NOTE
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._until = clock() + limit_seconds
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Watchdog:
        if self._note.exists() and (told := self._note.read_text(errors="replace")):
            raise EvaluationFailed(self._overdue(_place(told)))
        self.check()
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._note.open("wb")
        faulthandler.dump_traceback_later(max(0.001, self._until - self._clock()), exit=True, file=self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._stream is not None:
            self._stream.close()
        self._note.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise once the time is over: cheaper than to end the process, where somebody can ask."""
        if self._clock() > self._until:
            raise EvaluationFailed(self._overdue(""))

    def _overdue(self, where: str) -> str:
        minutes = f"{self._limit_seconds / 60:.3g}"
        return f"it ran for more than the {minutes} minutes that budget.candidate_minutes allows{where}"


def _place(note: str) -> str:
    """Where the candidate was: the innermost line of the thread that worked on it."""
    threads = note.split("Thread 0x")
    own = next((thread for thread in threads if "worker.py" in thread), threads[-1])
    found = re.search(r'File "([^"]+)", line (\d+)', own)
    return "" if found is None else f", and hung at {Path(found[1]).name}:{found[2]}"
