"""Fill the latency table: measure the parts that it lacks for this device, and only those.

Results are handed to the store while measuring goes on, so a run that is killed continues where it
stopped.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import final

import numpy as np

from ..spaces.errors import DataError
from .correction import Floats
from .device import AbstractDevice, Environment, check_count
from .keys import PartKey
from .session import Session, canaries, check_canaries, open_session
from .timer import Clock, Lazy, Protocol, RoundTiming, Task, session_of, time_rounds

# Rows are handed over at the end of each round and whenever so many are waiting: what a killed
# process loses.
ROWS_WAITING = 64

Entry = tuple[str, int]  # hash of a part's key, batch size


@final
@dataclass(frozen=True)
class Measurable:
    """A part that can be timed: its key, and how to build it, inputs included, for a batch size.

    `make` is called inside the device's session, and places weights and inputs on the device itself.
    """

    key: PartKey
    make: Callable[[int], Task]


@final
@dataclass(frozen=True)
class Row:
    """One visit to one part at one batch size; `round` counts from 0 over all sessions of that entry."""

    key: PartKey
    batch: int
    round: int
    timing: RoundTiming


class ProfileStore(typing.Protocol):
    """What profiling needs of a latency table."""

    def missing(
        self, keys: Sequence[str], environment_id: str, batches: Sequence[int], *, rounds: int
    ) -> Mapping[Entry, int]:
        """How many of `rounds` rounds each (hash, batch) still lacks; complete ones may be left out.

        Rows of sessions that are not `accepted` do not count. A session that was recorded and never
        finished is accepted: it was killed, and its rows are good.
        """
        ...

    def record(self, environment: Environment, session: Session, rows: Sequence[Row]) -> None:
        """Keep the rows for good, and the session in its present state, replacing an earlier one."""
        ...


@final
@dataclass(frozen=True)
class ProfileReport:
    """What one call of `profile` did.

    Args:
        environment_id: where the entries belong.
        sessions: in order; empty if nothing was missing.
        visits: rows recorded.
        complete: entries that were in the table already.
    """

    environment_id: str
    sessions: tuple[Session, ...]
    visits: int
    complete: int


@final
class _Writer:
    """Hands rows to the store in small groups."""

    def __init__(self, store: ProfileStore, environment: Environment, session: Session) -> None:
        self.session = session
        self._store = store
        self._environment = environment
        self._waiting: list[Row] = []

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= ROWS_WAITING:
            self.flush()

    def flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if rows:
            self._store.record(self._environment, self.session, rows)

    def update(self, session: Session) -> None:
        """Hand over what is waiting, with the session's new state."""
        self.session = session
        rows, self._waiting = self._waiting, []
        self._store.record(self._environment, session, rows)


def profile(
    measurables: Sequence[Measurable],
    *,
    device: AbstractDevice,
    store: ProfileStore,
    seed: int,
    batches: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    clock: Clock = time.perf_counter_ns,
    on_progress: Callable[[int, int], None] | None = None,
    canary_tasks: Mapping[str, Task] | None = None,
    attempts: int = 2,
) -> ProfileReport:
    """Measure what the store lacks for this device's environment.

    A session whose canaries drift by more than 10 % is rejected and repeated while attempts last. On a
    machine that is never quiet the last one is kept and marked `forced`: a wide interval serves a
    search better than none.

    Args:
        measurables: parts; of equal keys one is measured.
        device: where.
        store: the latency table.
        seed: order of the visits.
        batches: sizes to measure at; by default what batches of the device's size need.
        protocol: how long, by default `Protocol()`.
        clock: nanoseconds.
        on_progress: called with visits done and visits in all of the present attempt.
        canary_tasks: fixed workloads that tell drift; the standard five if absent.
        attempts: most sessions.

    Raises:
        SpecError: if a batch size or `attempts` is below 1.
        StoreError: if the store fails.
    """
    protocol = protocol if protocol is not None else Protocol()
    sizes = tuple(sorted(set(batches if batches is not None else curve_batches(device.batch))))
    for name, value in (*(("batches", size) for size in sizes), ("attempts", attempts)):
        check_count(name, value)
    parts = {measurable.key.hash: measurable for measurable in measurables}
    environment = device.environment()
    sessions: list[Session] = []
    visits = complete = 0
    for attempt in range(attempts):
        lacking = store.missing(tuple(parts), environment.environment_id, sizes, rounds=protocol.rounds)
        due = {entry: count for entry, count in lacking.items() if count > 0}
        if attempt == 0:
            complete = len(parts) * len(sizes) - len(due)
        if not due:
            break
        writer = _Writer(store, environment, open_session(seed, protocol))
        tasks = canary_tasks if canary_tasks is not None else canaries(device)
        run = _Run(parts, due, device, protocol, clock, tasks)
        visits += run.measure(writer, on_progress)
        session = replace(writer.session, finished=True)
        if not session.accepted and attempt == attempts - 1:
            session = replace(session, forced=True)
        writer.update(session)
        sessions.append(session)
    return ProfileReport(environment.environment_id, tuple(sessions), visits, complete)


