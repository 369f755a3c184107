"""`dynarch table`: latency tables between machines, and what they hold."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..hardware.exchange import (
    TableDiff,
    TableReport,
    describe,
    diff,
    export_table,
    find_environment,
    find_table,
    import_table,
    read_table,
)
from ..hardware.formats import ForeignTable
from ..hardware.table import LatencyTable
from ..spaces.errors import StoreError
from .options import DatabaseOption, JsonOption, StorageOption
from .storage import DEFAULT_STORAGE, Storage

app = typer.Typer(name="table", help="Export, import, show and compare latency tables.", no_args_is_help=True)
out = Console()

FormatOption = Annotated[str | None, typer.Option("--format", help="Format of the file; default: what it looks like.")]
EntriesOption = Annotated[int, typer.Option(min=0, help="How many entries to list.")]


@app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="File to write, such as laptop.jsonl.")],
    environment: Annotated[str | None, typer.Option(help="First digits of its id; default: the only one.")] = None,
    version: Annotated[str | None, typer.Option(help="Frozen version; default: all there is.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the latency table of one environment to a file, to be imported on another machine."""
    with _existing(storage, database) as table:
        chosen = find_environment(table, environment)
        contents = export_table(table, chosen, path=file, version=version, overwrite=force)
    if as_json:
        sizes = {"parts": len(contents.parts), "measurements": len(contents.measurements)}
        _json({"file": str(file), "environment": chosen, "version": contents.version, **sizes})
        return
    counts = f"{len(contents.parts)} parts, {len(contents.measurements)} measurements"
    _say(f"wrote {file}: environment {chosen}, version {contents.version}, {counts}")


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="File that `dynarch table export` wrote.")],
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a latency table that was measured on another machine; anything wrong with the file changes nothing."""
    place = Storage(Path(storage), database)
    place.prepare()
    with place.open_table() as table:
        added = import_table(table, file)
    if as_json:
        _json(asdict(added))
        return
    if added.nothing:
        _say(f"environment {added.environment_id}, version {added.version}: everything in {file} was there")
        return
    counts = f"{added.parts} parts, {added.measurements} measurements, {added.corrections} corrections"
    _say(f"imported environment {added.environment_id}, version {added.version}: {counts}")
    if not added.pinned:
        _say(f"the environment has more here than the file, so that version {added.version} is not frozen here")


@app.command("show")
def show_command(
    what: Annotated[str | None, typer.Argument(help="Environment or file; default: every environment.")] = None,
    file_format: FormatOption = None,
    entries: EntriesOption = 20,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was measured where and how far it can be trusted, or what a file holds."""
    if what is not None and (file_format is not None or os.path.exists(what)):
        found = read_table(Path(what), format_name=file_format)
        _json(_plain_file(found)) if as_json else _show_file(found, entries)
        return
    with _existing(storage, database) as table:
        chosen = sorted(table.environments()) if what is None else [find_environment(table, what)]
        reports = [describe(table, each) for each in chosen]
    if as_json:
        _json([_plain_report(report) for report in reports])
        return
    for report in reports:
        _show_report(report)
    if what is not None:
        _show_details(reports[0])


