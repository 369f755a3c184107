"""One stopwatch at a time: whoever times something on this machine waits until nobody else does."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..spaces.errors import StoreError

if sys.platform != "win32":
    import fcntl

WAIT_SECONDS: Final = 0.25  # between two attempts
_LONGEST_NUMBER: Final = 20


def _nothing(holder: str) -> None:
    """What is done while waiting by who has nothing to do."""


@contextmanager
def turn(
    *,
    on_wait: Callable[[str], None] = _nothing,
    folder: Path | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold this machine's stopwatch; two that measure at once would measure each other.

    It is given back when the process ends, however that comes about. Where files cannot be locked, nobody waits.

    Args:
        on_wait: called again and again while another process holds it, with its number; may raise to give up.
        folder: where the lock is; by default the folder for temporary files, which all processes of a user share.
        pause: waits that many seconds between two attempts.

    Raises:
        StoreError: if the lock cannot be made.
    """
    if sys.platform == "win32":
        yield
        return
    place = (folder or Path(tempfile.gettempdir())) / f"dynarch-stopwatch-{os.getuid()}.lock"
    try:
        # Not through a link that somebody else put there; and not inherited by processes that are started.
        held = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"measuring needs a lock that is a file of its own, but {place} gave {error.strerror!r}; remove it, or set"
            " TMPDIR to a folder that can be written"
        ) from None
    try:
        while not _taken(held):
            on_wait(os.pread(held, _LONGEST_NUMBER, 0).decode("ascii", errors="replace").strip())
            pause(WAIT_SECONDS)
        os.pwrite(held, str(os.getpid()).ljust(_LONGEST_NUMBER).encode(), 0)
        yield
    finally:
        os.close(held)


def _taken(held: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
