"""Pictures of a front: an interactive page that works offline, and a PNG drawn without a browser."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any, final

import plotly.graph_objects as go
import plotly.io
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .report_rows import FrontReport, ReportRow, milliseconds, printable

_INK, _FAINT, _ACCENT = "#1f2933", "#b4bcc6", "#0b6e99"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1100px;margin:2em auto;padding:0 1em}"
    "h1{font-size:1.5em;margin:0}p,ul{color:#52606d;margin:.3em 0}"
)
_EMPTY = "The front is empty: no candidate gave an operating point"
_VIEWS = (  # entry of the menu, axis, field of the times on a device
    ("mean, predicted", "mean latency, predicted (ms)", "latency_ms"),
    ("mean, measured", "mean latency, measured on the device (ms)", "measured_ms"),
    ("p95, predicted", "95th percentile of latency, predicted (ms)", "latency_p95_ms"),
    ("p95, measured", "95th percentile of latency, measured on the device (ms)", "measured_p95_ms"),
)


@final
@dataclass(frozen=True)
class _Group:
    """Rows that share a legend entry: its name and colour, its marker in plotly's and matplotlib's words."""

    name: str
    colour: str
    symbol: str
    marker: str
    size: int
    rows: tuple[ReportRow, ...]


def _groups(report: FrontReport) -> tuple[_Group, ...]:
    kinds = (
        ("static", "static network", "#c8553d", "square", "s"),
        ("single_exit", "one exit for all inputs", "#d99a2b", "diamond", "D"),
        ("random_exit", "random exit, same rates", "#7a5195", "triangle-up", "^"),
    )
    baselines = tuple(
        _Group(name, colour, symbol, marker, 8, tuple(row for row in report.baselines if row.kind == kind))
        for kind, name, colour, symbol, marker in kinds
    )
    others = _Group("other points", _FAINT, "circle", "o", 5, report.others)
    front = _Group("dynamic front", _ACCENT, "circle", "o", 9, report.front)
    return tuple(group for group in (others, *baselines, front) if group.rows)


def _staircase(xs: Sequence[float], accuracies: Sequence[float]) -> tuple[list[float], list[float]]:
    """The best accuracy to be had within each latency; the test split may rank points anew."""
    pairs = sorted(zip(xs, accuracies, strict=True))
    return [x for x, _ in pairs], list(accumulate((y for _, y in pairs), max))


def front_html(report: FrontReport) -> str:
    """A page with the front to hover over; carries its own script, needs no network."""
    title = escape(printable(report.name))
    figure = _front_figure(report)
    plots = [plotly.io.to_html(figure, full_html=False, include_plotlyjs=True, config=_config("front"))]
    if len(report.hypervolume_history) > 1:
        history = _history_figure(report)
        plots.append(plotly.io.to_html(history, full_html=False, include_plotlyjs=False, config=_config("history")))
    goals = ", ".join(f"{direction} {metric} ({unit})" for metric, direction, unit in report.objectives)
    notes = "".join(f"<li>{escape(printable(note))}</li>" for note in report.notes)
    about = escape(printable(f"{report.device} · search {report.search_id}"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{about}</p>"
        f"<p>{escape(printable(goals))}</p><p>{escape(report.headline)}</p>{''.join(plots)}"
        f"{f'<ul>{notes}</ul>' if notes else ''}</body></html>\n"
    )


def _config(name: str) -> dict[str, Any]:
    return {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"filename": name}}


def _front_figure(report: FrontReport) -> go.Figure:
    groups = _groups(report)
    figure = go.Figure()
    for group in groups:
        figure.add_trace(_scatter(group, report.devices))
    if report.front:
        xs, ys = _line(report.front, "latency_ms")
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"shape": "hv", "color": _ACCENT},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(
        template="plotly_white",
        height=580,
        margin={"t": 70, "r": 20},
        xaxis={"title": _first_title(report), "rangemode": "tozero"},
        yaxis={"title": "accuracy on the test split", "tickformat": ".1%"},
        legend={"orientation": "h", "y": -0.16},
        hoverlabel={"align": "left", "bgcolor": "white"},
        updatemenus=[_menu(report, groups)] if groups else [],
    )
    if not report.front:
        middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
        figure.add_annotation(text=_EMPTY, showarrow=False, font={"size": 18}, **middle)
    return figure


def _first_title(report: FrontReport) -> str:
    return f"{_safe(report.devices[0])}: {_VIEWS[0][1]}" if len(report.devices) > 1 else _VIEWS[0][1]


def _scatter(group: _Group, devices: Sequence[str]) -> go.Scatter:
    rows = group.rows
    return go.Scatter(
        x=[row.latency_ms for row in rows],
        y=[row.accuracy for row in rows],
        error_y={
            "array": [row.accuracy_high - row.accuracy for row in rows],
            "arrayminus": [row.accuracy - row.accuracy_low for row in rows],
            "thickness": 1,
            "width": 2,
        },
        name=group.name,
        mode="markers",
        marker={"color": group.colour, "symbol": group.symbol, "size": group.size + 2},
        opacity=0.45 if group.name == "other points" else 1.0,
        text=[_hover(row, devices) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _line(front: Sequence[ReportRow], field: str, device: str | None = None) -> tuple[list[float], list[float]]:
    known = [(getattr(row.on(device), field), row.accuracy) for row in front]
    pairs = [(x, y) for x, y in known if x is not None]
    return _staircase([x for x, _ in pairs], [y for _, y in pairs])


def _menu(report: FrontReport, groups: Sequence[_Group]) -> dict[str, Any]:
    """What is on the axis: a row of buttons, or a list where there are several devices."""
    several = len(report.devices) > 1
    entries = []
    for device in (None, *report.devices[1:]):
        for label, axis, field in _VIEWS:
            if all(getattr(row.on(device), field) is None for row in report.rows):
                continue
            name = _safe(device or report.devices[0]) if several else ""
            title = f"{name}: {axis}" if several else axis
            change = [_moved(report, groups, field, device), {"xaxis.title.text": title}]
            entries.append({"label": f"{name}: {label}" if several else label, "method": "update", "args": change})
    return {
        "type": "dropdown" if several else "buttons",
        "direction": "down" if several else "right",
        "x": 0,
        "xanchor": "left",
        "y": 1.13,
        "yanchor": "top",
        "bgcolor": "white",
        "buttons": entries,
    }


def _moved(report: FrontReport, groups: Sequence[_Group], field: str, device: str | None) -> dict[str, Any]:
    """All points at their latency in this view; the line of the front last."""
    xs = [[getattr(row.on(device), field) for row in group.rows] for group in groups]
    ys = [[row.accuracy for row in group.rows] for group in groups]
    if report.front:
        line_x, line_y = _line(report.front, field, device)
        xs, ys = [*xs, line_x], [*ys, line_y]
    return {"x": xs, "y": ys}


def _hover(row: ReportRow, devices: Sequence[str]) -> str:
    """What the pointer shows; plotly reads tags in it, so all that came from outside is escaped."""
    saved = "" if row.work_saved is None else f", {row.work_saved:.0%} of the work saved"
    exits = " ".join(f"{share:.0%}" for share in row.exit_share)
    lines = [
        f"<b>{_safe(row.label)}</b> {_safe(row.summary)}",
        "on the front, although all inputs take one path" if row.front and row.kind != "dynamic" else "",
        f"{_safe(row.backbone)} · {_safe(' + '.join(row.families) or 'no dynamic family')}",
        f"policy {_safe(row.policy)}" if row.policy else "",
        f"accuracy {row.accuracy:.2%} (95 %: {row.accuracy_low:.2%} to {row.accuracy_high:.2%})",
        *_told_times(row, devices),
        f"{row.macs / 1e6:.3g} M MACs{saved}",
        f"leave at each exit: {exits}" if exits else "",
        f"architecture {_safe(row.architecture_id)}",
    ]
    return "<br>".join(line for line in lines if line)


def _told_times(row: ReportRow, devices: Sequence[str]) -> list[str]:
    lines = []
    for device in (None, *devices[1:]):
        at = f" on {_safe(device or devices[0])}" if len(devices) > 1 else ""
        each = row.on(device)
        lines += [
            f"mean {milliseconds(each.latency_ms)} ms predicted, {milliseconds(each.measured_ms)} measured{at}",
            f"p95 {milliseconds(each.latency_p95_ms)} ms predicted, {milliseconds(each.measured_p95_ms)} measured{at}",
        ]
    return lines


def _safe(text: str) -> str:
    return escape(printable(text)).replace("%{", "%&#123;")  # a template would fill in %{...}


def _history_figure(report: FrontReport) -> go.Figure:
    done, volume = zip(*report.hypervolume_history, strict=True)
    figure = go.Figure(go.Scatter(x=done, y=volume, mode="lines", line={"shape": "hv", "color": _ACCENT}))
    figure.update_layout(
        template="plotly_white",
        height=300,
        margin={"t": 20, "r": 20},
        xaxis={"title": "candidates done"},
        yaxis={"title": "hypervolume of the front"},
    )
    return figure


def png_bytes(report: FrontReport) -> bytes:
    """The front as a PNG image."""
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, no display
    axes = figure.add_subplot()
    _frame(axes, report)
    for group in _groups(report):
        _draw(axes, group)
    if report.front:
        _draw_front(axes, report.front)
    else:
        axes.text(0.5, 0.5, _EMPTY, transform=axes.transAxes, ha="center", va="center", size=13)
    if any(row.measured_ms is not None for row in report.rows):
        axes.plot([], [], "|-", color=_INK, lw=0.8, ms=7, label="measured on the device")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    out = io.BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png")
    return out.getvalue()


def _frame(axes: Axes, report: FrontReport) -> None:
    # names may hold $, which matplotlib would read as mathematics
    axes.set_title(_short(report.name, 70), loc="left", size=13, weight="bold", color=_INK, pad=34, parse_math=False)
    subtitle = f"{_short(report.device, 120)}\n{_short(report.headline, 130)}"
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, size=8, color="#52606d", parse_math=False)
    axes.set_xlabel("mean latency, predicted (ms)", color=_INK)
    axes.set_ylabel("accuracy on the test split (%)", color=_INK)
    axes.grid(color="#e4e7eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not report.rows:
        axes.set_xticks([])
        axes.set_ylim(0, 100)
    times = [row.latency_ms for row in report.rows if row.latency_ms > 0]
    if times and max(times) > 20 * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _short(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _draw(axes: Axes, group: _Group) -> None:
    rows, faint = group.rows, group.name == "other points"
    xs, ys = [row.latency_ms for row in rows], [100 * row.accuracy for row in rows]
    style: dict[str, Any] = {
        "color": group.colour,
        "marker": group.marker,
        "markersize": group.size * 0.8,
        "linestyle": "none",
    }
    if not faint:
        low = [100 * (row.accuracy - row.accuracy_low) for row in rows]
        high = [100 * (row.accuracy_high - row.accuracy) for row in rows]
        axes.errorbar(xs, ys, yerr=(low, high), fmt="none", ecolor=group.colour, elinewidth=0.9, alpha=0.5, zorder=2)
        for row in rows:
            _draw_measured(axes, row, group.colour)
    axes.plot(xs, ys, label=group.name, alpha=0.5 if faint else 1.0, zorder=1 if faint else 4, **style)


def _draw_measured(axes: Axes, row: ReportRow, colour: str) -> None:
    if row.measured_ms is not None:
        ends, height = [row.latency_ms, row.measured_ms], 100 * row.accuracy
        axes.plot(ends, [height, height], color=colour, lw=0.9, zorder=3)
        axes.plot([row.measured_ms], [height], marker="|", color=colour, ms=8, zorder=3)


def _draw_front(axes: Axes, front: Sequence[ReportRow]) -> None:
    xs, ys = _line(front, "latency_ms")
    axes.step(xs, [100 * y for y in ys], where="post", color=_ACCENT, lw=1.6, zorder=3)
    if len(front) <= 12:
        for row in front:
            place: dict[str, Any] = {
                "xy": (row.latency_ms, 100 * row.accuracy),
                "xytext": (-5, 5),
                "textcoords": "offset points",
            }
            axes.annotate(_short(row.label, 12), ha="right", size=8, color=_INK, parse_math=False, **place)
