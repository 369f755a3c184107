"""Style: what all pictures have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

INK, FAINT, ACCENT, WARM = "#1f2933", "#b4bcc6", "#0b6e99", "#c8553d"
SHADES = ("#0b6e99", "#4fa3c7", "#8cc6de", "#d99a2b", "#c8553d", "#7a5195", "#5b8c5a", "#52606d")
MOST = 12  # members of a front that one picture shows


def dressed(figure: go.Figure, title: str, *, height: int, more: Mapping[str, Any] | None = None) -> go.Figure:
    """The figure with a title and quiet axes."""
    figure.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 17, "color": INK}},
        height=height,
        margin={"t": 80, "r": 30, "l": 60, "b": 60},
        font={"color": INK},
        hoverlabel={"align": "left", "bgcolor": "white"},
    )
    figure.update_layout(dict(more or {}))
    return figure


def spread(items: list[Any], most: int = MOST) -> list[Any]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
