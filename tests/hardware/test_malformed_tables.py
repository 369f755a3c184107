"""Files that are not as they were exported: refused with place, reason and remedy, and nothing is changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dynarch.hardware.exchange import import_table
from dynarch.hardware.keys import key_hash
from dynarch.hardware.table import LatencyTable
from dynarch.spaces.errors import DataError
from dynarch.tests.hardware.exchanged import (
    CORRECTION,
    HEADER,
    OTHER,
    PART,
    ROW,
    SESSION,
    E,
    Edit,
    changed,
    exported,
    fingerprint,
    measure,
    setting,
    written,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatencyTable]:
    """A table with an environment of its own that no file may touch."""
    with LatencyTable.open(tmp_path_factory.mktemp("filled") / "table.db") as opened:
        measure(opened, OTHER, prefix="other ")
        yield opened


def first_of(operations: list[dict[str, Any]]) -> dict[str, Any]:
    return operations[0]


def environment_of(*items: object) -> Edit:
    return setting(environment=[list(item) if isinstance(item, tuple) else item for item in items])


def dropping(name: str) -> Edit:
    return lambda line: line.pop(name)


def with_protocol(**values: object) -> Edit:
    return lambda line: line["protocol"].update(values)


def with_payload(**values: object) -> Edit:
    return lambda line: line["payload"].update(values)


TWICE = environment_of(("kind", "cpu"), ("kind", "cuda"))
HUGE = 10**30
# Line, what is changed there, and what the message must say after the place.
EDITED: tuple[tuple[int, Edit, str], ...] = (
    (HEADER, setting(format="other"), "the first line must name the format 'dynarch-latency-table'"),
    (HEADER, setting(format_version=2), "format version must be 1, but is 2; use the dynarch that wrote it"),
    (HEADER, setting(format_version="1"), "field 'format_version' must be a whole number"),
    (HEADER, setting(key_schema_version=2), "keys must have schema version 1, but have 2; profile again"),
    (HEADER, setting(unit="ms"), "times must be in 'ns', but the file says 'ms'"),
    (HEADER, dropping("unit"), "field 'unit' is missing"),
    (HEADER, setting(environment_id="0" * 16), "environment '0000000000000000' must be what its items hash to"),
    (HEADER, environment_of(("kind", "cuda")), f"environment '{E}' must be what its items hash to"),
    (HEADER, environment_of(), "field 'environment' must name something"),
    (HEADER, TWICE, "field 'environment' must name something, and nothing twice"),
    (HEADER, environment_of(("kind", ["cpu"])), "field 'environment' must be a list of pairs"),
    (HEADER, environment_of(("kind", HUGE)), "field 'environment' must be a list of pairs"),
    (HEADER, setting(environment={"kind": "cpu"}), "field 'environment' must be a list of pairs"),
    (HEADER, setting(table_version="0" * 16), "table version '0000000000000000' must be what the measurements hash to"),
    (HEADER, setting(measurements=7), "the header promises 7 measurements, but 6 follow"),
    (HEADER, setting(parts=-1), "field 'parts' must be a whole number from 0"),
    (HEADER, setting(note="hello"), "unknown field 'note'"),
    (SESSION, setting(session_id=""), "field 'session_id' must be text that is not empty"),
    (SESSION, setting(session_id="half \ud800"), "texts must be storable"),
    (SESSION, setting(session_id="null \x00"), "texts must be storable"),
    (SESSION, setting(seed=True), "field 'seed' must be a whole number"),
    (SESSION, setting(seed=2**63), "field 'seed' must be a whole number"),
    (SESSION, setting(started_at=-1.0), "field 'started_at' must be a number of at least 0"),
    (SESSION, setting(started_at=2e9), "ended_at must not lie before started_at"),
    (SESSION, setting(finished=1), "field 'finished' must be true or false, but is 1"),
    (SESSION, setting(finished=False, accepted=False), "a session that is forced or not finished must be accepted"),
    (SESSION, setting(canary_ratio=1.5), "canary_ratio must be what the checks tell, 1.01, but is 1.5"),
    (SESSION, setting(checks=[[["relu", 0]]]), "field 'checks' must be a list of checks"),
    (SESSION, setting(checks=[[["relu", 1]], [["conv", 1]]]), "all checks must have the same canaries"),
    (SESSION, setting(load=[-0.5]), "field 'load' must be a list of numbers of at least 0"),
    (SESSION, setting(process=7), "field 'process' must be text, but is 7"),
    (SESSION, setting(superseded=0), "field 'superseded' must be true or false, but is 0"),
    (SESSION, setting(protocol=None), "field 'protocol' must map settings to numbers"),
    (SESSION, with_protocol(rounds=0), "protocol.rounds: must be at least 1, but got 0"),
    (SESSION, with_protocol(rounds=1.5), "field 'protocol' must have a whole number for 'rounds', but has 1.5"),
    (SESSION, with_protocol(speed=1), "field 'protocol' must have version"),
    (SESSION, with_protocol(version=2), "the protocol must have version 1, but has 2"),
    (PART, setting(hash="0" * 24), "hash '000000000000000000000000' must be that of kind and operations"),
    (PART, setting(kind="gate"), "must be that of kind and operations, which is"),
    (PART, lambda line: first_of(line["ops"]).update(op="other"), "must be that of kind and operations, which is"),
    (PART, setting(ops=[]), "must be that of kind and operations, which is"),
    (PART, setting(ops=["conv"]), "field 'ops' must be a list of operations"),
    (PART, setting(macs=-1), "field 'macs' must be a whole number from 0"),
    (PART, setting(bytes_weights=HUGE), "field 'bytes_weights' must be a whole number from 0 to"),
    (PART, setting(uncounted="odd.op"), "field 'uncounted' must be a list of texts"),
    (ROW, setting(batch=0), "field 'batch' must be a whole number from 1 to"),
    (ROW, dropping("batch"), "field 'batch' is missing"),
    (ROW, setting(batch="1"), "field 'batch' must be a whole number"),
    (ROW, setting(density=[5, 4]), "field 'density' must be a share of at most 1"),
    (ROW, setting(density=[0, 0]), "field 'density' must be a share of at most 1"),
    (ROW, setting(density=[1]), "field 'density' must be a share of at most 1"),
    (ROW, setting(density=0.25), "field 'density' must be a list of two whole numbers"),
    (ROW, setting(round=-1), "field 'round' must be a whole number from 0"),
    (ROW, setting(n=0), "field 'n' must be a whole number from 1"),
    (ROW, setting(min_ns=0), "field 'min_ns' must be a whole number from 1"),
    (ROW, setting(min_ns=-5), "field 'min_ns' must be a whole number from 1"),
    (ROW, setting(median_ns=2.5), "field 'median_ns' must be a whole number from 1"),
    (ROW, setting(median_ns=math.nan), "numbers must be finite, but got NaN"),
    (ROW, setting(max_ns=math.inf), "numbers must be finite, but got Infinity"),
    (ROW, setting(max_ns=10**4000), "field 'max_ns' must be a whole number from 1 to 9223372036854775807, but is a"),
    (ROW, setting(p90_ns=1), "times must not fall from min_ns"),
    (ROW, setting(mean_ns=1), "mean_ns and mad_ns must lie between"),
    (ROW, setting(mad_ns=10), "mean_ns and mad_ns must lie between"),
    (ROW, setting(part="f" * 24), "part 'ffffffffffffffffffffffff' must stand on a line above"),
    (ROW, setting(session="unseen"), "session 'unseen' must stand on a line above"),
    (ROW, setting(min_ms=2.0), "unknown field 'min_ms'"),
    (ROW, setting(line="row"), "a line must be one of session, part, measurement, correction, but is 'row'"),
    (CORRECTION, with_payload(a=-1.0), "correction.a: must be finite and at least 0"),
    (CORRECTION, with_payload(d=1.0), "correction: must have exactly the names"),
    (CORRECTION, setting(payload=[]), "field 'payload' must be an object"),
)

Change = Callable[[str], str | bytes]


def piece(text: str, line: int) -> str:
    return text.split("\n")[line - 1] + "\n"


# What is done to the whole text, and what the message must say, the place first.
SPOILED: tuple[tuple[str, Change, str], ...] = (
    ("empty", lambda text: "", ": must hold a latency table, but is empty"),
    ("blank", lambda text: "\n \n", ": must hold a latency table, but is empty"),
    ("cut in a line", lambda text: text[:-10], ":13: must be JSON"),
    (
        "cut between lines",
        lambda text: text[: text.index(piece(text, 11))],
        ":1: the header promises 6 measurements, but 5",
    ),
    ("only a header", lambda text: piece(text, 1), ":1: the header promises 2 sessions, but 0 follow"),
    ("no header", lambda text: text.split("\n", 1)[1], ":1: the first line must name the format"),
    ("a line twice", lambda text: text.replace(piece(text, 6), 2 * piece(text, 6)), ":7: lines must be unique"),
    ("a part twice", lambda text: text.replace(piece(text, 4), 2 * piece(text, 4)), ":5: lines must be unique"),
    ("a session twice", lambda text: text.replace(piece(text, 2), 2 * piece(text, 2)), ":3: lines must be unique"),
    ("a correction twice", lambda text: text + piece(text, 12), ":14: lines must be unique"),
    ("a header twice", lambda text: piece(text, 1) + text, ":2: field 'line' is missing"),
    (
        "a field twice",
        lambda text: text.replace('"batch":1', '"batch":1,"batch":1', 1),
        ":6: names in an object must be unique",
    ),
    ("a list", lambda text: text + "[1]\n", ":14: must be a JSON object"),
    ("an empty line", lambda text: text.replace("\n", "\n\n", 1), ":2: must be JSON"),
    ("Latin-1", lambda text: text.replace("made up", "h\u00e4").encode("latin-1"), ":1: must be UTF-8"),
    ("UTF-16", lambda text: text.encode("utf-16"), ":1: must be UTF-8"),
    ("a pickle", lambda text: b"\x80\x04" + text.encode(), ": pickles are never loaded"),
    ("zipped", lambda text: b"PK\x03\x04" + text.encode(), ": must be plain text"),
    ("all rejected", lambda text: _all_rejected(text), ": there must be a measurement in an accepted session"),
    (
        "all superseded",
        lambda text: changed(text, SESSION, setting(superseded=True)),
        ": there must be a measurement in an accepted session",
    ),
    ("an idle part", lambda text: _with_idle_part(text), ": every part must be measured"),
    ("another system's", lambda text: "model_path,HW,latency\nm,1,1\n", ":1: must be JSON"),
)


def _all_rejected(text: str) -> str:
    """Only the drifted session, its part and its measurement."""
    values = [json.loads(each) for each in text.strip().split("\n")]
    header = {**values[0], "sessions": 1, "parts": 1, "measurements": 1, "corrections": 0}
    kept = [each for each in values if "drifted" in (each.get("session_id"), each.get("session"))]
    (measured,) = [each["part"] for each in kept if each["line"] == "measurement"]
    parts = [each for each in values if each.get("hash") == measured]
    return "\n".join(json.dumps(each) for each in (header, kept[0], *parts, *kept[1:]))


def _with_idle_part(text: str) -> str:
    idle = json.loads(piece(text, PART))
    idle |= {"kind": "gate", "hash": key_hash("gate", idle["ops"])}
    return changed(text, HEADER, lambda header: header.update(parts=3)) + json.dumps(idle)


# What is done to the text, the place that the message must begin with, and what else it must say.
CHANGES: list[tuple[Change, str, str]] = [
    *((partial(changed, line=line, change=edit), f":{line}: ", message) for line, edit, message in EDITED),
    *((change, "".join(message.partition(": ")[:2]), message.partition(": ")[2]) for _, change, message in SPOILED),
]


def test_there_are_enough_malformed_files() -> None:
    assert len(CHANGES) >= 60


@pytest.mark.parametrize(("change", "place", "message"), CHANGES, ids=["".join(row[1:]) for row in CHANGES])
def test_a_malformed_file_changes_nothing(
    tmp_path: Path, text: str, filled: LatencyTable, change: Change, place: str, message: str
) -> None:
    before = fingerprint(filled)
    path = written(tmp_path, change(text))
    with pytest.raises(DataError) as caught:
        import_table(filled, path)
    said = str(caught.value)
    assert said.startswith(f"{path}{place}"), said
    assert message in said
    assert "\n" not in said
    assert "; " in said, "names no remedy"
    assert fingerprint(filled) == before


def test_only_files_are_imported(tmp_path: Path, filled: LatencyTable) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(DataError, match="must be a file"):
            import_table(filled, path)
    foreign = tmp_path / "table.csv"
    foreign.write_text("HW,latency\n14,0.5\n")
    with pytest.raises(DataError, match=r"is nn-meter-csv, whose entries are operators .* profile the device instead"):
        import_table(filled, foreign)
