"""What a test run puts away when it ends.

Not `atexit`: a process of pytest-xdist has ten seconds for that on a busy machine, and is then killed.
"""

from __future__ import annotations

from collections.abc import Callable

_ENDINGS: list[Callable[[], object]] = []


def at_end(action: Callable[[], object]) -> None:
    """Do this after the last test of this process; what was asked for last is done first."""
    _ENDINGS.append(action)


def end() -> None:
    """Do it all, once."""
    while _ENDINGS:
        _ENDINGS.pop()()
