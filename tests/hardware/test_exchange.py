"""Export and import of latency tables: lossless, whole or not at all, and never on top of what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dynarch.hardware.device import Environment
from dynarch.hardware.exchange import (
    SessionFlag,
    describe,
    diff,
    export_table,
    find_environment,
    find_table,
    import_table,
    read_table,
    stored_table,
)
from dynarch.hardware.formats import ForeignEntry, ForeignTable
from dynarch.hardware.table import Added, LatencyTable, contents_hash
from dynarch.hardware.timer import RoundTiming
from dynarch.spaces.errors import DataError, SpecError, StoreError
from dynarch.tests.databases import BACKENDS, fresh_url
from dynarch.tests.hardware.exchanged import (
    CONV,
    CORRECTION,
    DRIFTED,
    EXIT,
    FITTED,
    OTHER,
    PART,
    QUIET,
    ROW,
    SESSION,
    STEADY,
    E,
    Edit,
    changed,
    exported,
    fingerprint,
    measure,
    rows,
    setting,
    written,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(tmp_path_factory.mktemp("made"))


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LatencyTable]:
    with LatencyTable.open(tmp_path / "table.db") as opened:
        yield opened


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_round_trip_loses_nothing(tmp_path: Path, text: str, backend: str) -> None:
    made = written(tmp_path, text)
    with LatencyTable.open(fresh_url(backend, tmp_path)) as table:
        added = import_table(table, made)
        version = json.loads(text.split("\n", 1)[0])["table_version"]
        assert added == Added(E, version, sessions=2, parts=2, measurements=6, corrections=2, pinned=True)
        again = tmp_path / "again.jsonl"
        contents = export_table(table, E, path=again)
        assert again.read_bytes() == made.read_bytes()
        assert contents.version == table.version(E) == version
        assert {row.source for row in contents.measurements} == {"imported"}
        assert table.environments() == {E: QUIET}
        # What predictions need: entries of the version by name, and its latest correction.
        assert table.entries(E, [CONV.hash], [1, 8], version=version)[CONV.hash, 1].ms == 2.0
        assert table.entries(E, [CONV.hash], [8], version=version, density=(1, 4))[CONV.hash, 8].ms == 3.0
        latest = table.corrections(E, version)[-1]
        assert (latest.correction_id, dict(latest.payload)) == ("a later one", {**FITTED.to_dict(), "batch": 8})


def test_the_same_file_again_changes_nothing(tmp_path: Path, text: str, table: LatencyTable) -> None:
    path = written(tmp_path, text)
    assert not import_table(table, path).nothing
    before = fingerprint(table)
    added = import_table(table, path)
    assert added.nothing
    assert added.pinned
    assert fingerprint(table) == before


def test_a_later_export_adds_and_an_earlier_one_does_not_take_away(tmp_path: Path) -> None:
    times = iter(range(100))
    with LatencyTable.open(tmp_path / "there.db", clock=lambda: float(next(times))) as there:
        opened = replace(STEADY, finished=False, checks=STEADY.checks[:1])
        there.record(QUIET, opened, rows(CONV, 1, 2_000_000))
        export_table(there, E, path=tmp_path / "early.jsonl")
        there.record(QUIET, STEADY, rows(CONV, 1, 1_000_000, first=1))
        export_table(there, E, path=tmp_path / "late.jsonl")
    with LatencyTable.open(tmp_path / "here.db") as here:
        assert import_table(here, tmp_path / "early.jsonl").measurements == 1
        added = import_table(here, tmp_path / "late.jsonl")
        assert (added.sessions, added.measurements, added.pinned) == (1, 1, True)
        before = fingerprint(here)
        assert import_table(here, tmp_path / "early.jsonl").nothing
        assert fingerprint(here) == before
        assert here.version(E) == added.version
        assert here.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 1.0
        assert len(here.versions(E)) == 2  # each import is a state that predictions can name
    with LatencyTable.open(tmp_path / "late_first.db") as here:
        import_table(here, tmp_path / "late.jsonl")
        added = import_table(here, tmp_path / "early.jsonl")
        assert added.nothing
        assert not added.pinned  # the early state was never one of this table


def test_a_frozen_version_travels_alone(tmp_path: Path, table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))
    first = table.freeze(E).version
    second = replace(STEADY, session_id="second")
    table.record(QUIET, second, rows(CONV, 1, 1_000_000, first=1))
    contents = export_table(table, E, path=tmp_path / "first.jsonl", version=first)
    assert [session.session_id for session in contents.sessions] == ["steady"]
    with LatencyTable.open(tmp_path / "other.db") as other:
        import_table(other, tmp_path / "first.jsonl")
        assert other.version(E) == first
    frozen = table.freeze(E).version
    table.record(QUIET, replace(DRIFTED, session_id="second", seed=3, protocol=STEADY.protocol), [])
    with pytest.raises(StoreError, match="one of its sessions was rejected since"):
        export_table(table, E, path=tmp_path / "second.jsonl", version=frozen)
    with pytest.raises(StoreError, match="no frozen version 'absent'"):
        export_table(table, E, path=tmp_path / "second.jsonl", version="absent")
    with pytest.raises(StoreError, match="nothing was measured in environment 'nowhere'"):
        export_table(table, "nowhere", path=tmp_path / "second.jsonl")
    assert not (tmp_path / "second.jsonl").exists()


def test_environments_stay_apart(tmp_path: Path, text: str, table: LatencyTable) -> None:
    measure(table, OTHER, prefix="other ")
    before = table.contents(OTHER.environment_id)
    import_table(table, written(tmp_path, text))
    assert table.environments() == {E: QUIET, OTHER.environment_id: OTHER}
    assert table.contents(OTHER.environment_id) == before
    assert {row.source for row in before.measurements} == {"measured"}


def test_measured_rounds_are_never_joined_or_replaced(tmp_path: Path, text: str, table: LatencyTable) -> None:
    table.record(QUIET, replace(STEADY, session_id="own"), rows(CONV, 1, 4_000_000))
    before = fingerprint(table)
    with pytest.raises(StoreError, match="was measured here, and imported rounds never mix with measured"):
        import_table(table, written(tmp_path, text))
    assert fingerprint(table) == before


def test_what_came_from_here_may_come_back(tmp_path: Path, table: LatencyTable) -> None:
    measure(table)
    export_table(table, E, path=tmp_path / "own.jsonl")
    table.record(QUIET, replace(STEADY, session_id="later"), rows(EXIT, 8, 1_000_000))
    before = fingerprint(table)
    assert import_table(table, tmp_path / "own.jsonl").nothing
    assert fingerprint(table) == before


def contradiction(text: str, line: int, edit: Edit) -> str:
    """The text with a line changed, and a version that agrees with it."""
    edited = changed(text, line, edit)
    values = [json.loads(each) for each in edited.strip().split("\n")]
    accepted = {each["session_id"] for each in values if each.get("line") == "session" and each["accepted"]}
    version = contents_hash(
        (
            each["part"],
            each["batch"],
            *each["density"],
            each["session"],
            each["round"],
            *(each[f.name] for f in fields(RoundTiming)),
        )
        for each in values
        if each.get("line") == "measurement" and each["session"] in accepted
    )
    return changed(edited, 1, lambda header: header.update(table_version=version))


CONTRADICTIONS: tuple[tuple[str, int, Edit, str], ...] = (
    ("a session", SESSION, setting(seed=5), "session 'steady' stands here with other contents"),
    ("a state at one time", SESSION, setting(load=[0.25]), "session 'steady' stands here with other contents"),
    ("a measurement", ROW, setting(n=16), "has another result here in session"),
    ("a part", PART, setting(macs=7), "stands here with other costs or operations"),
    (
        "a correction",
        CORRECTION,
        lambda line: line["payload"].update(a=2.0),
        "correction 'first' stands here with other",
    ),
)


@pytest.mark.parametrize(
    ("line", "edit", "message"), [row[1:] for row in CONTRADICTIONS], ids=[r[0] for r in CONTRADICTIONS]
)
def test_what_contradicts_the_store_changes_nothing(
    tmp_path: Path, text: str, table: LatencyTable, line: int, edit: Edit, message: str
) -> None:
    import_table(table, written(tmp_path, text))
    before = fingerprint(table)
    with pytest.raises(StoreError, match=message):
        import_table(table, written(tmp_path, contradiction(text, line, edit)))
    assert fingerprint(table) == before


def test_a_session_belongs_to_one_environment(tmp_path: Path, text: str, table: LatencyTable) -> None:
    table.record(OTHER, STEADY, rows(CONV, 1, 1_000_000))
    before = fingerprint(table)
    with pytest.raises(StoreError, match="session 'steady' belongs to environment"):
        import_table(table, written(tmp_path, text))
    assert fingerprint(table) == before


def test_an_export_replaces_nothing_unasked(tmp_path: Path, table: LatencyTable) -> None:
    environment_id, path = OTHER.environment_id, tmp_path / "table.jsonl"
    measure(table, OTHER)
    export_table(table, environment_id, path=path)
    export_table(table, environment_id, path=path)  # the same contents
    path.write_text("precious")
    with pytest.raises(DataError, match="is there with other contents; name another file or force it"):
        export_table(table, environment_id, path=path)
    assert path.read_text() == "precious"
    export_table(table, environment_id, path=path, overwrite=True)
    assert path.read_text() != "precious"
    for impossible in (tmp_path, tmp_path / "absent" / "table.jsonl"):
        with pytest.raises(DataError, match=r"cannot be written \(.*\); name another file"):
            export_table(table, environment_id, path=impossible)
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".partial")]


def test_nothing_leaves_that_could_not_be_imported(tmp_path: Path, table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(replace(CONV, hash="c" * 24), 1, 1_000_000))
    with pytest.raises(DataError, match="must be that of kind and operations"):
        export_table(table, E, path=tmp_path / "table.jsonl")
    assert not (tmp_path / "table.jsonl").exists()


def test_a_description_says_what_to_distrust(tmp_path: Path, text: str, table: LatencyTable) -> None:
    import_table(table, written(tmp_path, text))
    found = describe(table, E)
    assert (found.imported, found.summary.measurements, found.summary.batches) == (6, 6, (1, 8))
    assert found.flags == (SessionFlag("drifted", "rejected", pytest.approx(0.2), accepted=False),)  # type: ignore[arg-type]
    assert found.drifted == ()
    # Both sessions are steady, but a tenth apart, with a noise of 2 in a million: one of them is wrong.
    table.record(OTHER, replace(STEADY, session_id="a"), rows(CONV, 1, 1_000_000) + rows(EXIT, 1, 1_000_000))
    table.record(OTHER, replace(STEADY, session_id="b"), rows(CONV, 1, 1_100_000) + rows(EXIT, 1, 1_040_000))
    own = describe(table, OTHER.environment_id)
    assert (own.imported, own.drifted, own.flags) == (0, ((CONV.hash, 1, (1, 1)),), ())
    with pytest.raises(StoreError, match="nothing was measured in environment 'nowhere'"):
        describe(table, "nowhere")


def test_a_rejected_table_can_be_described(table: LatencyTable) -> None:
    table.record(QUIET, DRIFTED, rows(CONV, 1, 1_000_000))
    assert [flag.verdict for flag in describe(table, E).flags] == ["rejected"]
    with pytest.raises(StoreError, match="no accepted measurements; profile its device first"):
        stored_table(table, E)


def foreign(environment: dict[str, str | int | bool], **ms: float) -> ForeignTable:
    return ForeignTable("made up", "ms", {name: ForeignEntry(value) for name, value in ms.items()}, environment)


def test_two_tables_compared() -> None:
    first = foreign({"kind": "cpu", "threads": 1, "mkl": True}, a=1.0, b=2.0, c=4.0, d=5.0, e=1.0, gone=1.0)
    second = foreign({"kind": "cpu", "threads": 2, "os": "x"}, a=1.0, b=4.0, c=1.0, d=5.5, e=1.5, new=1.0)
    found = diff(first, second)
    assert (found.only_a, found.only_b) == (("gone",), ("new",))
    # Ratios in order: 0.25, 1, 1.1, 1.5, 2. The 10 % quantile of five lies 0.4 of the way from the first to the
    # second, 0.25 + 0.4 * 0.75 = 0.55; the 90 % quantile 0.6 of the way from the fourth to the fifth, 1.8.
    assert (found.p10, found.median, found.p90) == pytest.approx((0.55, 1.1, 1.8))
    assert [*found.ratios] == ["c", "b", "e", "d", "a"]  # the largest change first: a quarter before a double
    assert found.environment == {"threads": (1, 2), "mkl": (True, None), "os": (None, "x")}
    nothing = diff(foreign({}, a=1.0), foreign({}, b=1.0))
    assert math.isnan(nothing.median)
    assert nothing.environment == {}


def test_a_table_and_its_file_are_equal(tmp_path: Path, text: str, table: LatencyTable) -> None:
    path = written(tmp_path, text)
    import_table(table, path)
    stored = stored_table(table, E)
    assert read_table(path) == stored == find_table(table, str(path)) == find_table(table, E[:6])
    assert find_table(table, f"{E}@{table.version(E)}") == stored
    assert (stored.device_name, stored.unit) == ("cpu made up", "ns")
    assert {name: entry.ms for name, entry in stored.entries.items()} == {
        f"segment {CONV.hash} b1": 2.0,
        f"segment {CONV.hash} b8": 9.0,
        f"segment {CONV.hash} b8 d1/4": 3.0,
        f"exit {EXIT.hash} b1": 0.5,  # the 0.7 of the rejected session would not change this minimum
    }
    assert stored.entries[f"segment {CONV.hash} b1"].count == 2
    assert [*diff(stored, read_table(path)).ratios.values()] == [1.0] * 4


def test_an_accelerator_is_summed_up_by_the_median(tmp_path: Path, table: LatencyTable) -> None:
    gpu = Environment((("kind", "cuda"), ("gpu", "made up")))
    table.record(gpu, STEADY, rows(CONV, 1, 1_000_000))
    (entry,) = stored_table(table, gpu.environment_id).entries.values()
    assert entry.ms == 1.000003  # the median lies 3 ns above the minimum


def test_an_environment_is_found_by_its_first_digits(table: LatencyTable) -> None:
    with pytest.raises(StoreError, match=r"there is no latency table in .*table.db; profile"):
        find_environment(table)
    measure(table)
    assert find_environment(table) == find_environment(table, E[:4]) == E
    measure(table, OTHER, prefix="other ")
    assert find_environment(table, E) == E
    for text in (None, E[:3], "0" * 16):
        with pytest.raises(StoreError, match=r"such; known are .*: give its first digits"):
            find_environment(table, text)
    with pytest.raises(SpecError, match="must be a file or an environment"):
        find_table(table, "")
    with pytest.raises(StoreError, match="must name one environment"):
        find_table(table, "x" * 5000)