@app.command("diff")
def diff_command(
    a: Annotated[str, typer.Argument(help="Environment, environment@version, or file.")],
    b: Annotated[str, typer.Argument(help="What to compare it with.")],
    entries: EntriesOption = 5,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two latency tables: entries that one lacks, and the ratios B / A of the others."""
    if os.path.exists(a) and os.path.exists(b):
        found = diff(read_table(Path(a)), read_table(Path(b)))
    else:
        with _existing(storage, database) as table:
            found = diff(find_table(table, a), find_table(table, b))
    _json(_plain_diff(found)) if as_json else _show_diff(found, entries)


@contextmanager
def _existing(storage: str, database: str | None) -> Iterator[LatencyTable]:
    """The latency table of a storage that is there: to look at one must not make one."""
    place = Storage(Path(storage), database)
    if place.database_file is not None and not place.database_file.is_file():
        raise StoreError(f"there is no latency table in {storage!r}; name another --storage, or profile a device first")
    with place.open_table() as table:
        yield table


def _show_report(report: TableReport) -> None:
    found = report.summary
    items = found.environment.to_dict()
    words = [str(items[name]) for name in ("kind", "cpu_model", "gpu", "dtype", "runtime") if name in items]
    threads = [f"t{items['threads']}"] if "threads" in items else []
    _say(" ".join((found.environment_id, *words, *threads)))
    sizes = ", ".join(map(str, found.batches))
    _say(f"  {sum(found.parts.values())} parts at batch {sizes or '-'}, {len(found.versions)} versions")
    _say(f"  {found.measurements} measurements, {report.imported} of them imported, in {found.sessions} sessions")
    flagged = sum(flag.verdict in ("flagged", "rejected") for flag in report.flags)
    _say(f"  drift: {flagged} sessions, {len(report.drifted)} entries; processes: {report.processes}")
    superseded = sum(flag.superseded for flag in report.flags)
    if superseded:
        _say(f"  {superseded} sessions are from before the machine changed, and count in frozen versions alone")


def _show_details(report: TableReport) -> None:
    for name, value in report.summary.environment.items:
        _say(f"{name}: {value}")
    for kind, count in report.summary.parts.items():
        _say(f"parts of kind {kind}: {count}")
    for version in report.summary.versions:
        _say(f"version {version.version}")
    for flag in report.flags:
        used = "superseded" if flag.superseded else "used" if flag.accepted else "not used"
        _say(f"session {flag.session_id} is {flag.verdict}, drift {100 * flag.drift:.1f} %, {used}")
    for part, batch, density in report.drifted:
        _say(
            f"sessions disagree about part {part} at batch {batch}, density {density[0]}/{density[1]}: profile it again"
        )


def _show_file(found: ForeignTable, entries: int) -> None:
    _say(f"{found.device_name}: {len(found.entries)} entries, times in the file in {found.unit}")
    shown = Table("entry", "ms", "spread ms", "count")
    for name, entry in [*found.entries.items()][:entries]:
        spread = "-" if entry.spread_ms is None else f"{entry.spread_ms:.4g}"
        shown.add_row(escape(name), f"{entry.ms:.4g}", spread, "-" if entry.count is None else str(entry.count))
    if entries:
        out.print(shown)


def _show_diff(found: TableDiff, entries: int) -> None:
    _say(f"only in A: {len(found.only_a)}, only in B: {len(found.only_b)}, in both: {len(found.ratios)}")
    if found.ratios:
        _say(f"B / A: p10 {found.p10:.3f}, median {found.median:.3f}, p90 {found.p90:.3f}")
    for name, ratio in [*found.ratios.items()][:entries]:
        _say(f"  {ratio:.3f}  {name}")
    for name, (first, second) in found.environment.items():
        _say(f"{name}: {'-' if first is None else first} | {'-' if second is None else second}")


def _plain_report(report: TableReport) -> dict[str, Any]:
    found = report.summary
    return {
        "environment_id": found.environment_id,
        "environment": found.environment.to_dict(),
        "parts": dict(found.parts),
        "batches": list(found.batches),
        "measurements": found.measurements,
        "imported": report.imported,
        "sessions": found.sessions,
        "rejected_sessions": found.rejected_sessions,
        "processes": report.processes,
        "versions": [version.version for version in found.versions],
        "flags": [vars(flag) for flag in report.flags],
        "drifted": [{"part": part, "batch": batch, "density": list(share)} for part, batch, share in report.drifted],
    }


def _plain_file(found: ForeignTable) -> dict[str, Any]:
    entries = {name: {**vars(entry), "attributes": dict(entry.attributes)} for name, entry in found.entries.items()}
    return {**vars(found), "entries": entries, "environment": dict(found.environment)}


def _plain_diff(found: TableDiff) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in vars(found).items()
    }


def _json(value: object) -> None:
    out.print_json(json.dumps(value))


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
