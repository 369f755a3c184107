"""The timing protocol: many short tasks, in interleaved and shuffled rounds, on one clock.

A busy machine slows a whole stretch of time, not one task: timing a task to the end before the next
would book that stretch on whoever was running. So every round visits all tasks in a new order, each
for a few milliseconds, and a task's value comes from its best round.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import ClassVar, final

import numpy as np

from ..spaces.errors import SpecError
from .device import AbstractDevice, Statistic, collection_paused

Clock = Callable[[], int]
Task = Callable[[], object]
Ready = Callable[[], object]
"""Returns when it is a good moment to sample, such as `Sentinel.wait`."""

READY_EVERY_NS = 5_000_000  # of sampling: fast spells of a shared core last some milliseconds at least


@final
@dataclass(frozen=True)
class Lazy:
    """A task that is built just before it is timed and dropped after, so that thousands fit in memory."""

    make: Callable[[], Task]


@final
@dataclass(frozen=True)
class Protocol:
    """How long each task is run.

    Args:
        rounds: visits to every task.
        warmup_calls: least calls before sampling, per visit.
        warmup_ms: least time before sampling, per visit.
        min_samples: least samples, per visit.
        min_ms: least sampled time, per visit.
        cap_ms: a visit's warm-up and its sampling each end after this time, with at least one sample.
        max_samples: most samples, per visit; bounds the memory that very short tasks take.

    Raises:
        SpecError: if a count is below 1, or a time is not finite or is below 0.
    """

    VERSION: ClassVar[int] = 1

    rounds: int = 3
    warmup_calls: int = 3
    warmup_ms: float = 5.0
    min_samples: int = 15
    min_ms: float = 20.0
    cap_ms: float = 500.0
    max_samples: int = 20_000

    def __post_init__(self) -> None:
        for name in ("rounds", "warmup_calls", "min_samples", "max_samples"):
            if getattr(self, name) < 1:
                raise SpecError(f"protocol.{name}", f"must be at least 1, but got {getattr(self, name)}")
        for name in ("warmup_ms", "min_ms", "cap_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"protocol.{name}", f"must be finite and at least 0, but got {value}")

    def to_dict(self) -> dict[str, int | float]:
        """Version and every setting, as plain data."""
        return {"version": self.VERSION, **asdict(self)}


@final
@dataclass(frozen=True)
class RoundTiming:
    """One visit to one task, in nanoseconds a call; `mad_ns` is the median absolute deviation."""

    n: int
    min_ns: int
    p10_ns: int
    median_ns: int
    mean_ns: int
    p90_ns: int
    max_ns: int
    mad_ns: int

    @classmethod
    def of(cls, samples_ns: list[int]) -> RoundTiming:
        """Summarise at least one sample."""
        samples = np.asarray(samples_ns, dtype=np.int64)
        p10, median, p90 = np.percentile(samples, (10, 50, 90))
        return cls(
            n=len(samples),
            min_ns=int(samples.min()),
            p10_ns=round(p10),
            median_ns=round(median),
            mean_ns=round(samples.mean()),
            p90_ns=round(p90),
            max_ns=int(samples.max()),
            mad_ns=round(np.median(np.abs(samples - median))),
        )

    def value_ns(self, statistic: Statistic) -> int:
        """What the round says about the undisturbed latency."""
        return self.min_ns if statistic == "min" else self.median_ns


@final
@dataclass(frozen=True)
class Timing:
    """All rounds of one task."""

    key: str
    rounds: tuple[RoundTiming, ...]
    statistic: Statistic = "min"

    @property
    def value_ms(self) -> float:
        """Isolated latency: the best round by the device's statistic, the minimum on a CPU."""
        return min(timing.value_ns(self.statistic) for timing in self.rounds) / 1e6

    @property
    def spread(self) -> float:
        """How far the worst round lies above the best, as a fraction: the noise of this measurement."""
        values = [timing.value_ns(self.statistic) for timing in self.rounds]
        return max(values) / min(values) - 1 if min(values) > 0 else 0.0


@final
@dataclass(frozen=True)
class Visit:
    """One task, timed once."""

    round: int
    key: str
    timing: RoundTiming


