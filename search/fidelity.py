"""Pareto-aware rungs: which candidates go on training when a candidate is a set of operating points.

At a rung all sets seen there are pooled. Whoever owns a point that no other dominates goes on; so does whoever
is among the best 1/eta by rank, and at equal rank by how empty the place is where its point lies. A rule that
scores candidates by one number trims the ends of the front (`benchmarks/rungs.py` has the figures).

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (asynchronous halving);
Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021 (non-domination rank in place of a metric).
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..evaluators.pareto import rank
from ..spaces.errors import DataError, SpecError

Points = NDArray[np.float64]


@final
class ParetoRungs:
    """The verdicts of one search; its only state is what was reported, so replaying reports in order rebuilds it.

    Args:
        epochs: the full fidelity; nobody is stopped there.
        first: epochs at the first rung.
        eta: factor between rungs, and about one in `eta` goes on.
        directions: "minimize" or "maximize" for each objective.

    Raises:
        SpecError: if a number is out of range or no direction is given.
    """

    def __init__(self, epochs: int, *, first: int = 1, eta: int = 3, directions: tuple[str, ...]) -> None:
        for name, value, least in (("epochs", epochs, 1), ("first", first, 1), ("eta", eta, 2)):
            if value < least:
                raise SpecError(name, f"{name} >= {least} must hold, but got {value}")
        if not directions or not set(directions) <= {"minimize", "maximize"}:
            raise SpecError("directions", f"must be minimize or maximize for each objective, but got {directions}")
        self.epochs = epochs
        self.eta = eta
        self.directions = directions
        self.rungs = _rungs(epochs, first, eta)
        self._seen: dict[int, dict[int, Points]] = {rung: {} for rung in self.rungs}
        self._verdicts: dict[int, dict[int, bool]] = {rung: {} for rung in self.rungs}

    def report(self, candidate: int, epoch: int, points: Points) -> bool:
        """Whether `candidate` keeps training after `epoch`.

        The first report of a candidate at a rung decides; the same report again gets the same answer and changes
        nothing. Between rungs and at full fidelity nobody is stopped.

        Args:
            candidate: its number in the search.
            epoch: epochs trained.
            points: `k x m` objective values of its operating points, `k >= 1`.

        Raises:
            DataError: if there is no point, a value is not finite, or a row does not hold `m` values.
        """
        values = self._checked(points)
        if epoch not in self._seen:
            return True
        verdicts = self._verdicts[epoch]
        if candidate not in verdicts:
            self._seen[epoch][candidate] = values
            verdicts[candidate] = _goes_on(list(self._seen[epoch].values()), self.eta, self.directions)
        return verdicts[candidate]

    def _checked(self, points: Points) -> Points:
        values = np.array(points, dtype=np.float64)
        if values.ndim != 2 or not len(values) or values.shape[1] != len(self.directions):
            raise DataError("points", f"must be k x {len(self.directions)} with k >= 1, but got {values.shape}")
        if not np.isfinite(values).all():
            raise DataError("points", "must be finite; record a failed candidate, do not report it")
        return values


def _rungs(epochs: int, first: int, eta: int) -> tuple[int, ...]:
    rungs = []
    while first < epochs:
        rungs.append(first)
        first *= eta
    return tuple(rungs)


def _goes_on(sets: list[Points], eta: int, directions: tuple[str, ...]) -> bool:
    """The verdict on the last of these sets."""
    if len(sets) < eta:
        return True
    pool = np.concatenate(sets)
    owner = np.repeat(np.arange(len(sets)), [len(points) for points in sets])
    ranks = rank(pool, directions)
    best = np.full(len(sets), len(pool))
    np.minimum.at(best, owner, ranks)
    if best[-1] == 0:
        return True
    room = max(1, math.ceil(len(sets) / eta)) - int((best < best[-1]).sum())
    if room <= 0:
        return False
    leading = ranks == best[owner]  # points by which their owner is judged
    rivals = np.flatnonzero(leading & (ranks == best[-1]))
    room_around = _solitude(_unit(pool)[rivals], owner[rivals])
    widest = np.zeros(len(sets))
    np.maximum.at(widest, owner[rivals], room_around)
    return int((widest > widest[-1]).sum()) < room


def _solitude(points: Points, owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each point to the nearest one of another candidate; infinite if there is none."""
    distance = np.linalg.norm(points[:, None, :] - points[None, :, :], axis=2)
    distance[owner[:, None] == owner[None, :]] = np.inf
    # Rounded, so that places that are equally empty stay so whatever order their points came in.
    nearest: NDArray[np.float64] = np.round(distance.min(axis=1), 9)
    return nearest


def _unit(points: Points) -> Points:
    span = np.ptp(points, axis=0)
    scaled: Points = (points - points.min(axis=0)) / np.where(span > 0.0, span, 1.0)
    return scaled
