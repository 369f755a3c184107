"""Latency tables between machines: export, import, what a table holds, and how two of them differ."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from ..spaces.errors import DataError, SpecError, StoreError
from .device import Statistic
from .formats import DynarchLines, ForeignTable, format_of, lines, parse_contents, recognised, statistic_of, summary
from .formats.reading import read_text
from .session import Verdict
from .table import Added, LatencyTable, StoredMeasurement, StoredSession, TableContents, TableSummary

_SHORTEST_PREFIX: Final = 4
_RESOLUTION_MS: Final = 1e-6  # of a clock that counts nanoseconds
# Two sessions disagree about an entry if their values differ by more than both of these.
DRIFTED_ABOVE: Final = 0.05
DRIFTED_ABOVE_MADS: Final = 4.45


def export_table(
    table: LatencyTable, environment_id: str, *, path: Path, version: str | None = None, overwrite: bool = False
) -> TableContents:
    """Write one environment of a latency table to a file, whole; equal contents are equal bytes.

    Args:
        table: where it was measured.
        environment_id: which environment.
        path: the file, such as `phone.jsonl`.
        version: a frozen version of it; None: all there is, rejected sessions included.
        overwrite: whether a file that is there with other contents may be replaced.

    Raises:
        StoreError: if nothing was measured in the environment, or the version is unknown.
        DataError: if the file cannot be written, or is there, or what was measured makes no sense.
    """
    contents = table.contents(environment_id, version=version)
    text = "".join(lines(contents))
    parse_contents(text, str(path))  # nothing leaves that could not be imported
    data = text.encode()
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        if path.is_file() and not overwrite and path.read_bytes() != data:
            raise DataError(
                str(path), "must not exist, but is there with other contents; name another file or force it"
            )
        partial.write_bytes(data)
        partial.replace(path)  # whoever reads the file meanwhile sees the old one or the new one
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(str(path), f"cannot be written ({error.strerror}); name another file") from None
    return contents


def import_table(table: LatencyTable, path: Path) -> Added:
    """Add an exported environment to a latency table, or change nothing.

    All that can be wrong with the file is found before the first row is written. What is added is marked as
    imported, stays in its own environment, and never joins or replaces what was measured here.

    Raises:
        DataError: if the file is not as it was exported, or is a table of another system.
        StoreError: if it contradicts what is here.
    """
    text = read_text(path)
    found = recognised(path, text)
    if found is not None and not isinstance(found, DynarchLines):
        raise DataError(
            str(path),
            f"must be a table that dynarch exported, but is {found.name}, whose entries are operators and not parts of"
            " a network: it can be shown and compared, not imported; profile the device instead",
        )
    return table.receive(parse_contents(text, str(path)))


def read_table(path: Path, *, format_name: str | None = None) -> ForeignTable:
    """A latency table in a file of any known format, to look at and compare.

    Raises:
        UnknownNameError: if there is no format of that name.
        DataError: if the file cannot be read, or is not of the format.
    """
    return format_of(path, format_name).read(path)


def stored_table(table: LatencyTable, environment_id: str, *, version: str | None = None) -> ForeignTable:
    """One environment of a latency table in the same shape as a table in a file.

    Raises:
        StoreError: if nothing was measured in the environment, or the version is unknown.
    """
    return summary(table.contents(environment_id, version=version))


def find_environment(table: LatencyTable, text: str | None = None) -> str:
    """The id of an environment from the first digits of it; None: the only one there is.

    Raises:
        StoreError: if there is none, or more than one.
    """
    known = list(table.environments())
    if not known:
        raise StoreError(
            f"there is no latency table in {table.database.shown_url}; profile a device first, or import one"
        )
    found = [each for each in known if text is None or each == text or _abbreviates(text, each)]
    if len(found) == 1:
        return found[0]
    named = "an environment must be named" if text is None else f"{text!r} must name one environment"
    raise StoreError(f"{named}, but there are {len(found)} such; known are {', '.join(known)}: give its first digits")


def _abbreviates(text: str, environment_id: str) -> bool:
    return len(text) >= _SHORTEST_PREFIX and environment_id.startswith(text)


@final
@dataclass(frozen=True)
class SessionFlag:
    """A session on a machine that did not stay the same, and how far its canaries moved, as a fraction.

    A superseded one was measured on a machine that has changed since, and counts in frozen versions alone.
    """

    session_id: str
    verdict: Verdict
    drift: float
    accepted: bool
    superseded: bool = False


@final
@dataclass(frozen=True)
class TableReport:
    """What a latency table holds of one environment.

    Args:
        summary: counts, batches, sessions and versions.
        imported: how many of the measurements came from a file.
        flags: sessions that were flagged, rejected or never finished.
        drifted: entries about which two sessions that count disagree: part, batch, density.
        processes: how many have measured what counts.
    """

    summary: TableSummary
    imported: int
    flags: tuple[SessionFlag, ...]
    drifted: tuple[tuple[str, int, tuple[int, int]], ...]
    processes: int


def describe(table: LatencyTable, environment_id: str) -> TableReport:
    """What a latency table holds of one environment, and how far it can be trusted.

    Raises:
        StoreError: if nothing was recorded for it.
    """
    found = table.describe(environment_id)
    rows, sessions = table.measurements(environment_id), table.sessions(environment_id)
    counting = {session.session_id for session in sessions if session.counts}
    counted = [row for row in rows if row.session_id in counting]
    return TableReport(
        summary=found,
        imported=sum(row.source == "imported" for row in rows),
        flags=tuple(flag for flag in map(_flag, sessions) if flag.verdict != "steady" or flag.superseded),
        processes=len({session.process or session.session_id for session in sessions if session.counts}),
        drifted=_drifted(counted, statistic_of(str(found.environment.to_dict().get("kind")))),
    )


def _flag(stored: StoredSession) -> SessionFlag:
    session = stored.session()
    return SessionFlag(stored.session_id, session.verdict, session.drift, stored.accepted, stored.superseded)


def _drifted(rows: Sequence[StoredMeasurement], statistic: Statistic) -> tuple[tuple[str, int, tuple[int, int]], ...]:
    """The entries whose best rounds of two sessions lie further apart than noise explains."""
    best: dict[tuple[str, int, tuple[int, int]], dict[str, StoredMeasurement]] = {}
    for row in rows:
        by_session = best.setdefault((row.key_hash, row.batch, row.density), {})
        known = by_session.setdefault(row.session_id, row)
        if row.timing.value_ns(statistic) < known.timing.value_ns(statistic):
            by_session[row.session_id] = row
    return tuple(sorted(entry for entry, found in best.items() if _disagree([*found.values()], statistic)))


def _disagree(rows: Sequence[StoredMeasurement], statistic: Statistic) -> bool:
    ordered = sorted(rows, key=lambda row: row.timing.value_ns(statistic))
    low, high = ordered[0].timing, ordered[-1].timing
    noise = max(each.mad_ns / max(each.median_ns, 1) / math.sqrt(each.n) for each in (low, high))
    ratio = high.value_ns(statistic) / max(low.value_ns(statistic), 1)
    return ratio > 0 and math.log(ratio) > max(DRIFTED_ABOVE, DRIFTED_ABOVE_MADS * noise)


@final
@dataclass(frozen=True)
class TableDiff:
    """How a second table differs from a first.

    Args:
        only_a, only_b: names of the entries that one of them has.
        ratios: of the entries that both have, the second's latency over the first's, the largest change first.
        p10, median, p90: of the ratios; nan if there are none.
        environment: what is said of hardware and software by both and differs, or by one (then None).
    """

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    ratios: Mapping[str, float]
    p10: float
    median: float
    p90: float
    environment: Mapping[str, tuple[str | int | bool | None, str | int | bool | None]]


def diff(a: ForeignTable, b: ForeignTable) -> TableDiff:
    """How table `b` differs from table `a`: entries are matched by name, times compared in milliseconds."""
    first, second = ({name: max(entry.ms, _RESOLUTION_MS) for name, entry in t.entries.items()} for t in (a, b))
    ratios = {name: second[name] / first[name] for name in first.keys() & second.keys()}
    ordered = sorted(ratios, key=lambda name: (-abs(math.log(ratios[name])), name))
    p10, median, p90 = np.quantile([*ratios.values()], (0.1, 0.5, 0.9)) if ratios else (math.nan,) * 3
    said = dict.fromkeys([*a.environment, *b.environment])
    pairs = {name: (a.environment.get(name), b.environment.get(name)) for name in said}
    return TableDiff(
        only_a=tuple(sorted(a.entries.keys() - b.entries.keys())),
        only_b=tuple(sorted(b.entries.keys() - a.entries.keys())),
        ratios={name: ratios[name] for name in ordered},
        p10=float(p10),
        median=float(median),
        p90=float(p90),
        environment={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def find_table(table: LatencyTable, text: str) -> ForeignTable:
    """A table by what a user calls it: a file, or an environment, with `@VERSION` behind it if a frozen one is meant.

    Raises:
        DataError: if it is a file that cannot be read.
        StoreError: if it is neither a file nor an environment that was measured.
        SpecError: if nothing was named.
    """
    if not text:
        raise SpecError("table", "must be a file or an environment, but is empty; see: dynarch table show")
    if os.path.exists(text):  # which, unlike a Path, takes a name that no file can have
        return read_table(Path(text))
    name, _, version = text.partition("@")
    return stored_table(table, find_environment(table, name), version=version or None)
