"""The timing protocol, on a clock that only tasks move."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar, final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.device import AbstractDevice, Statistic
from dynarch.hardware.session import Session, canaries, check_canaries, open_session
from dynarch.hardware.timer import Lazy, Protocol, RoundTiming, Task, Timing, measure, time_rounds
from dynarch.spaces.errors import SpecError

MS = 1_000_000


class FakeClock:
    """Nanoseconds that pass only when a task says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def task(self, *ns: int) -> Task:
        """A task whose calls take these times in turn, the last one for ever."""
        times = list(ns)

        def run() -> None:
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return run


@final
@dataclass(frozen=True)
class LateDevice(AbstractDevice):
    """A device whose work takes time only when it is waited for, as on an accelerator."""

    kind: ClassVar[str] = "late"
    statistic: ClassVar[Statistic] = "median"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[str] = field(default_factory=list)

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        return ()

    def synchronize(self) -> None:
        self.clock.now += 7 * MS
        self.events.append("wait")

    @contextmanager
    def session(self) -> Iterator[None]:
        self.events.append("enter")
        try:
            yield
        finally:
            self.events.append("leave")


# Two warm-up calls, then samples until there are 3 and they took 10 ms.
PLAIN = Protocol(rounds=2, warmup_calls=2, warmup_ms=0, min_samples=3, min_ms=10, cap_ms=100)


def test_round_timing_by_hand() -> None:
    # Sorted 1 2 3 4 10: median 3, deviations 2 1 0 1 7 with median 1, mean 20 / 5;
    # p10 at position 0.4 between 1 and 2, p90 at position 3.6 between 4 and 10.
    timing = RoundTiming.of([10_000, 3_000, 1_000, 4_000, 2_000])
    assert timing == RoundTiming(
        n=5,
        min_ns=1_000,
        p10_ns=1_400,
        median_ns=3_000,
        mean_ns=4_000,
        p90_ns=7_600,
        max_ns=10_000,
        mad_ns=1_000,
    )


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50))
def test_round_timing_is_ordered(samples: list[int]) -> None:
    timing = RoundTiming.of(samples)
    assert timing.min_ns == min(samples)
    assert timing.max_ns == max(samples)
    assert timing.min_ns <= timing.p10_ns <= timing.median_ns <= timing.p90_ns <= timing.max_ns
    assert timing.min_ns <= timing.mean_ns <= timing.max_ns


def test_value_is_the_best_round_by_the_statistic_of_the_device() -> None:
    slow = RoundTiming(n=3, min_ns=4, p10_ns=4, median_ns=5, mean_ns=5, p90_ns=6, max_ns=6, mad_ns=1)
    fast = replace(slow, min_ns=2, median_ns=9)
    assert Timing("k", (slow, fast)).value_ms == 2e-6
    assert Timing("k", (slow, fast), "median").value_ms == 5e-6
    assert Timing("k", (slow, fast)).spread == 4 / 2 - 1


def test_warm_up_is_not_sampled() -> None:
    clock = FakeClock()
    # Two slow warm-up calls in each round would be the maximum if they were sampled.
    task = clock.task(90 * MS, 90 * MS, 4 * MS, 4 * MS, 5 * MS, 4 * MS)
    timing = measure({"a": task}, protocol=replace(PLAIN, rounds=1, cap_ms=1000), seed=0, clock=clock)["a"]
    assert timing.rounds[0].max_ns == 5 * MS
    assert timing.rounds[0].min_ns == 4 * MS


@pytest.mark.parametrize(
    ("ns", "samples"),
    [
        (1 * MS, 10),  # the least time decides: 10 x 1 ms
        (5 * MS, 3),  # the least number of samples decides: 3 x 5 ms
        (60 * MS, 2),  # the cap decides: 2 x 60 ms >= 100 ms
        (500 * MS, 1),  # the cap leaves one sample
    ],
)
def test_how_many_samples_a_visit_takes(ns: int, samples: int) -> None:
    clock = FakeClock()
    timing = measure({"a": clock.task(ns)}, protocol=PLAIN, seed=0, clock=clock)["a"]
    assert [one.n for one in timing.rounds] == [samples, samples]


