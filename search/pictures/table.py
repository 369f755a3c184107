"""All pictures by name. A new one is one function and one line here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from .choices import history, importance, parallel
from .examples import easy_and_hard, skipped
from .exits import exits
from .latency import latency
from .subject import Subject

PICTURES: Mapping[str, Callable[[Subject], go.Figure | None]] = {
    "importance": importance,
    "parallel": parallel,
    "history": history,
    "exits": exits,
    "latency": latency,
    "easy_and_hard": easy_and_hard,
    "skipped": skipped,
}
_LOG = logging.getLogger("dynarch")


def draw(subject: Subject) -> dict[str, go.Figure]:
    """Those pictures that there is something to show in.

    One that cannot be drawn is left out and told to the logger `dynarch`: a search is not lost for a picture.
    """
    made = {}
    for name, picture in PICTURES.items():
        try:
            figure = picture(subject)
        except Exception as error:
            _LOG.warning("the picture %r of search %s cannot be drawn: %r", name, subject.search_id, error)
            continue
        if figure is not None:
            made[name] = figure
    return made
