"""What files tell of sessions: the processes that measured, and whether the machine has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynarch.hardware.exchange import describe, export_table, import_table
from dynarch.hardware.session import Session
from dynarch.hardware.table import LatencyTable
from dynarch.tests.hardware.exchanged import CONV, QUIET, E, exported, rows, written


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LatencyTable]:
    with LatencyTable.open(tmp_path / "table.db") as opened:
        yield opened


def test_processes_and_changes_of_the_machine_travel(tmp_path: Path, table: LatencyTable) -> None:
    for name, process in (("old", "1-a"), ("new", "2-b")):
        made = Session(name, 0, checks=((("relu", 100),),), finished=True, process=process)
        table.record(QUIET, made, rows(CONV, 1, 2_000_000 if name == "old" else 3_000_000))
        if name == "old":
            version = table.freeze(E).version
            export_table(table, E, path=tmp_path / "before.jsonl")
    table.supersede(QUIET, Session("look", 0, process="3-c"), {"old"})
    export_table(table, E, path=tmp_path / "after.jsonl")
    with LatencyTable.open(tmp_path / "board.db") as board:
        assert import_table(board, tmp_path / "before.jsonl").pinned
        assert import_table(board, tmp_path / "after.jsonl").pinned
        assert {each.session_id: (each.process, each.superseded) for each in board.sessions(E)} == {
            "look": ("3-c", False),
            "new": ("2-b", False),
            "old": ("1-a", True),
        }
        assert board.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 3.0
        assert board.entries(E, [CONV.hash], [1], version=version)[CONV.hash, 1].ms == 2.0
        # The older file says nothing new, and does not bring the old session back.
        assert import_table(board, tmp_path / "before.jsonl").nothing
        assert board.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 3.0
        again = export_table(board, E, path=tmp_path / "again.jsonl", version=version)
        assert (again.version, len(again.accepted)) == (version, 1)
        report = describe(board, E)
        assert (report.processes, [flag.session_id for flag in report.flags if flag.superseded]) == (2, ["old"])
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "before.jsonl").read_text()


def test_files_from_before_processes_were_told_are_read(tmp_path: Path, table: LatencyTable) -> None:
    lines = [json.loads(each) for each in exported(tmp_path).strip().split("\n")]
    for line in lines:
        line.pop("process", None)
        line.pop("superseded", None)
    assert import_table(table, written(tmp_path, "\n".join(map(json.dumps, lines)))).pinned
    assert {(each.process, each.superseded) for each in table.sessions(E)} == {("", False)}
