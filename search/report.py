"""Reports of a front: a table for the terminal, files for people (HTML, PNG) and for programs (CSV, JSON).

The pictures are drawn in `plots`; what they are drawn from is in `report_rows`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ..spaces.errors import StoreError
from .report_rows import DeviceTimes, FrontReport, ReportRow, milliseconds, printable, wilson

__all__ = [
    "FrontReport",
    "ReportRow",
    "front_csv",
    "front_markdown",
    "front_png",
    "front_records",
    "front_table",
    "read_report",
    "report_files",
    "wilson",
    "write_report",
]

_ONE_LINE_WIDTH = 96  # from here on a row's numbers fit beside each other
_LONGEST_LABEL, _NARROWEST_NETWORK = 12, 12
_TIMES = ("latency_ms", "measured_ms", "latency_p95_ms", "measured_p95_ms")


def front_table(report: FrontReport, width: int = 100) -> Table:
    """The front, fastest first, then the static baselines, for a terminal of `width` columns.

    Below 96 columns predicted stands over measured instead of beside it; no column is dropped.
    """
    join = " | " if width >= _ONE_LINE_WIDTH else "\n"
    heads = (
        "point",
        "accuracy %\n95 %",
        f"mean ms\npred{join}meas",
        f"p95 ms\npred{join}meas",
        "work\nsaved",
    )
    sections = [[(row, _cells(row, join)) for row in rows] for rows in (report.front, report.statics)]
    columns = list(zip(heads, *(cells for section in sections for _, cells in section), strict=True))
    widths = [max(len(line) for text in column for line in text.splitlines()) for column in columns]
    network = max(_NARROWEST_NETWORK, width - sum(widths) - 2 * len(widths))  # two blanks between columns
    # rich reads markup in strings: names are data, so they come as Text
    title = Text(printable(report.name) + ("" if report.front else ": the front is empty"), "bold")
    table = Table(title=title, caption=Text(_caption(report)), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge, table.pad_edge = False, False
    table.add_column(heads[0], width=widths[0], no_wrap=True)
    table.add_column("network", width=network)
    for head, size in zip(heads[1:], widths[1:], strict=True):
        table.add_column(head, width=size, justify="right", no_wrap=True)
    for section in sections:
        for row, (label, *numbers) in section:
            table.add_row(*(Text(text) for text in (label, _network(row, network), *numbers)))
        table.add_section()
    return table


def _caption(report: FrontReport) -> str:
    text = f"{printable(report.device)}: {report.headline}"
    won, pairs = report.against_random
    if pairs:
        text += f"\ndecisions beat random ones at the same exit rates at {won} of {pairs} points"
    if any(row.front for row in report.baselines):
        text += "\n* on the front: no dynamic one beats it"
    return text


def _network(row: ReportRow, width: int) -> str:
    name = "" if row.kind == "dynamic" else f"{row.kind.replace('_', ' ')}: "
    return "\n".join(textwrap.wrap(name + printable(row.summary), width, max_lines=2, placeholder="…"))


def _cells(row: ReportRow, join: str) -> tuple[str, ...]:
    """All that a row shows but its network: point, accuracy, latencies, work saved."""
    label = printable(row.label)
    label = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
    label += " *" if row.front and row.kind != "dynamic" else ""
    low, high = 100 * row.accuracy_low, 100 * row.accuracy_high
    interval = f"\n{low:.1f}-{high:.1f}" if join == "\n" else f" [{low:.1f}, {high:.1f}]"
    return (
        label,
        f"{100 * row.accuracy:.1f}{interval}",
        _pair(row.latency_ms, row.measured_ms, join),
        _pair(row.latency_p95_ms, row.measured_p95_ms, join),
        "-" if row.work_saved is None else f"{row.work_saved:.0%}",
    )


def _pair(predicted: float, measured: float | None, join: str) -> str:
    first, second = milliseconds(predicted), milliseconds(measured)
    return f"{first}{join}{second}" if join == "\n" else f"{first:>5}{join}{second:<5}"


def front_markdown(report: FrontReport) -> str:
    """The front as a Markdown list, for places that lay out no tables."""
    lines = [f"**{_markdown(report.name)}** on {_markdown(report.device)}", "", report.headline, ""]
    if not report.front:
        lines.append("The front is empty: no candidate gave an operating point that meets the constraints.")
    for title, rows in (("Front", report.front), ("Baselines", report.baselines)):
        if rows:
            lines += [f"{title}, fastest first:", "", *(_markdown_item(row) for row in rows), ""]
    lines += [f"- {_markdown(note)}" for note in report.notes]
    return "\n".join(lines).strip() + "\n"


def _markdown_item(row: ReportRow) -> str:
    measured = "" if row.measured_ms is None else f", measured {milliseconds(row.measured_ms)} ms"
    return (
        f"- **{_markdown(row.label)}** {row.accuracy:.1%} "
        f"({row.accuracy_low:.1%} to {row.accuracy_high:.1%}), "
        f"{milliseconds(row.latency_ms)} ms predicted{measured}: {_markdown(row.summary)}"
    )


def _markdown(text: str) -> str:
    return "".join("\\" + c if c in "\\`*_{}[]<>#|!&~" else c for c in printable(text))


def front_csv(report: FrontReport, path: Path) -> None:
    """Write one line a row, all fields; tuples are joined by blanks, None is empty.

    Latencies on further devices are columns such as `measured_ms@phone`.

    Raises:
        StoreError: if the file cannot be written.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    names = [field.name for field in fields(ReportRow) if field.name != "elsewhere"]
    times = [field.name for field in fields(DeviceTimes) if field.name != "device"]
    devices = report.devices[1:]
    writer.writerow([*names, *(f"{name}@{device}" for device in devices for name in times)])
    for row in (*report.front, *report.baselines, *report.others):
        cells = [getattr(row, name) for name in names]
        cells += [getattr(row.on(device), name) for device in devices for name in times]
        writer.writerow([_csv_cell(cell) for cell in cells])
    _write(path, out.getvalue().encode())


