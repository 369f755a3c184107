"""Whether the machines of a search still run as they did when their latency tables were measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, final

from ..hardware.book import LatencyBook
from ..hardware.device import AbstractDevice
from ..hardware.drift import Shift, Watch, shift
from ..hardware.session import Session
from ..hardware.table import LatencyTable
from ..spaces.errors import StoreError

LOG = logging.getLogger("dynarch")
_LOOKS: Final = 3


@final
class Machines:
    """Looks at the canaries of every device while a front is timed.

    Args:
        devices: by name.
        book: which table versions the predictions rest on.
        table: where the sessions of these versions are.
    """

    def __init__(self, devices: Mapping[str, AbstractDevice], book: LatencyBook, table: LatencyTable) -> None:
        self._book = book
        self._table = table
        self._watches = {name: Watch(device) for name, device in devices.items()}

    def look(self) -> None:
        """Time every device's canaries, more than once, as one look may meet a neighbour."""
        for watch in self._watches.values():
            for _ in range(_LOOKS):
                watch.look()

    def shifts(self) -> dict[str, Shift]:
        """How each machine has changed since its table was measured, where that is known; a change is logged."""
        found: dict[str, Shift] = {}
        for name, watch in self._watches.items():
            change = shift(watch.session, self.sessions(name))
            if change is not None:
                found[name] = change
                (LOG.warning if change.drifted else LOG.info)("%s: %s", name, change)
        return found

    def sessions(self, name: str) -> list[Session]:
        """Those that measured a device's pages."""
        pages = self._book.devices[name]
        try:
            kept = self._table.kept_sessions(pages.environment_id, version=pages.table_version)
        except StoreError:  # the search has its book, and may outlive the table it was read from
            return []
        return [session for session, _ in kept.values()]


def drift_notes(shifts: Mapping[str, Shift]) -> list[str]:
    """What a report says of machines that have changed."""
    return [
        f"Drift on {name}: {change}. Measured latencies differ from predicted ones by that too; the next profile"
        " measures the table again."
        for name, change in shifts.items()
        if change.drifted
    ]
