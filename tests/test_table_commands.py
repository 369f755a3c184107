"""`dynarch table`: between two storages, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynarch.hardware.session import Session
from dynarch.hardware.table import LatencyTable
from dynarch.search.storage import Storage
from dynarch.search.table_commands import app
from dynarch.service import app as service
from dynarch.spaces.errors import DataError, DynarchError, StoreError
from dynarch.tests.hardware.exchanged import CONV, EXIT, OTHER, E, measure, rows


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage in which one environment was measured."""
    folder = tmp_path_factory.mktemp("laptop")
    with Storage(folder).open_table() as table:
        measure(table)
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def said(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: str | Path) -> DynarchError:
    """The error, which the command line prints on one line."""
    result = run(*words)
    assert isinstance(result.exception, DynarchError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return result.exception


def test_a_table_travels(laptop: Path, tmp_path: Path) -> None:
    file, board = tmp_path / "laptop.jsonl", tmp_path / "board"
    with Storage(laptop).open_table() as table:
        version = table.version(E)
    assert f"environment {E}, version {version}, 2 parts, 6 measurements" in said(
        "export", file, "--storage", laptop, "--environment", E[:5]
    )
    counts = "2 parts, 6 measurements, 2 corrections"
    assert f"imported environment {E}, version {version}: {counts}" in said("import", file, "--storage", board)
    assert f"everything in {file} was there" in said("import", file, "--storage", board)
    told = json.loads(said("import", file, "--storage", board, "--json"))
    assert (told["environment_id"], told["version"], told["parts"]) == (E, version, 0)
    again = tmp_path / "again.jsonl"
    told = json.loads(said("export", again, "--storage", board, "--json"))
    assert told == {"file": str(again), "environment": E, "version": version, "parts": 2, "measurements": 6}
    again.unlink()
    said("export", again, "--storage", board, "--version", version)
    with Storage(board).open_table() as table:
        assert table.version(E) == version
    assert "only in A: 0, only in B: 0, in both: 4" in said("diff", file, again)


def test_what_is_there_is_shown(laptop: Path) -> None:
    shown = said("show", "--storage", laptop)
    assert shown.splitlines() == [
        f"{E} cpu made up t1",
        "  2 parts at batch 1, 8, 1 versions",
        "  6 measurements, 0 of them imported, in 2 sessions",
        "  drift: 1 sessions, 0 entries; processes: 1",
    ]
    details = said("show", E[:6], "--storage", laptop)
    for line in ("cpu_model: made up", "parts of kind exit: 1", "session drifted is rejected, drift 20.0 %, not used"):
        assert line in details.splitlines()
    (plain,) = json.loads(said("show", "--json", "--storage", laptop))
    assert (plain["environment_id"], plain["measurements"], plain["imported"]) == (E, 6, 0)
    assert [flag["session_id"] for flag in plain["flags"]] == ["drifted"]


def test_a_file_is_shown_in_milliseconds(tmp_path: Path) -> None:
    file = tmp_path / "kernels.csv"
    file.write_text("HW,latency\n14,0.5\n28,2\n")
    shown = said("show", file, "--entries", "1")
    assert "kernels: 2 entries, times in the file in ms" in shown
    assert "HW=14" in shown
    assert "HW=28" not in shown
    renamed = file.rename(tmp_path / "kernels.dat")
    plain = json.loads(said("show", renamed, "--format", "nn-meter-csv", "--json"))
    assert plain["entries"]["HW=28"]["ms"] == 2.0
    assert "looks like none of" in str(refused("show", renamed))


def test_two_environments_are_compared(laptop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    Storage(folder).prepare()
    with Storage(folder).open_table() as table:
        measure(table)
        # Half the speed on the one part that both have measured.
        slow = Session("slow", seed=1)
        table.record(OTHER, slow, rows(CONV, 1, 4_000_000) + rows(EXIT, 2, 1_000_000))
    shown = said("diff", E, OTHER.environment_id, "--storage", folder)
    assert "only in A: 3, only in B: 1, in both: 1" in shown
    assert "B / A: p10 2.000, median 2.000, p90 2.000" in shown
    assert f"2.000  segment {CONV.hash} b1" in shown
    assert "threads: 1 | 2" in shown
    plain = json.loads(said("diff", E, OTHER.environment_id, "--storage", folder, "--json"))
    assert plain["environment"] == {"threads": [1, 2]}
    assert plain["only_b"] == [f"exit {EXIT.hash} b2"]
    file = tmp_path / "one.jsonl"
    said("export", file, "--storage", folder, "--environment", E)
    nothing = json.loads(said("diff", file, f"{E}@{plain_version(folder)}", "--storage", folder, "--json"))
    assert (nothing["median"], nothing["only_a"], nothing["environment"]) == (1.0, [], {})


def plain_version(folder: Path) -> str:
    with Storage(folder).open_table() as table:
        return table.version(E)


def test_mistakes_are_told_and_change_nothing(laptop: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for words in (("show",), ("export", tmp_path / "a.jsonl"), ("diff", E, OTHER.environment_id)):
        assert "there is no latency table in" in str(refused(*words, "--storage", absent))
        assert not absent.exists(), "looking at a storage made one"
    assert isinstance(refused("show", "nowhere", "--storage", laptop), StoreError)
    assert "no frozen version 'v'" in str(
        refused("export", tmp_path / "a.jsonl", "--version", "v", "--storage", laptop)
    )
    taken = tmp_path / "taken.jsonl"
    taken.write_text("precious")
    assert isinstance(refused("export", taken, "--storage", laptop), DataError)
    assert taken.read_text() == "precious"
    said("export", taken, "--storage", laptop, "--force")
    taken.write_text(taken.read_text().replace('"unit":"ns"', '"unit":"ms"'))
    board = tmp_path / "board"
    assert f"{taken}:1: times must be in 'ns'" in str(refused("import", taken, "--storage", board))
    with LatencyTable.open(board / "dynarch.db") as table:
        assert table.environments() == {}


def test_the_commands_are_mounted() -> None:
    shown = CliRunner().invoke(service, ["table", "--help"]).output
    for name in ("export", "import", "show", "diff"):
        assert name in shown