def time_task(
    task: Task, protocol: Protocol, *, clock: Clock, device: AbstractDevice | None = None, ready: Ready | None = None
) -> RoundTiming:
    """Warm `task` up and time it once; the caller has entered the device's session.

    `ready` is asked before the first sample, and again whenever some milliseconds were sampled.
    """
    synchronize = device.synchronize if device is not None else _nothing
    cap_ns = protocol.cap_ms * 1e6
    calls, began, elapsed = 0, clock(), 0
    while calls < protocol.max_samples and (calls < protocol.warmup_calls or elapsed < protocol.warmup_ms * 1e6):
        task()
        synchronize()
        calls, elapsed = calls + 1, clock() - began
        if elapsed >= cap_ns:
            break
    samples: list[int] = []
    total, since = 0, READY_EVERY_NS
    while len(samples) < protocol.max_samples and (
        len(samples) < protocol.min_samples or total < protocol.min_ms * 1e6
    ):
        if ready is not None and since >= READY_EVERY_NS:
            ready()
            since = 0
        start = clock()
        task()
        synchronize()  # before the clock is read: an accelerator returns before it is done
        samples.append(clock() - start)
        total += samples[-1]
        since += samples[-1]
        if total >= cap_ns:
            break
    return RoundTiming.of(samples)


def time_rounds(
    tasks: Mapping[str, Task | Lazy],
    *,
    protocol: Protocol,
    seed: int,
    clock: Clock = time.perf_counter_ns,
    device: AbstractDevice | None = None,
    due: Mapping[str, int] | None = None,
    ready: Ready | None = None,
) -> Iterator[Visit]:
    """Time the tasks visit by visit, so that the caller can keep each result at once.

    The device's session is entered for each visit alone: between two of them the caller's own code
    runs as usual, and may stop for good without anything left to clean up.

    Args:
        tasks: what to time, by key.
        protocol: how long.
        seed: order of the visits.
        clock: nanoseconds.
        device: whose session and synchronisation to use; none for plain host code.
        due: how many of the protocol's rounds each task still needs; all of them if absent.
        ready: waits for a good moment.
    """
    due = due if due is not None else dict.fromkeys(tasks, protocol.rounds)
    for index in range(max(due.values(), default=0)):
        order = sorted(key for key in tasks if due.get(key, 0) > index)
        random.Random(f"{seed}/{index}").shuffle(order)
        for key in order:
            with session_of(device):
                entry = tasks[key]
                task = entry.make() if isinstance(entry, Lazy) else entry
                timing = time_task(task, protocol, clock=clock, device=device, ready=ready)
                del task
            yield Visit(index, key, timing)


def measure(
    tasks: Mapping[str, Task | Lazy],
    *,
    protocol: Protocol,
    seed: int,
    clock: Clock = time.perf_counter_ns,
    device: AbstractDevice | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_round: Callable[[int, Mapping[str, RoundTiming]], None] | None = None,
    ready: Ready | None = None,
) -> dict[str, Timing]:
    """Time all tasks in interleaved rounds.

    Args:
        tasks: what to time, by key; `Lazy` ones are built when their turn comes.
        protocol: how long.
        seed: order of the visits.
        clock: nanoseconds.
        device: whose session and synchronisation to use.
        on_progress: called with visits done and visits in all.
        on_round: called after each round with its number and timings.
        ready: waits for a good moment.

    Returns:
        One timing a key, in the order of `tasks`.
    """
    rounds: dict[str, list[RoundTiming]] = {key: [] for key in tasks}
    current: dict[str, RoundTiming] = {}
    visits = time_rounds(tasks, protocol=protocol, seed=seed, clock=clock, device=device, ready=ready)
    for done, visit in enumerate(visits, start=1):
        rounds[visit.key].append(visit.timing)
        current[visit.key] = visit.timing
        if on_progress is not None:
            on_progress(done, len(tasks) * protocol.rounds)
        if len(current) == len(tasks):
            if on_round is not None:
                on_round(visit.round, current)
            current = {}
    statistic: Statistic = device.statistic if device is not None else "min"
    return {key: Timing(key, tuple(timings), statistic) for key, timings in rounds.items()}


def session_of(device: AbstractDevice | None) -> AbstractContextManager[None]:
    """The device's session; for host code only the collector is paused."""
    return device.session() if device is not None else collection_paused()


def _nothing() -> None:
    """The synchronisation of code that needs none."""
