"""Pareto basics on `n x m` arrays of objective values: who is dominated, how much a set covers, whom to show.

Hypervolume, contributions, ranks and dominance are computed in C by moocore; this file turns directions and
refuses values that no order can hold. The reference point of a search is fixed once, by `reference_point`,
and then kept: hypervolumes against different references cannot be compared.

Source: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002 (ranks);
Zitzler and Thiele, "Multiobjective optimization using evolutionary algorithms", 1998 (hypervolume).
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..spaces.errors import DataError

_SIGNS = {"minimize": 1.0, "maximize": -1.0}


def non_dominated(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Mask of the points that no other point dominates; of equal points only the first.

    Raises:
        DataError: if values are not finite or do not fit the directions.
    """
    points = _minimised(values, directions)
    return np.asarray(moocore.is_nondominated(points), dtype=np.bool_)


def rank(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.int64]:
    """Non-domination rank of each point: 0 on the front, 1 on the front once those are gone, and so on.

    Raises:
        DataError: if values are not finite or do not fit the directions.
    """
    points = _minimised(values, directions)
    return np.asarray(moocore.pareto_rank(points), dtype=np.int64)


def hypervolume(values: ArrayLike, directions: Sequence[str], reference: Sequence[float]) -> float:
    """Volume that the points dominate, up to `reference`; points not better than it everywhere add nothing.

    Raises:
        DataError: if values or reference are not finite or do not fit the directions.
    """
    points, bound = _minimised(values, directions), _reference(reference, directions)
    inside = points[(points < bound).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=bound)) if len(inside) else 0.0


def contributions(values: ArrayLike, directions: Sequence[str], reference: Sequence[float]) -> NDArray[np.float64]:
    """Hypervolume that would be lost without each point; 0 for dominated, repeated and outside points.

    Raises:
        DataError: if values or reference are not finite or do not fit the directions.
    """
    points, bound = _minimised(values, directions), _reference(reference, directions)
    result = np.zeros(len(points))
    inside = (points < bound).all(axis=1)
    if points.shape[1] == 1:  # moocore wants two objectives or more; on a line only the best point counts
        order = np.argsort(points[inside, 0], kind="stable")
        if len(order):
            best, second = [*points[inside, 0][order], bound[0]][:2]
            result[np.flatnonzero(inside)[order[0]]] = second - best
    elif inside.any():
        # Dominated points do count here: behind a point they lessen what its loss would cost.
        result[inside] = moocore.hv_contributions(points[inside], ref=bound, ignore_dominated=False)
    return result


def thin(values: ArrayLike, directions: Sequence[str], k: int) -> NDArray[np.int64]:
    """Indices of at most `k` non-dominated points spread along the front, in the order of the input.

    The best point of each objective comes first (from `k` = number of objectives on, all of them are in), then
    again and again the point farthest from all those taken, every objective scaled to the front's own range.

    Raises:
        DataError: if `k` is below 1, or values are not finite or do not fit the directions.
    """
    if k < 1:
        raise DataError("k", f"k >= 1 must hold, but got {k}")
    points = _minimised(values, directions)
    members = np.flatnonzero(moocore.is_nondominated(points)) if len(points) else np.empty(0, dtype=np.int64)
    if len(members) <= k:
        return members.astype(np.int64)
    unit = _unit(points[members])
    others = unit.sum(axis=1)
    extremes = [int(np.lexsort((others, unit[:, j]))[0]) for j in range(unit.shape[1])]
    taken = list(dict.fromkeys(extremes))[:k]
    gap = np.min([np.linalg.norm(unit - unit[i], axis=1) for i in taken], axis=0)
    while len(taken) < k:
        taken.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.linalg.norm(unit - unit[taken[-1]], axis=1))
    return members[sorted(taken)].astype(np.int64)


def reference_point(values: ArrayLike, directions: Sequence[str], margin: float) -> tuple[float, ...]:
    """The worst value of each objective, made worse by `margin` of its range (of its size where all are equal).

    Raises:
        DataError: if there is no point, `margin` is negative, or values do not fit the directions.
    """
    points = _minimised(values, directions)
    if not len(points) or not margin >= 0.0:
        raise DataError("reference", f"needs a point and margin >= 0, but got {len(points)} and {margin}")
    worst, span = points.max(axis=0), np.ptp(points, axis=0)
    step = np.where(span > 0.0, span, np.maximum(np.abs(worst), 1e-9))
    return tuple(float(v) for v in (worst + margin * step) * _signs(directions))


def _signs(directions: Sequence[str]) -> NDArray[np.float64]:
    for direction in directions:
        if direction not in _SIGNS:
            raise DataError("directions", f"must be minimize or maximize, but got {direction!r}")
    if not directions or isinstance(directions, str):
        raise DataError("directions", f"must hold one direction an objective, but got {directions!r}")
    return np.array([_SIGNS[direction] for direction in directions])


def _minimised(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.float64]:
    """The values as `n x m`, turned so that less is better."""
    signs, points = _signs(directions), np.asarray(values, dtype=np.float64)
    if points.size == 0:
        return np.empty((0, len(signs)))
    if points.ndim != 2 or points.shape[1] != len(signs):
        raise DataError("values", f"must be n x {len(signs)} for these directions, but got {points.shape}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise DataError("values", f"must be finite, but row {bad[0]} is {points[bad[0]]}; leave failed points out")
    return np.ascontiguousarray(points * signs)


def _reference(reference: Sequence[float], directions: Sequence[str]) -> NDArray[np.float64]:
    bound = np.asarray(reference, dtype=np.float64)
    if bound.shape != (len(directions),) or not np.isfinite(bound).all():
        raise DataError("reference", f"must be {len(directions)} finite numbers, but got {reference!r}")
    return bound * _signs(directions)


def _unit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    span = np.ptp(points, axis=0)
    scaled: NDArray[np.float64] = (points - points.min(axis=0)) / np.where(span > 0.0, span, 1.0)
    return scaled