def _csv_cell(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def front_records(report: FrontReport) -> dict[str, list[Any]]:
    """The rows as columns and data, which MLflow and `pandas.read_json(orient="split")` show as a table.

    Numbers have five digits, as a table in MLflow shows all that there are; `report.json` has them whole.
    """
    columns = [
        *("point", "kind", "front", "accuracy", "accuracy_low", "accuracy_high"),
        *(f"{what}@{device}" for device in report.devices or ("device",) for what in _TIMES),
        *("work_saved", "network", "policy", "candidate", "architecture"),
    ]
    data = [_record(row, report.devices) for row in (*report.front, *report.baselines, *report.others)]
    return {"columns": columns, "data": [[_short(_finite(cell)) for cell in cells] for cells in data]}


def _short(cell: Any) -> Any:
    return float(f"{cell:.5g}") if isinstance(cell, float) else cell


def _record(row: ReportRow, devices: Sequence[str]) -> list[Any]:
    times = [row.on(device) for device in (None, *devices[1:])]
    return [
        *(row.label, row.kind, row.front, row.accuracy, row.accuracy_low, row.accuracy_high),
        *(getattr(each, name) for each in times for name in _TIMES),
        *(row.work_saved, row.summary, row.policy, row.number, row.architecture_id),
    ]


def front_png(report: FrontReport, path: Path) -> None:
    """Draw the front into a PNG file; needs no display and no browser.

    Raises:
        StoreError: if the file cannot be written.
    """
    from .plots import png_bytes

    _write(path, png_bytes(report))


def write_report(report: FrontReport, folder: Path) -> dict[str, Path]:
    """Write front.html, front.png, front.csv, front.json and report.json, each whole or not at all.

    Returns:
        The path of each file by its name.

    Raises:
        StoreError: if a file cannot be written.
    """
    from .plots import front_html

    paths = report_files(folder)
    content = _finite(asdict(report) | {"latency_error": report.latency_error})
    _write(paths["front.html"], front_html(report).encode())
    front_png(report, paths["front.png"])
    front_csv(report, paths["front.csv"])
    _write(paths["front.json"], json.dumps(front_records(report), allow_nan=False).encode())
    _write(paths["report.json"], json.dumps(content, indent=1, allow_nan=False).encode())
    return paths


def report_files(folder: Path) -> dict[str, Path]:
    """Where `write_report` puts its files, by name."""
    return {name: folder / name for name in ("front.html", "front.png", "front.csv", "front.json", "report.json")}


def read_report(folder: Path) -> FrontReport:
    """The report that `write_report` wrote there.

    Raises:
        StoreError: if the file is gone or holds something else.
    """
    file = report_files(folder)["report.json"]
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        del content["latency_error"]  # computed from the rows
        lists = {name: tuple(content[name]) for name in ("objectives", "hypervolume_history", "notes")}
        lists |= {name: tuple(tuple(pair) for pair in lists[name]) for name in ("objectives", "hypervolume_history")}
        lists["devices"] = tuple(content.get("devices", ()))  # absent from reports of an earlier version
        return FrontReport(**{**content, **lists, "rows": tuple(_row(row) for row in content["rows"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"a report must be there to be read, but {file} gave {error!r}; restore the file") from None


def _row(content: dict[str, Any]) -> ReportRow:
    lists = {name: tuple(content[name]) for name in ("families", "exit_share")}
    elsewhere = tuple(DeviceTimes(**each) for each in content.get("elsewhere", ()))
    return ReportRow(**{**content, **lists, "elsewhere": elsewhere})


def _finite(value: object) -> object:
    """`value` with null for what JSON has no word for: one odd number must not cost the report."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _write(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: a reader never sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)  # temporary files are private, reports are not
                os.replace(file.name, path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(
            f"a report needs a writable folder, but {path} gave {error.strerror!r}; choose another folder"
        ) from error
