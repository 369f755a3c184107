"""Fill the latency table: measure the parts that it lacks for this device, and only those.

Every part is measured in rounds, and the rounds are spread over several processes: where weights and code
come to lie in memory is drawn once a process, and a small part may be some percent faster in one than in
another. Results are handed to the store while measuring goes on, so a run that is killed continues where
it stopped.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError
from .device import AbstractDevice, Environment, check_count
from .keys import PartKey
from .session import Session
from .timer import Clock, Protocol, Ready, RoundTiming, Task, session_of

PROCESSES = 2  # the fewest that tell how far two processes disagree

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


@final
@dataclass(frozen=True)
class Due:
    """What an entry lacks.

    Args:
        first: the number of its next round.
        now: rounds to measure in the next process.
        in_all: rounds to measure in that and all later ones.
    """

    first: int
    now: int
    in_all: int

    @classmethod
    def of(cls, visited: Mapping[str, int], *, rounds: int, processes: int) -> Due:
        """What is due when processes, by name, have made so many rounds, and none of them goes on.

        An entry needs `rounds` rounds for each of `processes` processes; what a killed one began, others end.
        """
        there = sum(visited.values())
        in_all = max(rounds * processes - there, processes - len(visited), 0)
        return cls(first=there, now=min(rounds, in_all), in_all=in_all)


Keep = Callable[[Session, Sequence[Row]], None]


class Measure(typing.Protocol):
    """Measures one session, in some process."""

    def __call__(
        self, due: Mapping[Entry, Due], *, seed: int, protocol: Protocol, keep: Keep, on_visits: Callable[[int], None]
    ) -> Session:
        """Visit every entry as often as it is due now.

        Args:
            due: all entries of the session.
            seed: order of the visits.
            protocol: how long.
            keep: takes rows for good, and the session in its state then.
            on_visits: told how many visits have been made.

        Returns:
            The session after its last canary check; it is kept already.
        """
        ...


class ProfileStore(typing.Protocol):
    """What profiling needs of a latency table."""

    def visited(
        self, keys: Sequence[str], environment_id: str, batches: Sequence[int]
    ) -> Mapping[Entry, Mapping[str, int]]:
        """Rounds of each (hash, batch) by the process that measured them; what has none may be left out.

        Rows of sessions that do not count are left out. A session that was recorded and never finished counts:
        it was killed, and its rows are good.
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


def profile(
    keys: Sequence[str],
    measure: Measure,
    *,
    device: AbstractDevice,
    store: ProfileStore,
    seed: int,
    batches: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    processes: int = PROCESSES,
    on_progress: Callable[[int, int], None] | None = None,
    attempts: int = 2,
) -> ProfileReport:
    """Measure what the store lacks for this device's environment.

    A session whose canaries drift by more than 10 % is rejected and repeated while attempts last. On a
    machine that is never quiet the last one is kept and marked `forced`: a wide interval serves a
    search better than none.

    Args:
        keys: hashes of the parts.
        measure: measures one session; each in a process of its own if there shall be more than one.
        device: where.
        store: the latency table.
        seed: order of the visits; each session adds its number.
        batches: sizes to measure at; by default what batches of the device's size need.
        protocol: how long, by default `Protocol()`; its rounds are those of one process.
        processes: in how many each entry is measured.
        on_progress: called with visits done and visits in all, over all processes.
        attempts: so many sessions in all may be rejected, of which the last and all after it are forced.

    Raises:
        SpecError: if a batch size, `processes` or `attempts` is below 1.
        StoreError: if the store fails.
    """
    protocol = protocol if protocol is not None else Protocol()
    sizes = tuple(sorted(set(batches if batches is not None else curve_batches(device.batch))))
    for name, value in (*(("batches", size) for size in sizes), ("processes", processes), ("attempts", attempts)):
        check_count(name, value)
    environment = device.environment()
    books = _Books(store, environment, on_progress)
    sessions: list[Session] = []
    rejected = 0
    while due := books.due(keys, sizes, rounds=protocol.rounds, processes=processes):
        session = measure(due, seed=seed + len(sessions), protocol=protocol, keep=books.keep, on_visits=books.show)
        if not session.accepted:
            rejected += 1
            if rejected >= attempts:
                session = replace(session, forced=True)
                store.record(environment, session, ())
        sessions.append(session)
    return ProfileReport(environment.environment_id, tuple(sessions), books.visits, books.complete)


@final
class _Books:
    """Counts what one call of `profile` finds, measures and still has to do."""

    def __init__(
        self, store: ProfileStore, environment: Environment, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self.visits = self.complete = 0
        self._store = store
        self._environment = environment
        self._on_progress = on_progress
        self._before = self._total = 0
        self._begun = False

    def due(self, keys: Sequence[str], sizes: Sequence[int], *, rounds: int, processes: int) -> dict[Entry, Due]:
        """What the store still lacks."""
        names = tuple(dict.fromkeys(keys))
        visited = self._store.visited(names, self._environment.environment_id, sizes)
        each = {
            (key, size): Due.of(visited.get((key, size), {}), rounds=rounds, processes=processes)
            for key in names
            for size in sizes
        }
        found = {entry: due for entry, due in each.items() if due.now > 0}
        if not self._begun:
            self._begun, self.complete = True, len(each) - len(found)
        self._before = self.visits
        self._total = self.visits + sum(due.in_all for due in found.values())
        return found

    def keep(self, session: Session, rows: Sequence[Row]) -> None:
        """Hand rows and session to the store."""
        self._store.record(self._environment, session, rows)
        self.visits += len(rows)

    def show(self, done: int) -> None:
        """Tell how many visits the present session has made."""
        if self._on_progress is not None:
            self._on_progress(self._before + done, self._total)


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
    ready: Ready | None = None,
) -> NDArray[np.float64]:
    """Time a whole routed network on each of `n` inputs.

    Args:
        run: runs the network on the input (or batch) of that number.
        n: how many.
        rounds: visits to every input, each round in a new order.
        device: whose session and synchronisation to use.
        seed: the orders.
        clock: nanoseconds.
        warmup_calls: calls before each round's first timed one.
        ready: waits for a good moment, before each call; what it ran is then in the caches, beside the network.

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
            for index, elapsed in _timed(run, order, device, clock, ready):
                best[index] = min(best[index], elapsed / 1e6)
    return best


def _timed(
    run: Callable[[int], object], order: Iterable[int], device: AbstractDevice, clock: Clock, ready: Ready | None
) -> Iterable[tuple[int, int]]:
    for index in order:
        if ready is not None:
            ready()
        start = clock()
        run(index)
        device.synchronize()
        yield index, clock() - start
