"""Picture of the exits: how many inputs leave where, and how often they are answered right."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import SHADES, dressed, spread
from .subject import Member, Subject


def exits(subject: Subject) -> go.Figure | None:
    """Share of the inputs and accuracy at each exit, for members of the front; None if none has an exit."""
    members = spread([member for member in subject.members if len(member.policy.thresholds)])
    if not members:
        return None
    figure = make_subplots(
        1, 2, shared_yaxes=True, horizontal_spacing=0.03, column_titles=("inputs that leave there", "right of these")
    )
    deepest = max(len(member.policy.thresholds) for member in members)
    for place in range(deepest + 1):
        _add(figure, members, place, deepest)
    more = {
        "barmode": "stack",
        "xaxis": {"tickformat": ".0%", "range": [0, 1]},
        "xaxis2": {"tickformat": ".0%"},
        "yaxis": {"title": "point of the front, the fastest at the top", "autorange": "reversed", "type": "category"},
        "yaxis2": {"type": "category"},
        "legend": {"orientation": "h", "y": -0.12, "x": 0},
    }
    title = "Where inputs leave, and how often they are right (tune split)"
    return dressed(figure, title, height=200 + 34 * len(members), more=more)


def _add(figure: go.Figure, members: list[Member], place: int, deepest: int) -> None:
    """One exit of all members; the final head is the last of each, however many exits lie before it."""
    rows = [(member, _at(member, place, deepest)) for member in members]
    rows = [(member, at) for member, at in rows if at is not None]
    name = "final head" if place == deepest else f"exit {place}"
    colour = SHADES[-1] if place == deepest else SHADES[place % (len(SHADES) - 1)]
    labels = [member.label for member, _ in rows]
    shares = [float(np.mean(member.taken == at)) for member, at in rows]
    right = [
        float(member.right[member.taken == at].mean()) if np.any(member.taken == at) else None for member, at in rows
    ]
    style = {"name": name, "legendgroup": name, "orientation": "h", "marker": {"color": colour}}
    hover = "%{y}: %{x:.1%} leave at " + name + "<extra></extra>"
    figure.add_trace(go.Bar(x=shares, y=labels, hovertemplate=hover, **style), 1, 1)
    dots = {"color": colour, "size": [8 + 14 * share for share in shares], "line": {"color": "white", "width": 1}}
    figure.add_trace(
        go.Scatter(
            x=right,
            y=labels,
            mode="markers",
            marker=dots,
            name=name,
            legendgroup=name,
            showlegend=False,
            hovertemplate="%{y}: %{x:.1%} right at " + name + "<extra></extra>",
        ),
        1,
        2,
    )


def _at(member: Member, place: int, deepest: int) -> int | None:
    own = len(member.policy.thresholds)
    if place == deepest:
        return own
    return place if place < own else None