@final
@dataclass(frozen=True)
class _Run:
    """One session's measuring."""

    parts: Mapping[str, Measurable]
    due: Mapping[Entry, int]
    device: AbstractDevice
    protocol: Protocol
    clock: Clock
    canary_tasks: Mapping[str, Task]

    def measure(self, writer: _Writer, on_progress: Callable[[int, int], None] | None) -> int:
        """Visit every entry as often as it is due; the number of visits."""
        total, done = sum(self.due.values()), 0
        names = {f"{key}/{batch}": (key, batch) for key, batch in self.due}
        rounds = time_rounds(
            {name: Lazy(self._maker(entry)) for name, entry in names.items()},
            protocol=self.protocol,
            seed=writer.session.seed,
            clock=self.clock,
            device=self.device,
            due={name: self.due[entry] for name, entry in names.items()},
        )
        middle = max(self.due.values()) // 2
        # Thrown away: the first calls of a process are slow, and would look like a machine that got faster.
        check_canaries(self.canary_tasks, self.device, clock=self.clock)
        self._check(writer)
        try:
            for index, visits in groupby(rounds, key=lambda visit: visit.round):
                if index == middle and index > 0:
                    self._check(writer)
                for visit in visits:
                    key, batch = names[visit.key]
                    first = self.protocol.rounds - self.due[key, batch]
                    writer.add(Row(self.parts[key].key, batch, first + visit.round, visit.timing))
                    done += 1
                    if on_progress is not None:
                        on_progress(done, total)
                writer.flush()
        finally:
            writer.flush()
        self._check(writer)
        return done

    def _maker(self, entry: Entry) -> Callable[[], Task]:
        key, batch = entry
        return lambda: self.parts[key].make(batch)

    def _check(self, writer: _Writer) -> None:
        values = check_canaries(self.canary_tasks, self.device, clock=self.clock)
        writer.update(writer.session.checked(values))


def curve_batches(batch: int) -> tuple[int, ...]:
    """Sizes that let every number of inputs left in a batch (or of rows) be interpolated: powers of two, and itself."""
    return tuple(sorted({*(2**power for power in range(batch.bit_length())), batch}))


def time_network(
    run: Callable[[int], object],
    n: int,
    *,
    rounds: int,
    device: AbstractDevice,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
    warmup_calls: int = 3,
) -> Floats:
    """Time a whole routed network on each of `n` inputs.

    Args:
        run: runs the network on the input (or batch) of that number.
        n: how many.
        rounds: visits to every input, each round in a new order.
        device: whose session and synchronisation to use.
        seed: the orders.
        clock: nanoseconds.
        warmup_calls: calls before each round's first timed one.

    Returns:
        `n` milliseconds: of each input the fastest round, as neighbours only ever add time.

    Raises:
        DataError: if `n` or `rounds` is below 1.
    """
    if n < 1 or rounds < 1:
        raise DataError("time_network", f"n and rounds must be at least 1, but got n={n}, rounds={rounds}")
    rng = np.random.default_rng(seed)
    best = np.full(n, np.inf)
    for _ in range(rounds):
        order = [int(index) for index in rng.permutation(n)]
        with session_of(device):
            for index in order[:1] * warmup_calls:
                run(index)
            device.synchronize()
            for index, elapsed in _timed(run, order, device, clock):
                best[index] = min(best[index], elapsed / 1e6)
    return best


def _timed(
    run: Callable[[int], object], order: Iterable[int], device: AbstractDevice, clock: Clock
) -> Iterable[tuple[int, int]]:
    for index in order:
        start = clock()
        run(index)
        device.synchronize()
        yield index, clock() - start
