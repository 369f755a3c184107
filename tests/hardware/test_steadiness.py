"""The sentinel, on a machine whose spells are written down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.profile import time_network
from dynarch.hardware.session import open_session
from dynarch.hardware.steadiness import Sentinel, sentinel_of
from dynarch.hardware.timer import Protocol, measure, time_task

MS = 1_000_000
Spell = Callable[[int], float]


class Machine:
    """A clock that tasks move; at each moment everything takes `slowness` times as long."""

    def __init__(self, slowness: Spell) -> None:
        self.now = 0
        self._slowness = slowness

    def clock(self) -> int:
        return self.now

    def task(self, ns: int) -> Callable[[], None]:
        def run() -> None:
            self.now += round(ns * self._slowness(self.now))

        return run

    def sentinel(self, *, allowance_ms: float = 1000, share: float = 1.0, known_ns: int = 0) -> Sentinel:
        return Sentinel(
            self.task(MS // 10),
            clock=self.clock,
            limit=1.15,
            allowance_ns=round(allowance_ms * MS),
            share=share,
            known_ns=known_ns,
        )


def spells(fast_ms: int, slow_ms: int) -> Spell:
    """Fast for so long, then half as slow again for so long, and so on."""
    period = (fast_ms + slow_ms) * MS
    return lambda now: 1.0 if now % period < fast_ms * MS else 1.5


def test_a_steady_machine_is_not_waited_for() -> None:
    machine = Machine(lambda now: 1.05)
    sentinel = machine.sentinel()
    before = machine.now
    assert sentinel.wait()
    assert machine.now - before == 3 * 105_000  # one look: the best of three calls


def test_a_slow_spell_is_waited_out() -> None:
    machine = Machine(spells(40, 60))
    sentinel = machine.sentinel()
    machine.now = 50 * MS  # ten milliseconds into the slow spell, which lasts until 100
    assert sentinel.wait()
    assert 100 * MS <= machine.now < 102 * MS
    assert sentinel.waited_ns == pytest.approx(51 * MS, abs=MS)


def test_a_spell_that_was_there_from_the_beginning_is_seen_by_what_is_known() -> None:
    machine = Machine(lambda now: 1.5 if now < 100 * MS else 1.0)
    assert machine.sentinel().wait()
    assert machine.now < 20 * MS, "it is the best that it ever saw"
    assert machine.sentinel(known_ns=MS // 10).wait()
    assert 100 * MS <= machine.now < 102 * MS


def test_patience_ends_on_a_machine_that_is_never_fast_again() -> None:
    machine = Machine(lambda now: 1.0 if now < 20 * MS else 2.0)
    sentinel = machine.sentinel(allowance_ms=30, share=0.5)
    machine.now = 20 * MS
    assert not sentinel.wait()
    # 30 ms, and half of the 20 - 9 ms that passed since the sentinel's own first looks began
    assert sentinel.waited_ns == pytest.approx(40 * MS, abs=2 * MS)
    before = machine.now
    assert not sentinel.wait()
    assert machine.now - before < 2 * MS, "what is used up does not come back at once"
    machine.now += 100 * MS
    before = machine.now
    assert not sentinel.wait()
    assert machine.now - before == pytest.approx(50 * MS, abs=2 * MS), "half of what passed without waiting"


def test_a_visit_inside_a_slow_spell_finds_the_fast_value_only_if_it_waits() -> None:
    protocol = Protocol(rounds=1, warmup_calls=1, warmup_ms=0, min_samples=5, min_ms=10, cap_ms=100)
    found = {}
    for name in ("at once", "waiting"):
        machine = Machine(spells(40, 160))
        sentinel = machine.sentinel()
        machine.now = 50 * MS
        ready = sentinel.wait if name == "waiting" else None
        found[name] = time_task(machine.task(2 * MS), protocol, clock=machine.clock, ready=ready).min_ns
    assert found == {"at once": 3 * MS, "waiting": 2 * MS}


def test_a_long_visit_looks_again_every_few_milliseconds() -> None:
    looks: list[int] = []
    machine = Machine(lambda now: 1.0)
    protocol = Protocol(rounds=1, warmup_calls=1, warmup_ms=0, min_samples=1, min_ms=20, cap_ms=100)
    time_task(machine.task(2 * MS), protocol, clock=machine.clock, ready=lambda: looks.append(machine.now))
    # before the first sample, and whenever three more (6 ms, the first sum above 5) were taken
    assert looks == [2 * MS, 8 * MS, 14 * MS, 20 * MS]


def test_every_visit_of_all_rounds_is_asked_for() -> None:
    looks: list[int] = []
    machine = Machine(lambda now: 1.0)
    protocol = Protocol(rounds=3, warmup_calls=1, warmup_ms=0, min_samples=1, min_ms=1, cap_ms=100)
    tasks = {"a": machine.task(MS), "b": machine.task(MS)}
    measure(tasks, protocol=protocol, seed=0, clock=machine.clock, ready=lambda: looks.append(machine.now))
    assert len(looks) == 6


def test_every_call_of_a_stream_waits() -> None:
    machine = Machine(spells(40, 160))
    sentinel = machine.sentinel(allowance_ms=10_000)
    call = machine.task(2 * MS)
    found = time_network(
        lambda index: call(), 60, rounds=1, device=Cpu(), clock=machine.clock, ready=sentinel.wait, warmup_calls=1
    )
    # A call that begins in a fast spell may still run into the slow one: one in each of the few spells.
    assert np.count_nonzero(found == 2.0) >= 55


def test_only_devices_whose_neighbours_add_time_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNARCH_STEADY")  # set for all tests
    assert sentinel_of(Cpu()) is not None
    then = open_session(0, Protocol()).checked({"conv3x3": 1})  # a nanosecond: nothing will ever be as fast again
    known = sentinel_of(Cpu(), sessions=[then])
    assert known is not None
    assert known.slowness() > 100
    monkeypatch.setenv("DYNARCH_STEADY", "0")
    assert sentinel_of(Cpu()) is None
