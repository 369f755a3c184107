"""Lease: one driver a search, held by a heartbeat, free again when its holder is known to be dead."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import final

from ..spaces.errors import SearchBusyError, StoreError
from .ledger.store import Ledger

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 5.0
GONE, UNKNOWN = "gone", "?"  # of a process, where others have the tick at which they began


@final
class Lease:
    """The right to drive a search, while it is entered.

    Args:
        ledger: where it is recorded.
        search_id: the search.
        on_stop: called, from another thread, once somebody asks for the end of the search or takes it over.
        clock: epoch seconds.
        beat_seconds: between two heartbeats.

    Raises:
        SearchBusyError: on entering, if another live driver holds the search.
    """

    def __init__(
        self,
        ledger: Ledger,
        search_id: str,
        *,
        on_stop: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        beat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.lost: SearchBusyError | None = None
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{_begun(os.getpid())}-{secrets.token_hex(4)}"
        self._ledger = ledger
        self._search_id = search_id
        self._on_stop = on_stop
        self._clock = clock
        self._beat_seconds = beat_seconds
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        release_if_dead(self._ledger, self._search_id)
        self._ledger.acquire(self._search_id, self.holder, now=self._clock(), ttl_seconds=LEASE_SECONDS)
        self._ledger.claims[self._search_id] = self.holder
        self._over.clear()
        self._thread = threading.Thread(target=self._beat, name="dynarch-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._ledger.claims.pop(self._search_id, None)
        with suppress(StoreError):  # then it runs out by itself, or is found to be a dead process's
            self._ledger.release(self._search_id, self.holder)

    def beat(self) -> None:
        """Say that this driver is alive.

        Raises:
            SearchBusyError: if another one has taken the search over.
            StoreError: if the ledger cannot be written.
        """
        self._ledger.heartbeat(self._search_id, self.holder, now=self._clock())

    def _beat(self) -> None:
        while not self._over.wait(self._beat_seconds):
            try:
                self.beat()
                if self._ledger.cancel_requested(self._search_id):
                    self._on_stop("cancelled on request")
            except SearchBusyError as error:
                self.lost = error
                self._on_stop("another driver took the search over")
                return
            except StoreError:
                continue  # a database that is busy or away for a moment; the lease lasts for many heartbeats


def release_if_dead(ledger: Ledger, search_id: str) -> bool:
    """Free a search whose holder was a process of this very machine and is gone; whether it is free now."""
    holder = ledger.search(search_id).holder
    if holder is None:
        return True
    place, _, mark = holder.rpartition(":")
    host, _, process = place.rpartition(":")
    if host != socket.gethostname() or not process.isdigit() or _alive(int(process), mark.rpartition("-")[0]):
        return False
    return ledger.release(search_id, holder)


def _alive(pid: int, begun: str) -> bool:
    """Whether the process of that number lives and is the one that began then, as numbers come again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _begun(pid)
    return now != GONE and (begun in ("", UNKNOWN) or now in (UNKNOWN, begun))


def _begun(pid: int) -> str:
    """When a process began, in ticks since the machine started; where Linux's /proc is absent this is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return GONE if Path("/proc/self/stat").exists() else UNKNOWN
    except OSError:
        return UNKNOWN
    return GONE if fields[0] in "ZX" else fields[19]  # a zombie is dead, and waits for its parent to hear of it
