"""Pictures of the choices: which of them matter, and which went with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import plotly.graph_objects as go

from ...evaluators.metrics import MAXIMIZE
from ..ledger.entities import Evaluation
from ..open_study import open_study
from ..proposals import at_level, numbers
from ..samplers import LEVEL
from ..summary import Progress, ended_in_order
from .style import ACCENT, SHADES, dressed
from .subject import Subject

_BARS, _AXES = 12, 7
_ABSENT = "–"


@final
@dataclass(frozen=True)
class _Candidate:
    """A finished candidate at its operating level: its answers and the values of the objectives."""

    evaluation: Evaluation
    values: tuple[float, ...]


def importance(subject: Subject) -> go.Figure | None:
    """How much of the spread of each objective the choices explain; None if too few candidates were trained."""
    found = _importances(subject)
    if not any(found.values()):
        return None
    total = {name: sum(each.get(name, 0.0) for each in found.values()) for each in found.values() for name in each}
    names = sorted(total, key=lambda name: (-total[name], name))[:_BARS][::-1]
    figure = go.Figure()
    for (objective, each), colour in zip(found.items(), SHADES, strict=False):
        figure.add_bar(
            y=[_readable(name) for name in names],
            x=[each.get(name, 0.0) for name in names],
            name=objective,
            orientation="h",
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.0%} of " + objective + "<extra></extra>",
        )
    more = {
        "xaxis": {"title": "share of the importance (PED-ANOVA)", "tickformat": ".0%"},
        "yaxis": {"automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "barmode": "group",
    }
    return dressed(figure, "Which choices matter", height=160 + 34 * len(names), more=more)


def parallel(subject: Subject) -> go.Figure | None:
    """Every candidate as a line through its choices to the objectives; None if there are too few."""
    candidates = _candidates(subject)
    if len(candidates) < 2:
        return None
    found = _importances(subject)
    total = {name: sum(each.get(name, 0.0) for each in found.values()) for each in found.values() for name in each}
    asked = list(dict.fromkeys(name for each in candidates for name in each.evaluation.params if name != LEVEL))
    varied = [name for name in asked if len({each.evaluation.params.get(name, _ABSENT) for each in candidates}) > 1]
    names = sorted(varied, key=lambda name: (-total.get(name, 0.0), name))[:_AXES]
    references = subject.problem.references
    dimensions = [_axis(_readable(name), [each.evaluation.params.get(name) for each in candidates]) for name in names]
    for index, reference in enumerate(references):
        dimensions.append({"label": reference.key, "values": [each.values[index] for each in candidates]})
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": [each.values[0] for each in candidates],
                "colorscale": "Viridis",
                "reversescale": references[0].metric.direction != MAXIMIZE,
                "showscale": True,
                "colorbar": {"title": {"text": references[0].key, "side": "right"}, "thickness": 14},
            },
            labelangle=-15,
            labelside="bottom",
        )
    )
    more = {"margin": {"t": 90, "b": 110, "l": 90, "r": 60}}
    return dressed(figure, "What went with what, at each candidate's operating level", height=520, more=more)


def history(subject: Subject) -> go.Figure | None:
    """Hypervolume and size of the front over the candidates that ended."""
    reference = subject.ledger.search(subject.search_id).hypervolume_reference
    if reference is None:
        return None
    progress = Progress(subject.problem, reference)
    standings = [progress.end(*each) for each in ended_in_order(subject.ledger, subject.search_id)]
    if len(standings) < 2:
        return None
    ended = [standing.counts.total for standing in standings]
    line = {"shape": "hv", "width": 2}
    figure = go.Figure()
    figure.add_scatter(
        x=ended, y=[s.hypervolume for s in standings], name="hypervolume", line={**line, "color": ACCENT}
    )
    sizes = [s.front_size for s in standings]
    figure.add_scatter(x=ended, y=sizes, name="points of the front", line={**line, "color": SHADES[3]}, yaxis="y2")
    more = {
        "xaxis": {"title": "candidates that ended"},
        "yaxis": {"title": "hypervolume", "rangemode": "tozero"},
        "yaxis2": {
            "title": "points of the front",
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"t": 90, "b": 60, "l": 70, "r": 70},
    }
    return dressed(figure, "How the front grew", height=380, more=more)


def _importances(subject: Subject) -> dict[str, dict[str, float]]:
    study = open_study(subject.problem, subject.study_url, subject.search_id)
    return {reference.key: study.importances(index) for index, reference in enumerate(subject.problem.references)}


def _candidates(subject: Subject) -> list[_Candidate]:
    points: dict[int, list[dict[str, float]]] = {}
    for point in subject.ledger.points(subject.search_id):
        points.setdefault(point.number, []).append(numbers(point))
    made = []
    for evaluation in subject.finished:
        rows = points.get(evaluation.number, [])
        if rows:
            own = rows[at_level(evaluation.level, len(rows))]
            made.append(_Candidate(evaluation, subject.problem.values(own)))
    return made


def _axis(label: str, answers: Sequence[Any]) -> dict[str, Any]:
    """Numbers that everybody answered with are an axis as they are; all else is one tick an answer."""
    if all(isinstance(answer, int | float) and not isinstance(answer, bool) for answer in answers):
        ticks = sorted(set(answers))
        shown = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if len(ticks) <= 8 else {}
        return {"label": label, "values": list(answers), **shown}
    told = [_ABSENT if answer is None else str(answer) for answer in answers]
    kinds = sorted(set(told), key=lambda text: (text != _ABSENT, text))
    return {
        "label": label,
        "values": [kinds.index(text) for text in told],
        "tickvals": list(range(len(kinds))),
        "ticktext": kinds,
    }


def _readable(name: str) -> str:
    """The last words of a long name say most."""
    text = "operating level" if name == LEVEL else name.replace("_", " ")
    return text if len(text) <= 34 else "…" + text[-33:]
