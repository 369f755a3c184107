"""Comparison: the fronts of two searches under one reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ..evaluators.metrics import MAXIMIZE, METRICS, metric_reference
from ..evaluators.pareto import hypervolume
from ..spaces.errors import SpecError
from ..spaces.space import describe
from .front_point import FrontPoint

Split = Literal["test", "tune"]
Values = NDArray[np.float64]  # points x objectives


@final
@dataclass(frozen=True)
class Side:
    """One of the two searches, with all that a comparison needs of it.

    Args:
        id: of the search.
        spec: as the ledger has it.
        reference: of its hypervolume.
        front: its points.
    """

    id: str
    spec: Mapping[str, Any]
    reference: Sequence[float]
    front: Sequence[FrontPoint]


@final
@dataclass(frozen=True)
class Compared:
    """A point of either front.

    Args:
        search: "A" or "B".
        point: its label.
        network: in words.
        values: of the objectives.
        beaten_by: labels of the other front's points that are at least as good in everything and better in something.
    """

    search: Literal["A", "B"]
    point: str
    network: str
    values: tuple[float, ...]
    beaten_by: tuple[str, ...]


@final
@dataclass(frozen=True)
class Comparison:
    """Two fronts.

    Args:
        a, b: ids of the searches.
        objectives: metric references, which both searches have.
        split: that the values are of: `test`, or `tune` if one of the searches has not opened it; latencies are
            predictions for its inputs.
        reference: the worse of both searches', in each objective.
        hypervolume_a, hypervolume_b: share of the box between reference and ideal.
        points: of both fronts.
        notes: what makes the comparison less than fair.
    """

    a: str
    b: str
    objectives: tuple[str, ...]
    split: Split
    reference: tuple[float, ...]
    hypervolume_a: float
    hypervolume_b: float
    points: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    def unbeaten(self, search: Literal["A", "B"]) -> int:
        """How many points of a front nothing of the other beats."""
        return sum(each.search == search and not each.beaten_by for each in self.points)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def compare(a: Side, b: Side) -> Comparison:
    """Compare the fronts of two searches.

    Raises:
        SpecError: if they have other data, other objectives, or no front.
    """
    objectives = _common(a, b)
    ways = {metric.name: metric.direction for metric in METRICS}
    directions = [ways[key.partition("@")[0]] for key in objectives]
    split: Split = "test" if all(point.test is not None for side in (a, b) for point in side.front) else "tune"
    values = [_values(side, objectives, split) for side in (a, b)]
    reference = tuple(
        min(pair) if way == MAXIMIZE else max(pair)
        for way, *pair in zip(directions, a.reference, b.reference, strict=True)
    )
    sides = [1.0 - low if way == MAXIMIZE else low for way, low in zip(directions, reference, strict=True)]
    volume_a, volume_b = (hypervolume(rows, directions, reference) / float(np.prod(sides)) for rows in values)
    points = [
        *_compared("A", a, values[0], (b, values[1]), directions),
        *_compared("B", b, values[1], (a, values[0]), directions),
    ]
    return Comparison(a.id, b.id, objectives, split, reference, volume_a, volume_b, tuple(points), _notes(a, b))


def _common(a: Side, b: Side) -> tuple[str, ...]:
    """Their objectives, which must be the same, on the same data."""
    for side in (a, b):
        if not side.front:
            raise SpecError(side.id, "has no front to compare; wait for its end, or name another search")
    if a.spec["data"]["id"] != b.spec["data"]["id"]:
        raise SpecError(b.id, f"was made on other data than {a.id}; compare searches on the same data")
    first, second = _keys(a.spec), _keys(b.spec)
    if first != second:
        raise SpecError(b.id, f"has the objectives {', '.join(second)}, but {a.id} has {', '.join(first)}")
    return first


def _keys(spec: Mapping[str, Any]) -> tuple[str, ...]:
    devices = tuple(spec["devices"])
    return tuple(metric_reference(text, devices, "objectives").key for text in spec["search"]["objectives"])


def _values(side: Side, objectives: Sequence[str], split: Split) -> Values:
    rows = [point.tune if split == "tune" or point.test is None else point.test for point in side.front]
    return np.array([[row[key] for key in objectives] for row in rows], dtype=float)


def _compared(
    name: Literal["A", "B"],
    side: Side,
    values: Values,
    other: tuple[Side, Values],
    directions: Sequence[str],
) -> list[Compared]:
    signs = np.array([1.0 if direction == MAXIMIZE else -1.0 for direction in directions])
    rivals = other[1] * signs
    made = []
    for point, row in zip(side.front, values, strict=True):
        own = row * signs
        better = (rivals >= own).all(1) & (rivals > own).any(1)
        beaten = tuple(rival.label for rival, wins in zip(other[0].front, better, strict=True) if wins)
        made.append(Compared(name, point.label, describe(point.architecture), tuple(map(float, row)), beaten))
    return made


def _notes(a: Side, b: Side) -> tuple[str, ...]:
    notes = []
    if a.spec["devices"] != b.spec["devices"]:
        notes.append("The searches describe their devices differently, so their latencies may not be comparable.")
    splits = [(side.spec["data"]["splits"], side.spec["search"]["seed"]) for side in (a, b)]
    if splits[0] != splits[1]:
        notes.append("The searches split the data differently: one may have trained on what the other is scored on.")
    return tuple(notes)
