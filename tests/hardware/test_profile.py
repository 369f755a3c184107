"""Profiling: what is missing is measured once, through kills and through unquiet machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
import torch
from torch import nn

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.device import Environment
from dynarch.hardware.keys import PartKey, part_key
from dynarch.hardware.profile import (
    Due,
    Entry,
    Keep,
    Measurable,
    ProfileReport,
    Row,
    curve_batches,
    profile,
)
from dynarch.hardware.session import Session
from dynarch.hardware.stretch import InThisProcess
from dynarch.hardware.timer import Protocol, Task
from dynarch.spaces.errors import SpecError

MS = 1_000_000
PROTOCOL = Protocol(rounds=3, warmup_calls=1, warmup_ms=0, min_samples=2, min_ms=0, cap_ms=100)


class Stopped(BaseException):
    """Stands for the end of the process: no `except Exception` may swallow it."""


@dataclass
class MemoryStore:
    """A latency table in memory."""

    rows: list[tuple[str, str, Row]] = field(default_factory=list)  # environment, session, row
    sessions: dict[str, Session] = field(default_factory=dict)
    records: int = 0

    def visited(
        self, keys: Sequence[str], environment_id: str, batches: Sequence[int]
    ) -> Mapping[Entry, Mapping[str, int]]:
        found: dict[Entry, Counter[str]] = {(key, batch): Counter() for key in keys for batch in batches}
        for environment, session, row in self.rows:
            if environment == environment_id and self.sessions[session].accepted:
                found[row.key.hash, row.batch][self.sessions[session].process] += 1
        return found

    def record(self, environment: Environment, session: Session, rows: Sequence[Row]) -> None:
        self.records += 1
        self.sessions[session.session_id] = session
        self.rows.extend((environment.environment_id, session.session_id, row) for row in rows)

    def visits(self) -> Counter[tuple[str, int, int]]:
        return Counter((row.key.hash, row.batch, row.round) for _, _, row in self.rows)


class Renamed:
    """Measures in this process, under a new name each time."""

    def __init__(self, measure: InThisProcess) -> None:
        self._measure = measure
        self._names = count()

    def __call__(
        self, due: Mapping[Entry, Due], *, seed: int, protocol: Protocol, keep: Keep, on_visits: Callable[[int], None]
    ) -> Session:
        name = f"process {id(self)} {next(self._names)}"

        def renamed(session: Session, rows: Sequence[Row]) -> None:
            keep(replace(session, process=name), rows)

        session = self._measure(due, seed=seed, protocol=protocol, keep=renamed, on_visits=on_visits)
        return replace(session, process=name)


class Bench:
    """Parts on a clock that only they move; counts what is built."""

    def __init__(self, parts: int = 3) -> None:
        self.now = 0
        self.built: Counter[tuple[int, int]] = Counter()
        self.canary_ns = 1 * MS
        self.keys = [part_key(nn.ReLU(), (torch.zeros(1, width + 1),), kind="segment") for width in range(parts)]
        self.measurables = [Measurable(key, self._maker(index)) for index, key in enumerate(self.keys)]

    def clock(self) -> int:
        return self.now

    def _maker(self, index: int) -> Callable[[int], Task]:
        def make(batch: int) -> Task:
            self.built[index, batch] += 1
            return self.advance((index + 1) * batch * MS)

        return make

    def advance(self, ns: int) -> Task:
        def run() -> None:
            self.now += ns

        return run

    def canary(self) -> None:
        self.now += self.canary_ns

    def profile(
        self,
        store: MemoryStore,
        *,
        batches: Sequence[int] | None = (1, 2),
        on_progress: Callable[[int, int], None] | None = None,
        attempts: int = 2,
        device: Cpu | None = None,
        processes: int = 1,
    ) -> ProfileReport:
        device = device if device is not None else Cpu()
        measure = InThisProcess(self.measurables, device, self.clock, {"tick": self.canary})
        return profile(
            [each.key.hash for each in self.measurables],
            measure if processes == 1 else Renamed(measure),
            device=device,
            store=store,
            seed=0,
            batches=batches,
            protocol=PROTOCOL,
            processes=processes,
            on_progress=on_progress,
            attempts=attempts,
        )


def test_every_part_is_measured_at_every_batch_in_every_round() -> None:
    bench, store = Bench(), MemoryStore()
    progress: list[tuple[int, int]] = []
    report = bench.profile(store, on_progress=lambda done, total: progress.append((done, total)))
    assert store.visits() == {(k.hash, b, r): 1 for k in bench.keys for b in (1, 2) for r in range(3)}
    assert progress == [(i + 1, 18) for i in range(18)]
    assert (report.visits, report.complete) == (18, 0)
    assert report.environment_id == Cpu().environment().environment_id
    # Part i takes (i + 1) * batch milliseconds on this clock.
    expected = {(key.hash, b): (i + 1) * b * MS for i, key in enumerate(bench.keys) for b in (1, 2)}
    assert all(row.timing.min_ns == expected[row.key.hash, row.batch] for _, _, row in store.rows)


def test_a_second_run_measures_nothing() -> None:
    bench, store = Bench(), MemoryStore()
    bench.profile(store)
    built, records = bench.built.copy(), store.records
    report = bench.profile(store)
    assert (bench.built, store.records) == (built, records)
    assert report == ProfileReport(report.environment_id, (), 0, 6)


def test_only_what_is_new_is_measured() -> None:
    bench, store = Bench(), MemoryStore()
    bench.profile(store, batches=(1,))
    bench.built.clear()
    report = bench.profile(store, batches=(1, 2))
    assert set(bench.built) == {(0, 2), (1, 2), (2, 2)}
    assert (report.visits, report.complete) == (9, 3)


def test_another_environment_shares_nothing() -> None:
    bench, store = Bench(1), MemoryStore()
    bench.profile(store)
    assert bench.profile(store, device=Cpu(dtype="bfloat16")).visits == 6


def test_equal_keys_are_measured_once() -> None:
    bench, store = Bench(2), MemoryStore()
    bench.measurables.append(Measurable(bench.keys[0], bench.measurables[0].make))
    assert bench.profile(store).visits == 2 * 2 * 3


def test_rounds_are_spread_over_processes() -> None:
    bench, store = Bench(), MemoryStore()
    progress: list[tuple[int, int]] = []
    report = bench.profile(store, processes=2, on_progress=lambda done, total: progress.append((done, total)))
    # Six rounds in all, numbered through, three in each process.
    assert store.visits() == {(k.hash, b, r): 1 for k in bench.keys for b in (1, 2) for r in range(6)}
    first, second = report.sessions
    assert first.process != second.process
    assert Counter(session for _, session, _ in store.rows) == {first.session_id: 18, second.session_id: 18}
    assert first.seed != second.seed
    assert progress == [(i + 1, 36) for i in range(36)]  # one bar over both
    assert (report.visits, report.complete) == (36, 0)
    assert bench.profile(store, processes=2).visits == 0


@pytest.mark.parametrize("survived", range(1, 36, 5))
def test_killed_in_any_process_it_resumes_and_measures_nothing_twice(survived: int) -> None:
    bench, store = Bench(), MemoryStore()

    def stop(done: int, total: int) -> None:
        if done == survived:
            raise Stopped

    with pytest.raises(Stopped):
        bench.profile(store, processes=2, on_progress=stop)
    assert bench.profile(store, processes=2).visits == 36 - survived
    assert store.visits() == {(k.hash, b, r): 1 for k in bench.keys for b in (1, 2) for r in range(6)}
    made_by: dict[tuple[str, int], set[str]] = {}
    for _, session, row in store.rows:
        made_by.setdefault((row.key.hash, row.batch), set()).add(store.sessions[session].process)
    assert min(map(len, made_by.values())) >= 2


@pytest.mark.parametrize("survived", range(1, 18))
def test_killed_anywhere_it_resumes_and_measures_nothing_twice(survived: int) -> None:
    bench, store = Bench(), MemoryStore()

    def stop(done: int, total: int) -> None:
        if done == survived:
            raise Stopped

    with pytest.raises(Stopped):
        bench.profile(store, on_progress=stop)
    assert sum(store.visits().values()) == survived
    (killed,) = store.sessions.values()
    assert killed.verdict == "open"
    report = bench.profile(store)
    assert report.visits == 18 - survived
    assert store.visits() == {(k.hash, b, r): 1 for k in bench.keys for b in (1, 2) for r in range(3)}
    assert sum(bench.built.values()) == 18


def test_rows_reach_the_store_while_a_long_round_goes_on() -> None:
    # Parts of 1 to 100 ms, one batch, three calls a visit. Without any clean-up, 64 rows are safe once there are so
    # many, and one that has waited for a second is safe with the row that comes then.
    bench, store = Bench(100), MemoryStore()
    safe: list[tuple[int, int, int]] = []
    bench.profile(store, batches=(1,), on_progress=lambda done, _: safe.append((done, len(store.rows), bench.now)))
    for index in range(1, 100):
        done, kept, now = safe[index]
        waiting = done - kept
        assert waiting < 64
        if waiting:
            assert now - safe[kept][2] < 1000 * MS
    assert {done - kept for done, kept, _ in safe} > {0, 1, 2}


def test_sixty_four_rows_do_not_wait() -> None:
    bench, store = Bench(100), MemoryStore()
    for index, measurable in enumerate(bench.measurables):
        bench.measurables[index] = Measurable(measurable.key, lambda batch: bench.advance(1))
    safe: list[int] = []
    bench.profile(store, batches=(1,), on_progress=lambda done, _: safe.append(len(store.rows)) if done == 70 else None)
    assert safe == [64]


def test_canaries_are_checked_before_in_the_middle_and_after() -> None:
    bench, store = Bench(), MemoryStore()
    (session,) = bench.profile(store).sessions
    assert session.checks == ((("tick", MS),),) * 3
    assert session.verdict == "steady"
    assert store.sessions == {session.session_id: session}


def test_an_unsteady_session_is_repeated_and_its_rows_do_not_count() -> None:
    bench, store = Bench(), MemoryStore()

    def slow_down_once(done: int, total: int) -> None:
        if done == total:  # for good: the second session is steady at the new speed
            bench.canary_ns = 2 * MS

    report = bench.profile(store, on_progress=slow_down_once)
    assert [session.verdict for session in report.sessions] == ["rejected", "steady"]
    assert [session.accepted for session in report.sessions] == [False, True]
    assert report.visits == 36
    good = report.sessions[1].session_id
    assert Counter(session for _, session, _ in store.rows)[good] == 18
    assert bench.profile(store).visits == 0


def test_a_machine_that_is_never_quiet_ends_with_forced_rows() -> None:
    bench, store = Bench(), MemoryStore()

    def ever_slower(done: int, total: int) -> None:
        bench.canary_ns += MS

    report = bench.profile(store, on_progress=ever_slower)
    assert [(s.verdict, s.forced, s.accepted) for s in report.sessions] == [
        ("rejected", False, False),
        ("rejected", True, True),
    ]
    assert report.sessions[-1].drift > 0.10
    assert bench.profile(store).visits == 0


def test_failing_parts_lose_nothing_that_was_measured() -> None:
    bench, store = Bench(), MemoryStore()

    def broken(batch: int) -> Task:
        raise ZeroDivisionError

    bench.measurables[1] = Measurable(bench.keys[1], broken)
    with pytest.raises(ZeroDivisionError):
        bench.profile(store)
    assert sum(bench.built.values()) == len(store.rows)


def test_default_batches_follow_the_device() -> None:
    bench, store = Bench(1), MemoryStore()
    bench.profile(store, batches=None, device=Cpu(batch=6))
    assert {row.batch for _, _, row in store.rows} == {1, 2, 4, 6}


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))],
)
def test_curve_batches(batch: int, expected: tuple[int, ...]) -> None:
    assert curve_batches(batch) == expected


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(SpecError, match="batches"):
        Bench().profile(MemoryStore(), batches=(0,))
    with pytest.raises(SpecError, match="attempts"):
        Bench().profile(MemoryStore(), attempts=0)
    with pytest.raises(SpecError, match="processes"):
        Bench().profile(MemoryStore(), processes=0)


def test_real_parts_on_the_real_clock_fill_the_table() -> None:
    device, store = Cpu(), MemoryStore()
    module = device.prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    key: PartKey = part_key(module, (torch.zeros(1, 3, 8, 8),), kind="segment")

    def make(batch: int) -> Task:
        example = device.place(torch.zeros(batch, 3, 8, 8))
        return lambda: module(example)

    measure = InThisProcess([Measurable(key, make)], device)
    report = profile(
        [key.hash], measure, device=device, store=store, seed=0, batches=(1, 2), protocol=PROTOCOL, processes=1
    )
    assert all(row.timing.min_ns > 0 for _, _, row in store.rows)
    assert all(len(session.checks) == 3 for session in report.sessions)