def test_warm_up_goes_on_until_calls_and_time_are_enough_or_the_cap_is_hit() -> None:
    clock = FakeClock()
    protocol = Protocol(rounds=1, warmup_calls=2, warmup_ms=6, min_samples=1, min_ms=0, cap_ms=20)
    measure({"a": clock.task(2 * MS)}, protocol=protocol, seed=0, clock=clock)
    assert clock.now == (3 + 1) * 2 * MS  # three calls make 6 ms, then one sample
    clock.now = 0
    measure({"a": clock.task(30 * MS)}, protocol=protocol, seed=0, clock=clock)
    assert clock.now == (1 + 1) * 30 * MS  # one call is above the cap


def test_a_clock_that_stands_still_ends() -> None:
    calls: list[int] = []
    timing = measure({"a": lambda: calls.append(0)}, protocol=replace(PLAIN, max_samples=50), seed=0, clock=lambda: 1)[
        "a"
    ]
    assert [one.n for one in timing.rounds] == [50, 50]


def _visits(seed: int, keys: str = "abcdefgh") -> list[tuple[int, str]]:
    clock = FakeClock()
    tasks = {key: clock.task(5 * MS) for key in keys}
    return [(v.round, v.key) for v in time_rounds(tasks, protocol=PLAIN, seed=seed, clock=clock)]


def test_each_round_visits_every_task_once_in_a_new_order() -> None:
    visits = _visits(seed=3)
    first, second = [k for r, k in visits if r == 0], [k for r, k in visits if r == 1]
    assert [r for r, _ in visits] == [0] * 8 + [1] * 8
    assert sorted(first) == sorted(second) == list("abcdefgh")
    assert first != second


def test_the_seed_alone_decides_the_order() -> None:
    assert _visits(seed=3) == _visits(seed=3) == _visits(seed=3, keys="hgfedcba")
    assert _visits(seed=3) != _visits(seed=4)


def test_a_slow_stretch_of_the_machine_falls_out_of_the_minimum() -> None:
    clock = FakeClock()

    def task(ns: int) -> Task:
        def run() -> None:
            clock.now += ns * (10 if clock.now < 900 * MS else 1)  # a neighbour leaves at 900 ms

        return run

    tasks = {str(ms): task(ms * MS) for ms in (4, 5, 6)}
    timings = measure(tasks, protocol=replace(PLAIN, cap_ms=10_000), seed=0, clock=clock)
    assert {key: timing.value_ms for key, timing in timings.items()} == {"4": 4.0, "5": 5.0, "6": 6.0}
    assert all(timing.spread > 0 for timing in timings.values())


def test_rounds_that_are_not_due_are_left_out() -> None:
    clock = FakeClock()
    tasks = {key: clock.task(5 * MS) for key in "abc"}
    due = {"a": 2, "b": 1}
    visits = [(v.round, v.key) for v in time_rounds(tasks, protocol=PLAIN, seed=0, clock=clock, due=due)]
    assert sorted(visits) == [(0, "a"), (0, "b"), (1, "a")]


def test_lazy_tasks_are_built_for_their_visit_only() -> None:
    clock = FakeClock()
    built: list[str] = []

    def factory(key: str) -> Callable[[], Task]:
        def make() -> Task:
            built.append(key)
            clock.now += 1000 * MS  # building is not timed
            return clock.task(5 * MS)

        return make

    tasks = {key: Lazy(factory(key)) for key in "ab"}
    visits = time_rounds(tasks, protocol=PLAIN, seed=0, clock=clock)
    assert built == []
    first = next(visits)
    assert built == [first.key]
    assert [first.timing.max_ns, *(v.timing.max_ns for v in visits)] == [5 * MS] * 4
    assert sorted(built) == ["a", "a", "b", "b"]


def test_waits_for_the_device_before_reading_the_clock() -> None:
    device = LateDevice()
    timing = measure({"a": lambda: None}, protocol=PLAIN, seed=0, clock=device.clock, device=device)["a"]
    assert timing.statistic == "median"
    assert timing.value_ms == 7.0  # the call returned at once; its work took 7 ms
    assert device.events[:4] == ["enter", "wait", "wait", "wait"]
    assert device.events[-1] == "leave"


