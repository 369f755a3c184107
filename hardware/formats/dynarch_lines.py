"""Our own format: JSON lines that hold one environment of a latency table whole, times in nanoseconds.

The first line names format, environment, table version and unit, and says how many lines of each kind follow:
sessions, parts with their operations, measurements, corrections. Equal contents are equal bytes. Whatever can be
checked is: the environment's id and every part's hash against their contents, the table version against the
measurements, the counts against the lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Final, final

from ...spaces.errors import DataError, SpecError
from ..correction import Correction
from ..device import Environment, Statistic
from ..devices import DEVICES
from ..keys import KEY_SCHEMA_VERSION, PartKey, key_hash
from ..table import Entry, StoredCorrection, StoredMeasurement, StoredSession, TableContents
from ..timer import RoundTiming
from .format import AbstractFormat, Attribute, ForeignEntry, ForeignTable, Unit
from .reading import Fields, is_text, is_whole, parse_json, read_text, shown
from .session_line import read_session

FORMAT: Final = "dynarch-latency-table"
FORMAT_VERSION: Final = 1
REMEDY: Final = "export the table again where it was measured"
_UNIT: Final[Unit] = "ns"
_COUNTS: Final = {"session": "sessions", "part": "parts", "measurement": "measurements", "correction": "corrections"}
_TIMES: Final = tuple(field.name for field in fields(RoundTiming))


@final
class DynarchLines(AbstractFormat):
    """Reads exported latency tables, to look at them; `read_contents` has every number."""

    name: ClassVar[str] = "dynarch"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".txt")
    unit: ClassVar[Unit] = _UNIT

    def recognises(self, opening: str) -> bool:
        """The header names the format."""
        return f'"{FORMAT}"' in opening

    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds."""
        return summary(parse_contents(text, str(path)))


def summary(contents: TableContents) -> ForeignTable:
    """The value of each part at each batch and density, by a name that says all three."""
    environment = contents.environment.to_dict()
    kinds = {part.hash: part.kind for part in contents.parts}
    processes = {session.session_id: session.process or session.session_id for session in contents.sessions}
    rounds: dict[tuple[str, int, tuple[int, int]], dict[str, list[RoundTiming]]] = {}
    for row in contents.accepted:
        by_process = rounds.setdefault((row.key_hash, row.batch, row.density), {})
        by_process.setdefault(processes[row.session_id], []).append(row.timing)
    statistic = statistic_of(str(environment.get("kind")))
    entries = {}
    for (key, batch, density), timings in rounds.items():
        entry = Entry.of(timings, statistic)
        share = f"{density[0]}/{density[1]}"
        attributes: dict[str, Attribute] = {"kind": kinds[key], "part": key, "batch": batch, "density": share}
        name = f"{kinds[key]} {key} b{batch}" + ("" if density == (1, 1) else f" d{share}")
        entries[name] = ForeignEntry(entry.ms, entry.ms * entry.relsd, entry.n_rounds, attributes)
    words = (str(environment[name]) for name in ("kind", "cpu_model", "gpu", "dtype", "runtime") if name in environment)
    return ForeignTable(" ".join(words) or contents.environment.environment_id, _UNIT, entries, environment)


def statistic_of(kind: str) -> Statistic:
    """Which number of a round stands for the latency on a kind of device; unknown ones are taken for CPUs."""
    return {device.kind: device.statistic for device in DEVICES}.get(kind, "min")


