"""Streams: whole networks that serve one input after another, in turns, as a service or a user would run them.

A call that repeats itself finds its branches predicted and its path in the caches; calls that differ do not, and take a
tenth longer. So networks are calibrated and reported on streams of different calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import final

import numpy as np

from .correction import Floats
from .device import AbstractDevice
from .profile import time_network
from .session import Session
from .steadiness import sentinel_of
from .timer import Clock

Run = Callable[[int], object]
Progress = Callable[[int, int], None]


@final
class Streams:
    """Networks that take turns, round after round, so that a busy minute of the machine hits all alike.

    Args:
        runs: each runs a network on the call of that number.
        calls: how many each has.
        device: where.
        seed: orders of networks and calls.
        clock: nanoseconds.
        sessions: whose measurements the times shall agree with.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        calls: Sequence[int],
        *,
        device: AbstractDevice,
        seed: int,
        clock: Clock = time.perf_counter_ns,
        sessions: Iterable[Session] = (),
    ) -> None:
        self._runs = runs
        self._calls = calls
        self._device = device
        self._seed = seed
        self._clock = clock
        sentinel = sentinel_of(device, clock=clock, sessions=sessions)
        self._ready = None if sentinel is None else sentinel.wait

    def fastest(self, rounds: int, *, on_progress: Progress | None = None) -> list[Floats]:
        """Of each call of each network the fastest of some rounds, as neighbours only ever add time; milliseconds."""
        best = [np.full(calls, np.inf) for calls in self._calls]
        order, done = np.random.default_rng(self._seed), 0
        for turn in range(rounds):
            for index in map(int, order.permutation(len(best))):
                best[index] = np.minimum(best[index], self.once(index, seed=self._seed + turn))
                done += 1
                if on_progress is not None:
                    on_progress(done, rounds * len(best))
        return best

    def once(self, index: int, *, seed: int) -> Floats:
        """Every call of one network once, in an order of its own: milliseconds."""
        return time_network(
            self._runs[index],
            self._calls[index],
            rounds=1,
            device=self._device,
            seed=seed,
            clock=self._clock,
            ready=self._ready,
        )
