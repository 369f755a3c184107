"""One session of measuring in this process: shuffled rounds between checks of the canaries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import final

from .device import AbstractDevice
from .profile import Due, Entry, Keep, Measurable, Row
from .session import Session, canaries, check_canaries, open_session
from .steadiness import sentinel_of
from .timer import Clock, Lazy, Protocol, Ready, Task, Visit, time_rounds

# Rows are handed over at the end of each round, whenever so many are waiting, and when the first of them has
# waited so long: what a killed process loses.
ROWS_WAITING = 64
WAITING_NS = 1_000_000_000


@final
@dataclass(frozen=True)
class InThisProcess:
    """Measures here and now.

    Args:
        measurables: parts; of equal keys one is used.
        device: where.
        clock: nanoseconds.
        canary_tasks: fixed workloads that tell drift; the standard five if absent.
    """

    measurables: Sequence[Measurable]
    device: AbstractDevice
    clock: Clock = time.perf_counter_ns
    canary_tasks: Mapping[str, Task] | None = None

    def __call__(
        self, due: Mapping[Entry, Due], *, seed: int, protocol: Protocol, keep: Keep, on_visits: Callable[[int], None]
    ) -> Session:
        """Visit every entry as often as it is due now."""
        parts = {each.key.hash: each for each in self.measurables}
        names = {f"{key}/{batch}": (key, batch) for key, batch in due}
        writer = _Writer(open_session(seed, protocol), keep, self.clock)
        ready = self._ready()
        visits = time_rounds(
            {name: Lazy(_maker(parts[key], batch)) for name, (key, batch) in names.items()},
            protocol=protocol,
            seed=seed,
            clock=self.clock,
            device=self.device,
            due={name: due[entry].now for name, entry in names.items()},
            ready=ready,
        )
        check = self._checking(writer, ready)
        middle = max(each.now for each in due.values()) // 2
        check()
        try:
            done = 0
            for index, of_round in groupby(visits, key=lambda visit: visit.round):
                if index == middle and index > 0:
                    check()
                for visit in of_round:
                    writer.add(_row(visit, names[visit.key], parts, due))
                    done += 1
                    on_visits(done)
                writer.flush()
        finally:
            writer.flush()
        check()
        writer.update(replace(writer.session, finished=True))
        return writer.session

    def _ready(self) -> Ready | None:
        """Waits out slow spells; canaries of the caller's own tell of no machine that could have any."""
        sentinel = sentinel_of(self.device, clock=self.clock) if self.canary_tasks is None else None
        return None if sentinel is None else sentinel.wait

    def _checking(self, writer: _Writer, ready: Ready | None) -> Callable[[], None]:
        tasks = self.canary_tasks if self.canary_tasks is not None else canaries(self.device)
        # Thrown away: the first calls of a process are slow, and would look like a machine that got faster.
        check_canaries(tasks, self.device, clock=self.clock)

        def check() -> None:
            values = check_canaries(tasks, self.device, clock=self.clock, ready=ready)
            writer.update(writer.session.checked(values))

        return check


def _maker(part: Measurable, batch: int) -> Callable[[], Task]:
    return lambda: part.make(batch)


def _row(visit: Visit, entry: Entry, parts: Mapping[str, Measurable], due: Mapping[Entry, Due]) -> Row:
    key, batch = entry
    return Row(parts[key].key, batch, due[entry].first + visit.round, visit.timing)


@final
class _Writer:
    """Hands rows over in small groups."""

    def __init__(self, session: Session, keep: Keep, clock: Clock) -> None:
        self.session = session
        self._keep = keep
        self._clock = clock
        self._waiting: list[Row] = []
        self._since = 0

    def add(self, row: Row) -> None:
        if not self._waiting:
            self._since = self._clock()
        self._waiting.append(row)
        if len(self._waiting) >= ROWS_WAITING or self._clock() - self._since >= WAITING_NS:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self.update(self.session)

    def update(self, session: Session) -> None:
        """Hand over what is waiting, with the session's new state."""
        self.session = session
        rows, self._waiting = self._waiting, []
        self._keep(session, rows)