def lines(contents: TableContents) -> Iterator[str]:
    """The file, line by line."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "key_schema_version": KEY_SCHEMA_VERSION,
        "environment_id": contents.environment.environment_id,
        "environment": [list(item) for item in contents.environment.items],
        "table_version": contents.version,
        "unit": _UNIT,
        **{name: len(getattr(contents, name)) for name in _COUNTS.values()},
    }
    yield _line(header)
    for session in contents.sessions:
        yield _line({"line": "session", **vars(session)})
    for part in contents.parts:
        yield _line({"line": "part", **part.to_dict()})
    for row in contents.measurements:
        visit = {"part": row.key_hash, "batch": row.batch, "density": list(row.density)}
        yield _line(
            {"line": "measurement", **visit, "session": row.session_id, "round": row.round, **asdict(row.timing)}
        )
    for each in contents.corrections:
        made = {"correction_id": each.correction_id, "created_at": each.created_at, "payload": dict(each.payload)}
        yield _line({"line": "correction", **made})


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False) + "\n"


def read_contents(path: Path) -> TableContents:
    """What an exported file holds, after every check that needs no database.

    Raises:
        DataError: if anything in it is not as it was exported; names the line.
    """
    return parse_contents(read_text(path), str(path))


def parse_contents(text: str, path: str) -> TableContents:
    """What the text of an exported file holds.

    Raises:
        DataError: if anything in it is not as it was exported; names the line.
    """
    raw = text.split("\n")
    if raw[-1] == "":
        raw.pop()
    environment, version, counts = _header(Fields(parse_json(raw[0], path, 1), f"{path}:1", remedy=REMEDY))
    reader = _Reader(environment.environment_id, version)
    for number, line in enumerate(raw[1:], start=2):
        reader.add(Fields(parse_json(line, path, number), f"{path}:{number}", remedy=REMEDY))
    return reader.contents(environment, counts, path)


def _header(line: Fields) -> tuple[Environment, str, dict[str, int]]:
    if line.optional("format") != FORMAT:
        line.refuse(f"the first line must name the format {FORMAT!r}, but does not")
    written = line.whole("format_version", 1)
    if written != FORMAT_VERSION:
        line.refuse(
            f"format version must be {FORMAT_VERSION}, but is {shown(written)}", "use the dynarch that wrote it"
        )
    schema = line.whole("key_schema_version", 1)
    if schema != KEY_SCHEMA_VERSION:
        rule = f"keys must have schema version {KEY_SCHEMA_VERSION}, but have {shown(schema)}"
        line.refuse(rule, "profile again with this dynarch, and export that")
    unit = line.text("unit")
    if unit != _UNIT:
        line.refuse(f"times must be in {_UNIT!r}, but the file says {shown(unit)}")
    pairs = line.items("environment", "pairs of a name and a text, whole number or flag", _is_item)
    environment = Environment(tuple(tuple(pair) for pair in pairs))  # type: ignore[arg-type,misc]  # just checked
    if len(environment.to_dict()) != len(pairs) or not pairs:
        line.refuse("field 'environment' must name something, and nothing twice")
    stated = line.text("environment_id")
    if stated != environment.environment_id:
        line.refuse(
            f"environment {shown(stated)} must be what its items hash to, which is {environment.environment_id}"
        )
    version = line.text("table_version")
    counts = {name: line.whole(name) for name in _COUNTS.values()}
    line.end()
    return environment, version, counts


def _is_item(value: object) -> bool:
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
        return False
    return isinstance(value[1], str | bool) or (isinstance(value[1], int) and abs(value[1]) < 2**63)


@final
class _Reader:
    """Collects the lines below the header; each is checked against those before it."""

    def __init__(self, environment_id: str, version: str) -> None:
        self._environment_id = environment_id
        self._version = version
        self._sessions: dict[str, StoredSession] = {}
        self._parts: dict[str, PartKey] = {}
        self._measurements: dict[object, StoredMeasurement] = {}
        self._corrections: dict[str, StoredCorrection] = {}

    def add(self, line: Fields) -> None:
        """One line more."""
        kind = line.text("line")
        if kind == "session":
            session = read_session(line)
            _keep(self._sessions, session.session_id, session, line)
        elif kind == "part":
            part = _part(line)
            _keep(self._parts, part.hash, part, line)
        elif kind == "measurement":
            row = self._measurement(line)
            _keep(self._measurements, row.visit, row, line)
        elif kind == "correction":
            correction = self._correction(line)
            _keep(self._corrections, correction.correction_id, correction, line)
        else:
            line.refuse(f"a line must be one of {', '.join(_COUNTS)}, but is {shown(kind)}")
        line.end()

    def contents(self, environment: Environment, counts: Mapping[str, int], path: str) -> TableContents:
        """All lines together, if nothing is missing and nothing was changed."""
        found = TableContents(
            environment=environment,
            version=self._version,
            sessions=tuple(sorted(self._sessions.values(), key=lambda each: each.session_id)),
            parts=tuple(sorted(self._parts.values(), key=lambda part: part.hash)),
            measurements=tuple(sorted(self._measurements.values(), key=lambda row: row.contents)),
            corrections=tuple(self._corrections.values()),
        )
        for name, count in counts.items():
            if len(getattr(found, name)) != count:
                got = len(getattr(found, name))
                message = (
                    f"the header promises {count} {name}, but {got} follow; the file may be truncated: copy it again"
                )
                raise DataError(f"{path}:1", message)
        idle = self._parts.keys() - {row.key_hash for row in found.measurements}
        if idle:
            raise DataError(path, f"every part must be measured, but {min(idle)} is not; {REMEDY}")
        if not found.accepted:
            raise DataError(path, f"there must be a measurement in an accepted session, but there is none; {REMEDY}")
        if found.hashed() != self._version:
            message = f"table version {shown(self._version)} must be what the measurements hash to"
            raise DataError(f"{path}:1", f"{message}, which is {found.hashed()}: a number was changed; {REMEDY}")
        return found

    def _measurement(self, line: Fields) -> StoredMeasurement:
        part, session = line.text("part"), line.text("session")
        for name, value, known in (("part", part, self._parts), ("session", session, self._sessions)):
            if value not in known:
                line.refuse(f"{name} {shown(value)} must stand on a line above, but does not")
        density = line.items("density", "two whole numbers, share and whole", is_whole)
        if len(density) != 2 or not 0 <= density[0] <= density[1] or density[1] == 0:  # type: ignore[operator]
            line.refuse(f"field 'density' must be a share of at most 1, but is {shown(density)}")
        return StoredMeasurement(
            key_hash=part,
            batch=line.whole("batch", 1),
            density=(density[0], density[1]),  # type: ignore[arg-type]
            session_id=session,
            round=line.whole("round"),
            timing=_timing(line),
        )

    def _correction(self, line: Fields) -> StoredCorrection:
        payload: Any = line.take("payload")
        if not isinstance(payload, dict):
            line.refuse(f"field 'payload' must be an object, but is {shown(payload)}")
        batch = payload.get("batch", 1)
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            line.refuse(f"payload.batch must be an integer of at least 1, but is {shown(batch)}")
        try:
            Correction.from_dict({name: value for name, value in payload.items() if name != "batch"})
        except SpecError as error:
            line.refuse(str(error))
        name, created_at = line.text("correction_id"), line.number("created_at")
        return StoredCorrection(name, self._environment_id, self._version, created_at, payload)


def _keep(known: dict[Any, Any], name: object, value: object, line: Fields) -> None:
    if name in known:
        line.refuse(f"lines must be unique, but {shown(name)} stands twice")
    known[name] = value


def _timing(line: Fields) -> RoundTiming:
    values = {name: line.whole(name, 0 if name == "mad_ns" else 1) for name in _TIMES}
    timing = RoundTiming(**values)
    rising = [timing.min_ns, timing.p10_ns, timing.median_ns, timing.p90_ns, timing.max_ns]
    if rising != sorted(rising):
        line.refuse(
            f"times must not fall from min_ns over p10_ns, median_ns, p90_ns to max_ns, but are {shown(rising)}"
        )
    if not timing.min_ns <= timing.mean_ns <= timing.max_ns or timing.mad_ns > timing.max_ns - timing.min_ns:
        line.refuse(
            f"mean_ns and mad_ns must lie between min_ns and max_ns, but are {timing.mean_ns} and {timing.mad_ns}"
        )
    return timing


def _part(line: Fields) -> PartKey:
    stated, kind = line.text("hash"), line.text("kind")
    ops = line.items("ops", "operations, each an object with the text 'op'", _is_operation)
    part = PartKey(
        hash=stated,
        kind=kind,
        ops=tuple(ops),  # type: ignore[arg-type]  # just checked
        macs=line.whole("macs"),
        bytes_weights=line.whole("bytes_weights"),
        uncounted=tuple(str(name) for name in line.items("uncounted", "texts", is_text)),
    )
    if key_hash(kind, part.ops) != stated:
        line.refuse(f"hash {shown(stated)} must be that of kind and operations, which is {key_hash(kind, part.ops)}")
    return part


def _is_operation(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("op"), str)
