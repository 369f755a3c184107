"""Drift: does the machine still run as it did when its latency table was measured?

The canaries of every session are kept with it. Timed again, they tell how much faster or slower the machine
is now, by which an error of the table can be told from a change of the machine.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from .device import AbstractDevice, Environment
from .session import Session, best_checks, canaries, check_canaries, open_session
from .steadiness import sentinel_of
from .timer import Clock, Task
from .timer import Protocol as Timing

AT_LEAST: Final = 0.05  # two processes of an unchanged machine differ by less
LOOKS: Final = 6  # at a machine that seems to have changed: neighbours come and go, and only ever add time
PAUSE_SECONDS: Final = 1.0  # between them


@final
@dataclass(frozen=True)
class Shift:
    """How the machine runs now, beside how it ran.

    Args:
        change: of the time that the same work takes, as a fraction: 0.1 is 10 % slower, -0.1 is faster.
        noise: a change of less than this says nothing.
    """

    change: float
    noise: float

    @property
    def drifted(self) -> bool:
        """Whether the machine has changed; judged on the logarithm, where slower and faster are alike."""
        return abs(math.log1p(self.change)) > math.log1p(self.noise)

    def __str__(self) -> str:
        """For people."""
        if not self.drifted:
            return f"the machine ran as it did when the table was measured (within {100 * self.noise:.0f} %)"
        word = "slower" if self.change > 0 else "faster"
        return f"the machine ran {100 * abs(self.change):.1f} % {word} than when the table was measured"


def shift(now: Session, then: Sequence[Session]) -> Shift | None:
    """How a machine changed, by the canaries of a session and of earlier ones; None if they have none in common.

    The best check of each canary counts, as a table's entries are best rounds, and the median of the canaries, as
    one may meet a neighbour. The noise is what the best checks of one session differ by.
    """
    before, after = best_checks(then), best_checks([now])
    ratios = [after[name] / before[name] for name in after.keys() & before.keys()]
    if not ratios:
        return None
    change = math.exp(statistics.median(map(math.log, ratios))) - 1
    return Shift(change, max(AT_LEAST, now.scatter, *(each.scatter for each in then)))


@final
class Watch:
    """Looks at a machine's canaries, as often as it is asked to.

    Args:
        device: whose machine.
        clock: nanoseconds.
        canary_tasks: fixed workloads; the standard five if absent.
    """

    def __init__(
        self,
        device: AbstractDevice,
        *,
        clock: Clock = time.perf_counter_ns,
        canary_tasks: Mapping[str, Task] | None = None,
    ) -> None:
        self.session = open_session(0, Timing(rounds=1))
        self._device = device
        self._clock = clock
        self._tasks = canary_tasks if canary_tasks is not None else canaries(device)
        sentinel = sentinel_of(device, clock=clock) if canary_tasks is None else None
        self._ready = None if sentinel is None else sentinel.wait  # a slow spell is no other machine
        check_canaries(self._tasks, device, clock=clock)  # the first calls of a process are slow

    def look(self) -> Session:
        """Time the canaries once more; the session with all that was seen."""
        values = check_canaries(self._tasks, self._device, clock=self._clock, ready=self._ready)
        self.session = self.session.checked(values)
        return self.session


class DriftStore(Protocol):
    """What looking for drift needs of a latency table."""

    def kept_sessions(self, environment_id: str) -> Mapping[str, tuple[Session, bool]]:
        """The accepted sessions with measurements, by id, and whether each is superseded."""
        ...

    def supersede(self, environment: Environment, look: Session, superseded: Collection[str]) -> None:
        """Keep what was seen, and let exactly these sessions of the environment not count."""
        ...


@final
@dataclass(frozen=True)
class Refreshed:
    """What looking for drift found.

    Args:
        shift: of the sessions that counted; None if there are none with canaries.
        lost: sessions that no longer count: they were measured on what is another machine now.
        regained: sessions that count again, as the machine is again what it was.
    """

    shift: Shift | None
    lost: tuple[str, ...] = ()
    regained: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people; empty if nothing has changed."""
        parts = []
        if self.lost:
            parts.append(f"{len(self.lost)} sessions no longer count and their entries are measured again")
        if self.regained:
            parts.append(f"{len(self.regained)} sessions from when it ran as it does now count again")
        return f"{self.shift}: {', '.join(parts)}" if parts else ""


def refresh(
    store: DriftStore,
    device: AbstractDevice,
    *,
    watch: Watch | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Refreshed:
    """Let those sessions of a device's environment count that its machine agrees with now.

    Nothing that was measured is changed: frozen versions keep their sessions, and what was predicted from them
    can be predicted again. A machine that goes back to what it was gets its old entries back.

    Args:
        store: the latency table.
        device: where.
        watch: looks at the machine; a new one by default.
        pause: waits that many seconds between two looks at a machine that seems to have changed.
    """
    environment = device.environment()
    kept = {name: each for name, each in store.kept_sessions(environment.environment_id).items() if each[0].checks}
    if not kept:
        return Refreshed(None)
    watch = watch if watch is not None else Watch(device)
    counted = [session for session, superseded in kept.values() if not superseded]
    look = watch.look()
    for _ in range(LOOKS - 1):
        if not any(_drifted(look, session) for session in counted):
            break
        pause(PAUSE_SECONDS)
        look = watch.look()
    now = {name for name, (session, _) in kept.items() if _drifted(look, session)}
    before = {name for name, (_, superseded) in kept.items() if superseded}
    if now != before:
        store.supersede(environment, look, now)
    found = shift(look, counted) if counted else None
    return Refreshed(found, tuple(sorted(now - before)), tuple(sorted(before - now)))


def _drifted(look: Session, session: Session) -> bool:
    found = shift(look, [session])
    return found is not None and found.drifted
