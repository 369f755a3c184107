"""Page: all pictures of a search in one file that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import plotly.graph_objects as go
import plotly.io

from ..report_rows import printable

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1200px;margin:2em auto;padding:0 1em}"
    "h1{font-size:1.5em;margin:0}p{color:#52606d;margin:.3em 0}section{margin:1.5em 0}"
)


def pictures_page(name: str, about: str, figures: Mapping[str, go.Figure]) -> str:
    """A page of figures, one below the other; it carries its own script, once."""
    sections = []
    for number, (key, figure) in enumerate(figures.items()):
        config = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"filename": key}}
        plot = plotly.io.to_html(figure, full_html=False, include_plotlyjs=number == 0, config=config)
        sections.append(f'<section id="{escape(key)}">{plot}</section>')
    title = escape(printable(name))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = "".join(sections) or "<p>There is nothing to show: no candidate was trained to the end.</p>"
    return (
        f'<!doctype html><html lang="en"><head>{head}</head>'
        f"<body><h1>{title}</h1><p>{escape(printable(about))}</p>{body}</body></html>\n"
    )
