"""From one trained candidate's score table to its operating points.

Sweeps that construct policies (`policy_seeds`) start an archive of non-dominated ones, which mutation and
crossover then close up where the sweeps leave holes. All of it reads recorded scores; nothing is trained or run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError
from ..spaces.policy import Policy
from .pareto import non_dominated, thin
from .policy import ExitProblem, PolicyPoint, evaluate
from .policy_grid import CutGrid, Genomes
from .policy_seeds import fixed_policies, patience_policies, seeds

_DIRECTIONS = ("maximize", "minimize")
_BROOD = 200
_NEAR = 3


def search_policies(
    problem: ExitProblem, *, seed: int, max_points: int = 32, cuts: int = 24, evaluations: int = 4000
) -> tuple[PolicyPoint, ...]:
    """Non-dominated policies (accuracy up, mean cost down) with their exact values, sorted by cost.

    Accuracies are those of the samples searched on, and so are optimistic: report them from other samples.

    Args:
        problem: scores and costs.
        seed: of mutation and crossover; the same seed gives the same points.
        max_points: most points to return, spread along the front.
        cuts: most thresholds tried for each exit and measure.
        evaluations: policies that mutation and crossover may try; 0 leaves the constructed ones.

    Raises:
        DataError: unless `max_points >= 2`, `cuts >= 1` and `evaluations >= 0`.
    """
    for name, value, least in (
        ("max_points", max_points, 2),
        ("cuts", cuts, 1),
        ("evaluations", evaluations, 0),
    ):
        if value < least:
            raise DataError(name, f"{name} >= {least} must hold, but got {value}")
    policies = list(fixed_policies(problem))
    if problem.exits and problem.patience:
        policies += patience_policies(problem.exits)
    points = [evaluate(problem, policy) for policy in policies]
    if problem.exits and problem.scores:
        archive = Archive(CutGrid(problem, cuts))
        archive.offer(*seeds(archive.grid))
        archive.evolve(np.random.default_rng(seed), evaluations)
        kept = thin(archive.values, _DIRECTIONS, 4 * max_points)
        points += [evaluate(problem, policy) for policy in archive.policies(kept)]
    return _front(points, max_points)


def _front(points: Sequence[PolicyPoint], max_points: int) -> tuple[PolicyPoint, ...]:
    values = np.array([[point.accuracy, point.mean_cost_ms] for point in points])
    chosen = [points[i] for i in thin(values, _DIRECTIONS, max_points)]
    return tuple(sorted(chosen, key=lambda point: point.mean_cost_ms))


@final
class Archive:
    """The non-dominated policies met so far, sorted by cost.

    Args:
        grid: cuts of the problem; it must have exits and measures.
    """

    def __init__(self, grid: CutGrid) -> None:
        self.grid = grid
        self.measure = np.empty(0, dtype=np.int64)  # p
        self.genomes: Genomes = np.empty((0, grid.problem.exits), dtype=np.int64)  # p x e
        self.values = np.empty((0, 2))  # p x (accuracy, mean cost)

    def offer(self, measure: NDArray[np.int64], genomes: Genomes) -> None:
        """Score policies and keep those that nothing met so far dominates."""
        genomes = self.grid.normalised(measure, genomes)
        values = np.concatenate([self.values, self.grid.score(measure, genomes)])
        front = np.flatnonzero(non_dominated(values, _DIRECTIONS))
        front = front[np.argsort(values[front, 1], kind="stable")]
        self.measure = np.concatenate([self.measure, measure])[front]
        self.genomes = np.concatenate([self.genomes, genomes])[front]
        self.values = values[front]

    def evolve(self, generator: np.random.Generator, evaluations: int) -> None:
        """Offer that many children of the archive, brood by brood."""
        while evaluations > 0:
            brood = min(_BROOD, evaluations)
            self.offer(*self._children(generator, brood))
            evaluations -= brood

    def policies(self, members: Sequence[int] | NDArray[np.int64]) -> list[Policy]:
        """These members as policies."""
        return [self.grid.policy(int(self.measure[i]), self.genomes[i]) for i in members]

    def _children(self, generator: np.random.Generator, brood: int) -> tuple[NDArray[np.int64], Genomes]:
        """A third crosses with a neighbour on the front, a tenth changes its measure, all but the crossed mutate."""
        members, exits = self.genomes.shape
        parent = generator.integers(members, size=brood)
        mate = np.clip(parent + generator.integers(-_NEAR, _NEAR + 1, size=brood), 0, members - 1)
        fate = generator.random(brood)
        from_mate = (fate < 0.35)[:, None] & (generator.random((brood, exits)) < 0.5)
        genomes = np.where(from_mate, self.genomes[mate], self.genomes[parent])
        other = generator.integers(len(self.grid.measures), size=brood)
        measure = np.where(fate > 0.9, other, self.measure[parent])
        for share in (fate > 0.25, fate > 0.6):  # one exit changes, in part of the brood a second one
            self._mutate(generator, genomes, np.flatnonzero(share))
        return measure, genomes

    def _mutate(self, generator: np.random.Generator, genomes: Genomes, rows: NDArray[np.int64]) -> None:
        """Move one cut a few steps, switch one exit off, or try one at a random cut; `genomes` is changed."""
        off, size = self.grid.off, len(rows)
        column = generator.integers(genomes.shape[1], size=size)
        now = genomes[rows, column]
        step = generator.integers(1, 4, size=size) * generator.choice((-1, 1), size=size)
        anywhere = generator.integers(0, off, size=size)
        moved = np.clip(now + step, 0, off)
        tried = np.where(generator.random(size) < 0.3, off, moved)
        genomes[rows, column] = np.where(now == off, anywhere, tried)
