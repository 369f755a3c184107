"""Drift: a machine that has changed is told from one that is disturbed, and only then is anything measured again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.drift import LOOKS, DriftStore, Refreshed, Shift, Watch, refresh, shift
from dynarch.hardware.keys import PartKey
from dynarch.hardware.profile import Row
from dynarch.hardware.session import Session
from dynarch.hardware.table import LatencyTable
from dynarch.spaces.errors import MissingEntryError
from dynarch.tests.hardware.exchanged import CONV, rows

DEVICE = Cpu()
HERE = DEVICE.environment()
E = HERE.environment_id
MS = 1_000_000


def session(name: str, *checks: int, process: str = "") -> Session:
    """One canary, whose checks found these times."""
    return Session(name, 0, checks=tuple((("tick", value),) for value in checks), finished=True, process=process)


def of_canaries(name: str, **each: int) -> Session:
    return Session(name, 0, checks=(tuple(each.items()),), finished=True)


class Machine:
    """A machine with one canary, which takes as long as the plan says, look after look; the last goes on."""

    def __init__(self, *looks_ns: int) -> None:
        self.now = 0
        self.pauses: list[float] = []  # between two looks
        self._plan = looks_ns

    @property
    def looks(self) -> int:
        return len(self.pauses) + 1

    def refresh(self, table: LatencyTable) -> Refreshed:
        watch = Watch(DEVICE, clock=lambda: self.now, canary_tasks={"tick": self._tick})
        return refresh(table, DEVICE, watch=watch, pause=self.pauses.append)

    def _tick(self) -> None:
        self.now += self._plan[min(len(self.pauses), len(self._plan) - 1)]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LatencyTable]:
    with LatencyTable.open(tmp_path / "table.db") as opened:
        yield opened


def fill(table: LatencyTable, made: Session, key: PartKey = CONV, *min_ns: int) -> Sequence[Row]:
    kept = rows(key, 1, *(min_ns or (2 * MS,)))
    table.record(HERE, made, kept)
    return kept


# -- the comparison -------------------------------------------------------------------------------------------


def test_the_shift_is_the_median_of_the_canaries() -> None:
    # Ratios 1.1, 1.2 and 3: the median is 1.2, whatever one neighbour did to one canary.
    then = of_canaries("then", a=100, b=100, c=100)
    found = shift(of_canaries("now", a=110, b=120, c=300), [then])
    assert found is not None
    assert found.change == pytest.approx(0.2)
    assert found.drifted
    assert str(found) == "the machine ran 20.0 % slower than when the table was measured"


def test_a_faster_machine_has_changed_as_well() -> None:
    found = shift(session("now", 80), [session("then", 100)])
    assert found is not None
    assert str(found) == "the machine ran 20.0 % faster than when the table was measured"


@pytest.mark.parametrize(
    ("change", "noise", "drifted"),
    [
        (0.049, 0.05, False),
        (0.051, 0.05, True),
        (0.20, 0.25, False),
        (-0.04, 0.05, False),
        (-0.047, 0.05, False),  # 1 / 1.05 is 4.76 % less
        (-0.048, 0.05, True),
    ],
)
def test_slower_and_faster_are_judged_alike(change: float, noise: float, drifted: bool) -> None:
    assert Shift(change, noise).drifted == drifted


def test_the_best_check_counts_and_the_second_best_tells_the_noise() -> None:
    # Then 100 at best, 110 the next; now 120 at best, 150 the next: within the noise of now.
    found = shift(session("now", 150, 120), [session("then", 100, 130, 110)])
    assert found is not None
    assert found.change == pytest.approx(0.2)
    assert found.noise == pytest.approx(0.25)
    assert not found.drifted
    assert str(found) == "the machine ran as it did when the table was measured (within 25 %)"


def test_a_neighbour_in_some_of_the_checks_hides_no_drift() -> None:
    found = shift(session("now", 180, 121, 120), [session("then", 100, 102, 150)])
    assert found is not None
    assert found.change == pytest.approx(0.2)
    assert found.noise == pytest.approx(0.05)
    assert found.drifted


def test_of_several_sessions_the_best_is_what_the_table_rests_on() -> None:
    found = shift(session("now", 110), [session("one", 120), session("two", 100)])
    assert found is not None
    assert found.change == pytest.approx(0.1)


def test_without_common_canaries_nothing_is_said() -> None:
    assert shift(of_canaries("now", a=1), [of_canaries("then", b=1)]) is None
    assert shift(session("now"), [session("then", 100)]) is None


# -- the table ------------------------------------------------------------------------------------------------


def test_a_machine_that_is_as_it_was_keeps_its_table(table: LatencyTable) -> None:
    fill(table, session("old", MS, MS))
    version, machine = table.version(E), Machine(round(1.04 * MS))
    found = machine.refresh(table)
    assert (str(found), machine.looks) == ("", 1)
    assert table.version(E) == version
    assert len(table.sessions(E)) == 1


def test_a_machine_that_changed_has_its_table_measured_again(table: LatencyTable) -> None:
    fill(table, session("old", MS, MS))
    before = table.freeze(E).version
    machine = Machine(round(1.2 * MS))
    found = machine.refresh(table)
    assert (found.lost, found.regained) == (("old",), ())
    assert str(found) == (
        "the machine ran 20.0 % slower than when the table was measured: 1 sessions no longer count and their"
        " entries are measured again"
    )
    assert machine.looks == LOOKS, "it was given time to become quiet"
    assert table.visited([CONV.hash], E, [1]) == {}
    with pytest.raises(MissingEntryError):
        table.entries(E, [CONV.hash], [1])
    # What was predicted from the old version can be predicted again.
    assert table.entries(E, [CONV.hash], [1], version=before)[CONV.hash, 1].ms == 2.0
    fill(table, session("new", round(1.2 * MS)), CONV, 3 * MS)
    after = table.freeze(E)
    assert (after.version != before, after.parent) == (True, before)
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 3.0
    assert Machine(round(1.2 * MS)).refresh(table) == Refreshed(Shift(0.0, 0.05))


def test_a_machine_that_goes_back_gets_its_old_entries_back(table: LatencyTable) -> None:
    fill(table, session("old", MS, MS))
    before = table.freeze(E).version
    Machine(round(1.2 * MS)).refresh(table)
    fill(table, session("new", round(1.2 * MS)), CONV, 3 * MS)
    found = Machine(MS).refresh(table)
    assert (found.lost, found.regained) == (("new",), ("old",))
    assert str(found).endswith("1 sessions from when it ran as it does now count again")
    assert table.visited([CONV.hash], E, [1]) == {(CONV.hash, 1): {"old": 1}}
    assert table.freeze(E).version == before


def test_a_passing_neighbour_is_no_drift(table: LatencyTable) -> None:
    fill(table, session("old", MS, MS))
    machine = Machine(2 * MS, 2 * MS, MS)
    assert str(machine.refresh(table)) == ""
    assert machine.looks == 3


def test_only_the_sessions_of_the_other_machine_are_lost(table: LatencyTable) -> None:
    fill(table, session("slow", 2 * MS, process="1"))
    fill(table, session("fast", MS, process="2"))
    assert Machine(MS).refresh(table).lost == ("slow",)
    assert table.visited([CONV.hash], E, [1]) == {(CONV.hash, 1): {"2": 1}}


def test_what_cannot_be_compared_counts(table: LatencyTable) -> None:
    assert Machine(MS).refresh(table) == Refreshed(None)  # an empty table
    fill(table, session("killed before its first check"))
    assert Machine(5 * MS).refresh(table) == Refreshed(None)
    assert len(table.visited([CONV.hash], E, [1])) == 1


def test_it_is_the_store_that_drift_asks_for(table: LatencyTable) -> None:
    store: DriftStore = table  # which the type checker verifies
    assert store.kept_sessions(E) == {}


def test_sessions_of_a_version_are_told(table: LatencyTable) -> None:
    fill(table, session("old", MS))
    version = table.freeze(E).version
    fill(table, session("later", MS))
    assert table.kept_sessions(E, version=version).keys() == {"old"}
    assert table.kept_sessions(E).keys() == {"old", "later"}


def test_a_watch_looks_on_the_real_machine() -> None:
    watch = Watch(DEVICE)
    first, second = watch.look(), watch.look()
    assert [len(first.checks), len(second.checks)] == [1, 2]
    assert all(value > 0 for check in second.checks for _, value in check)