def test_between_two_visits_nothing_is_left_switched() -> None:
    clock, device = FakeClock(), Cpu()
    seen: list[tuple[bool, bool]] = []

    def task() -> None:
        clock.now += 5 * MS
        seen.append((torch.is_inference_mode_enabled(), gc.isenabled()))

    visits = time_rounds({"a": task, "b": task}, protocol=PLAIN, seed=0, clock=clock, device=device)
    assert len(list(islice(visits, 1))) == 1
    assert set(seen) == {(True, False)}
    assert not torch.is_inference_mode_enabled()
    assert gc.isenabled()


def test_progress_and_rounds_are_reported() -> None:
    clock = FakeClock()
    progress: list[tuple[int, int]] = []
    rounds: list[tuple[int, list[str]]] = []

    def on_round(index: int, timings: Mapping[str, RoundTiming]) -> None:
        rounds.append((index, sorted(timings)))

    measure(
        {key: clock.task(5 * MS) for key in "ab"},
        protocol=PLAIN,
        seed=0,
        clock=clock,
        on_progress=lambda done, total: progress.append((done, total)),
        on_round=on_round,
    )
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert rounds == [(0, ["a", "b"]), (1, ["a", "b"])]


def test_nothing_to_measure_is_fine() -> None:
    assert measure({}, protocol=PLAIN, seed=0, clock=FakeClock()) == {}


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"min_samples": 0}, {"max_samples": 0}])
def test_protocol_refuses_counts_below_one(bad: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        replace(PLAIN, **bad)


@pytest.mark.parametrize("ms", [-1.0, float("nan"), float("inf")])
def test_protocol_refuses_impossible_times(ms: float) -> None:
    with pytest.raises(SpecError, match="cap_ms"):
        replace(PLAIN, cap_ms=ms)


def _session(*checks: dict[str, int], finished: bool = True) -> Session:
    session = open_session(0, PLAIN)
    for check in checks:
        session = session.checked(check)
    return replace(session, finished=finished)


def test_drift_is_the_median_canary() -> None:
    # Slowest over fastest check: a 110/100, b 105/100, c 100/100; the median is 5 %.
    session = _session({"a": 100, "b": 105, "c": 100}, {"a": 110, "b": 100, "c": 100}, {"a": 105, "b": 100, "c": 100})
    assert session.drift == pytest.approx(0.05)
    assert session.verdict == "flagged"
    assert session.accepted


def test_scatter_is_what_the_two_best_checks_differ_by() -> None:
    # Second over best: a 105/100, b 102/100, c 100/100; the median is 2 %, whatever the third check met.
    session = _session({"a": 100, "b": 102, "c": 100}, {"a": 200, "b": 100, "c": 300}, {"a": 105, "b": 180, "c": 100})
    assert session.scatter == pytest.approx(0.02)
    assert _session({"a": 100}).scatter == 0.0


@pytest.mark.parametrize(
    ("later", "verdict", "accepted"),
    [(102, "steady", True), (104, "flagged", True), (109, "flagged", True), (111, "rejected", False)],
)
def test_verdict_at_three_and_ten_percent(later: int, verdict: str, accepted: bool) -> None:
    session = _session({"a": 100}, {"a": later})
    assert (session.verdict, session.accepted) == (verdict, accepted)
    assert replace(session, forced=True).accepted


def test_a_session_that_was_killed_stays_open_and_accepted() -> None:
    session = _session({"a": 100}, {"a": 200}, finished=False)
    assert (session.verdict, session.accepted) == ("open", True)


def test_session_ids_are_unique() -> None:
    assert open_session(0, PLAIN).session_id != open_session(0, PLAIN).session_id


def test_canary_check_takes_the_best_visit() -> None:
    clock = FakeClock()
    slow_start = clock.task(*[9 * MS] * 20, 4 * MS)
    values = check_canaries({"a": slow_start, "b": clock.task(6 * MS)}, clock=clock)
    assert values == {"a": 4 * MS, "b": 6 * MS}


def test_canaries_are_five_and_leave_the_random_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tasks = canaries(Cpu())
    assert torch.equal(torch.rand(3), expected)
    assert len(tasks) == 5
    for task in tasks.values():
        assert isinstance(task(), torch.Tensor)
