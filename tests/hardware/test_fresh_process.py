"""Measuring in processes of their own: what they are told, how they end, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from dynarch.hardware import fresh_process
from dynarch.hardware.cpu import Cpu
from dynarch.hardware.fresh_process import FreshProcess
from dynarch.hardware.inventory import Inventory, inventory, parts_at
from dynarch.hardware.measurables import places
from dynarch.hardware.profile import Due, ProfileReport, Row, profile
from dynarch.hardware.profile_child import check_environment
from dynarch.hardware.session import Session, process_name
from dynarch.hardware.table import LatencyTable
from dynarch.hardware.timer import Protocol
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.errors import DeviceUnavailableError, SpecError
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.space import Space
from dynarch.tests.databases import fresh_url

SPACE = Space(
    backbones=(Residual(width=(4,), depth=(1,), stages=2),), families=(EarlyExit(max_exits=1, heads=("linear",)),)
)
SIGNATURE = Signature((1, 4, 4), 3)
DEVICE = Cpu()
E = DEVICE.environment().environment_id
QUICK = Protocol(rounds=2, warmup_calls=1, warmup_ms=0, min_samples=2, min_ms=0, cap_ms=50)
ROOT = Path(__file__).resolve().parents[2]
Progress = Callable[[int, int], None]


@pytest.fixture(scope="module")
def found() -> Inventory:
    return inventory(SPACE, SIGNATURE, compaction=False)


def measuring(found: Inventory, space: Space = SPACE) -> FreshProcess:
    where = places(found, DEVICE)
    return FreshProcess(space, SIGNATURE, {name: found.parts[name][0] for name in where}, where, DEVICE)


def run(found: Inventory, table: LatencyTable, progress: Progress | None = None) -> ProfileReport:
    measure = measuring(found)
    return profile(
        tuple(measure.parts), measure, device=DEVICE, store=table, seed=0, protocol=QUICK, on_progress=progress
    )


def rounds_of(table: LatencyTable) -> Counter[tuple[str, int, int]]:
    """How often each round of each entry of sessions that count is there."""
    counted = {each.session_id for each in table.sessions(E) if each.counts}
    return Counter((row.key_hash, row.batch, row.round) for row in table.measurements(E) if row.session_id in counted)


def complete(found: Inventory) -> Counter[tuple[str, int, int]]:
    """Two rounds in each of two processes, numbered through."""
    return Counter((name, 1, number) for name in found.parts for number in range(4))


def test_every_part_is_measured_in_two_processes(found: Inventory, tmp_path: Path) -> None:
    torch.set_float32_matmul_precision("high")  # which the processes must be told, as their environment has it
    seen: list[tuple[int, int]] = []
    try:
        with LatencyTable.open(tmp_path / "table.db") as table:
            report = run(found, table, lambda done, total: seen.append((done, total)))
            sessions = [each for each in table.sessions(E) if each.counts]
            assert rounds_of(table) == complete(found)
            entries = table.entries(E, tuple(found.parts), [1])
            assert run(found, table).visits == 0
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len({each.process for each in sessions}) >= 2
    assert process_name() not in {each.process for each in sessions}
    assert all(len(each.checks) == 3 for each in sessions), "canaries before, in the middle and after"
    assert {each.n_processes for each in entries.values()} == {len(sessions)}
    assert len({each.seed for each in report.sessions}) == len(report.sessions)
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen), "one bar over all processes"


# The package without what its own first file imports, which is most of the time that a process takes to start.
DRIVER = """
import sys, types
package = sys.modules["dynarch"] = types.ModuleType("dynarch")
package.__path__ = [sys.argv[2]]
from dynarch.hardware.inventory import inventory
from dynarch.hardware.table import LatencyTable
from dynarch.tests.hardware import test_fresh_process as these
found = inventory(these.SPACE, these.SIGNATURE, compaction=False)
with LatencyTable.open(sys.argv[1]) as table:
    these.run(found, table, lambda done, total: print(done, flush=True))
"""


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_and_measures_nothing_twice(
    found: Inventory, tmp_path: Path, backend: str
) -> None:
    url = fresh_url(backend, tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", DRIVER, url, str(ROOT)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children: list[psutil.Process] = []
    with LatencyTable.open(url) as table:
        try:
            for line in parent.stdout:
                children = psutil.Process(parent.pid).children(recursive=True) or children
                if int(line) > 0 and table.environments():
                    break
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            parent.stdout.close()
        assert children
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, "an orphan goes on measuring"
        before = rounds_of(table)
        wanted = complete(found)
        assert before.total() < wanted.total(), "it was too late to kill anything"
        assert max(before.values(), default=1) == 1
        report = run(found, table)
        assert rounds_of(table) == wanted
        rejected = [each for each in report.sessions if not each.accepted]
        if not rejected:
            assert report.visits == wanted.total() - before.total()
        entries = table.entries(E, tuple(found.parts), [1])
        assert all(each.n_rounds == 4 and each.n_processes >= 2 for each in entries.values())
        assert run(found, table).visits == 0


def ignore(*_: object) -> None:
    """Keeps nothing."""


def due_of(found: Inventory) -> dict[tuple[str, int], Due]:
    return {(name, 1): Due(first=0, now=1, in_all=1) for name in found.parts}


def call(
    measure: FreshProcess,
    found: Inventory,
    *,
    keep: Callable[[Session, Sequence[Row]], None] = ignore,
    on_visits: Callable[[int], None] = ignore,
) -> Session:
    return measure(due_of(found), seed=0, protocol=QUICK, keep=keep, on_visits=on_visits)


def test_an_interrupt_leaves_no_process(found: Inventory) -> None:
    before = set(psutil.Process().children())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(measuring(found), found, on_visits=interrupt)  # which is asked at once, while it imports torch
    assert set(psutil.Process().children()) <= before


def test_a_process_that_dies_is_told_with_its_last_words(found: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = measuring(found)
    monkeypatch.setattr(fresh_process, "_START", "import sys; sys.exit('no memory left')")
    with pytest.raises(DeviceUnavailableError, match=r"ended with code 1 \(no memory left\); what it measured is kept"):
        call(measure, found)
    monkeypatch.setattr(fresh_process, "_START", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(DeviceUnavailableError, match=r"cpu b1 t1 .* ended with code -9 \(it said nothing\)"):
        call(measure, found)


def test_what_a_process_finds_different_is_a_mistake_with_its_place(found: Inventory) -> None:
    other = Space(backbones=(Residual(width=(8,), depth=(1,), stages=2),), families=SPACE.families)
    with pytest.raises(SpecError, match=r"space: must have part \w+ at its place, but has \w+; profile it again"):
        parts_at(other, SIGNATURE, places(found, DEVICE))
    expected = {**DEVICE.environment().to_dict(), "weather": "fine"}
    with pytest.raises(SpecError, match="device: weather must be 'fine' in every process, but is None in a new one"):
        check_environment(DEVICE, expected)


def test_parts_are_found_where_the_inventory_saw_them(found: Inventory) -> None:
    name = max(found.places, key=lambda each: found.places[each])  # in the last network that brings anything new
    ((key, part),) = parts_at(SPACE, SIGNATURE, {name: found.places[name]}).values()
    assert (key.hash, part.info) == (name, found.parts[name][1].info)
    assert parts_at(SPACE, SIGNATURE, found.places).keys() == found.parts.keys()


def test_this_process_has_a_name_of_its_own() -> None:
    assert process_name() == process_name()
    assert process_name().startswith(f"{os.getpid()}-")
