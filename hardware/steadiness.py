"""Steadiness: is the machine in its fast state right now?

A core that is shared, with a sibling thread, another tenant or another program, runs in spells: for milliseconds up to
minutes everything takes half as long again, and then nothing does. A visit of some milliseconds that lies in a slow
spell as a whole has no fast sample to choose. So a small fixed workload, the sentinel, is timed first, and sampling
begins, and goes on, once the sentinel is as fast as it was seen to be. What is sampled is told by the sentinel alone,
never by the sample itself, so nothing is chosen for being fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final, final

from .device import AbstractDevice
from .session import Session, best_checks, canaries
from .timer import Clock, Task

LIMIT: Final = 1.15  # slow spells were seen at 1.4 to 1.9, fast ones within 1.1
_CALLS: Final = 3
_FIRST_LOOKS: Final = 30
_ALLOWANCE_NS: Final = 5_000_000_000
_KNOWN_ALLOWANCE_NS: Final = 30_000_000_000
_SENTINEL: Final = "conv3x3"
_SHARE: Final = 1.0


@final
class Sentinel:
    """Times one short task again and again, and waits while it is slower than the best that it ever took.

    Waiting is bounded: on a machine that is never fast again, measuring takes at most twice as long, and goes on.

    Args:
        task: a tenth of a millisecond or so.
        clock: nanoseconds.
        limit: how much slower than the best still counts as steady.
        allowance_ns: waiting that is allowed from the start.
        share: further waiting, as a share of the time that passes without waiting.
        known_ns: what the task took when the machine was fast, if that was seen before; 0 if not.
    """

    def __init__(
        self,
        task: Task,
        *,
        clock: Clock = time.perf_counter_ns,
        limit: float = LIMIT,
        allowance_ns: int = _ALLOWANCE_NS,
        share: float = _SHARE,
        known_ns: int = 0,
    ) -> None:
        self._task = task
        self._clock = clock
        self._limit = limit
        self._allowance_ns = allowance_ns
        self._share = share
        self._best_ns = known_ns
        self._born_ns = clock()
        self.waited_ns = 0
        for _ in range(_FIRST_LOOKS):
            self.slowness()

    def slowness(self) -> float:
        """The task now over the best it ever took, at least 1."""
        now = min(self._once() for _ in range(_CALLS))
        self._best_ns = min(now, self._best_ns or now)
        return now / max(self._best_ns, 1)

    def wait(self) -> bool:
        """Until the machine is steady; False if there is no more time for waiting."""
        began = self._clock()
        patience = self._patience_ns(began)
        steady = self.slowness() <= self._limit
        while not steady and self._clock() - began < patience:
            steady = self.slowness() <= self._limit
        self.waited_ns += self._clock() - began
        return steady

    def _patience_ns(self, now: int) -> float:
        busy = now - self._born_ns - self.waited_ns
        return self._allowance_ns + self._share * busy - self.waited_ns

    def _once(self) -> int:
        started = self._clock()
        self._task()
        return self._clock() - started


def sentinel_of(
    device: AbstractDevice, *, clock: Clock = time.perf_counter_ns, sessions: Iterable[Session] = ()
) -> Sentinel | None:
    """For devices whose neighbours only ever add time; a chip whose own clock moves has no state to wait for.

    What is compared with the measurements of earlier `sessions` is waited for until the machine is as fast as it was
    in these, and longer than usual: else a slow spell from beginning to end would pass for the machine's best.

    None too where the environment variable `DYNARCH_STEADY` is 0: where something else always runs, as beside the
    processes of a test suite, nothing is gained by waiting for a spell in which it does not.
    """
    if device.statistic != "min" or os.environ.get("DYNARCH_STEADY") == "0":
        return None
    known_ns = best_checks(sessions).get(_SENTINEL, 0)
    allowance_ns = _KNOWN_ALLOWANCE_NS if known_ns else _ALLOWANCE_NS
    return Sentinel(canaries(device)[_SENTINEL], clock=clock, allowance_ns=allowance_ns, known_ns=known_ns)
