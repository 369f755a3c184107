"""Picture of latencies: their distribution over inputs, as predicted and as the device had it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..outcome import QUANTILES
from .style import ACCENT, WARM, dressed, spread
from .subject import Member, Subject

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def latency(subject: Subject) -> go.Figure | None:
    """Boxes from the 25th to the 75th percentile, whiskers from the 5th to the 95th, dashes at the mean."""
    members = spread(list(subject.members))
    if not members:
        return None
    figure = go.Figure()
    devices = list(subject.problem.devices)
    for number, device in enumerate(devices):
        figure.add_trace(
            _boxes("predicted", ACCENT, [_predicted(subject, m, device) for m in members], members, number == 0)
        )
        figure.add_trace(_boxes("measured", WARM, [_measured(m, device) for m in members], members, number == 0))
    more: dict[str, Any] = {
        "boxmode": "group",
        "xaxis": {"title": "point of the front", "type": "category"},
        "yaxis": {"title": f"latency of an input on {devices[0]} (ms)", "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"t": 100, "b": 60, "l": 70, "r": 30},
    }
    if len(devices) > 1:
        more["updatemenus"] = [_menu(devices)]
    title = "Latency from input to input: predicted for the tune split, measured on 100 inputs of the test split"
    return dressed(figure, title, height=460, more=more)


def _boxes(
    name: str, colour: str, rows: list[Mapping[float | str, float] | None], members: list[Member], shown: bool
) -> go.Box:
    known = [(member.label, row) for member, row in zip(members, rows, strict=True) if row is not None]
    fences = {level: [row[level] for _, row in known] for level in _LEVELS}
    return go.Box(
        x=[label for label, _ in known],
        lowerfence=fences[0.05],
        q1=fences[0.25],
        median=fences[0.5],
        q3=fences[0.75],
        upperfence=fences[0.95],
        mean=[row["mean"] for _, row in known],
        boxmean=True,
        name=name,
        marker={"color": colour},
        line={"width": 1.5},
        visible=shown,
    )


def _predicted(subject: Subject, member: Member, device: str) -> dict[float | str, float]:
    _, costs = subject.candidate(member.point.number)
    table = subject.tables(member.point.number).at(member.policy.setting)
    pages, seed = subject.book.devices[device], subject.problem.strategy.seed
    found = pages.predict(costs, member.policy, member.taken, seed=seed, usage=table.usage)
    values = np.quantile(found.per_sample_ms, _LEVELS)
    return {**dict(zip(_LEVELS, map(float, values), strict=True)), "mean": found.mean_ms}


def _measured(member: Member, device: str) -> dict[float | str, float] | None:
    """What the device said; None where only means are known, as of searches of an earlier version."""
    row: Any = (member.point.measured or {}).get(device)
    if row is None or any(name not in row for name in QUANTILES):
        return None
    known: dict[float | str, float] = {level: float(row[name]) for name, level in QUANTILES.items()}
    return known | {0.95: float(row["latency_p95_ms"]), "mean": float(row["latency_ms"])}


def _menu(devices: list[str]) -> dict[str, Any]:
    buttons = []
    for number, device in enumerate(devices):
        visible = [each == number for each in range(len(devices)) for _ in range(2)]
        change = [{"visible": visible}, {"yaxis.title.text": f"latency of an input on {device} (ms)"}]
        buttons.append({"label": device, "method": "update", "args": change})
    return {
        "type": "buttons",
        "direction": "right",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "buttons": buttons,
    }
