"""Good policies by construction: where the search for operating points starts.

Three sweeps over a grid of cuts, each blind where another sees: `ascent` places and sets exits for a price of
time, but finds the convex hull only; `quotas` fill the gaps between, but do not look at accuracy; `shared` moves
one threshold for all exits. `patience` policies and fixed exits need no grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..spaces.policy import Policy
from .policy import PATIENCE, ExitProblem
from .policy_grid import CutGrid, Genomes, bits

# Prices of time, in accuracy per cost of the full network: from nearly free to more than any answer is worth.
PRICES = (1e-4, *np.geomspace(0.02, 10.0, 15))
_SWEEPS = 8
_RATIOS = np.linspace(1.0, 59.0, 24) / 20.0
_LEVELS = 24
_STRIDES = (1, 2, 3, 4)


def seeds(grid: CutGrid) -> tuple[NDArray[np.int64], Genomes]:
    """Measures (`p`) and normalised policies (`p x e`) of all sweeps, fixed exits and the full network included."""
    rows: list[Genomes] = []
    owner: list[NDArray[np.int64]] = []
    for m in range(len(grid.measures)):
        placed = ascent(grid, m)
        subsets = exit_subsets(grid.problem.exits, placed != grid.off)
        found = [placed, fixed(grid)]
        for subset in subsets:
            found += [quotas(grid, m, subset), shared(grid, m, subset)]
        rows += found
        owner.append(np.full(sum(map(len, found)), m, dtype=np.int64))
    measure, genomes = np.concatenate(owner), np.concatenate(rows)
    both = np.unique(np.column_stack([measure, grid.normalised(measure, genomes)]), axis=0)
    return both[:, 0], both[:, 1:]


def ascent(grid: CutGrid, m: int, *, prices: Sequence[float] = PRICES) -> Genomes:
    """Coordinate ascent on accuracy - price * cost, two rows a price; prices in accuracy per full network.

    For each price and exit, from the last to the first, the value of letting every sample go on is known, so the best
    cut of the exit follows from one prefix sum over the samples that get there; -1 sample or none leaves it off.
    Each price starts from the full network and from the last price's policy.
    """
    full_ms = float(np.broadcast_to(grid.problem.segment_ms, grid.problem.predictions.shape).sum(axis=1).mean())
    nothing = np.full(grid.problem.exits, grid.off, dtype=np.int64)
    last, found = nothing, []
    for price in prices:
        for start in (nothing, last):
            last = _climb(grid, m, start, price / max(full_ms, 1e-12))
            found.append(last)
    return np.array(found, dtype=np.int64)


def _climb(grid: CutGrid, m: int, start: Genomes, price: float) -> Genomes:
    genome = start.copy()
    for _ in range(_SWEEPS):
        before = genome.copy()
        _sweep(grid, m, genome, price)
        if (genome == before).all():
            break
    return genome


def _sweep(grid: CutGrid, m: int, genome: Genomes, price: float) -> None:
    """Set every exit to its best cut given all others, the last first; `genome` is changed."""
    problem = grid.problem
    n, e = problem.samples, problem.exits
    segment = np.broadcast_to(problem.segment_ms, (n, e + 1))
    inside = np.ones((e + 1, n), dtype=np.bool_)  # who gets to each exit; earlier exits stay as they are meanwhile
    for k in range(e):
        inside[k + 1] = inside[k] & ((grid.levels[m, k] < genome[k]) | (genome[k] == grid.off))
    value = problem.correct[:, e] - price * segment[:, e]
    index = np.arange(grid.off)
    for k in reversed(range(e)):
        levels, right = grid.levels[m, k], problem.correct[:, k]
        here = inside[k]
        gain = np.bincount(levels[here], weights=(right - value)[here], minlength=grid.off)
        tried = price * here.sum() * grid.exit_cost(k, index, grid.decide_ms[m])
        gain = np.cumsum(gain[::-1])[::-1] - tried  # of index c: all samples of level c and above leave
        best = int(np.argmax(gain))
        genome[k] = best if gain[best] > 1e-12 else grid.off
        if genome[k] != grid.off:
            cost = grid.exit_cost(k, genome[k : k + 1], grid.decide_ms[m])[0]
            value = np.where(levels >= best, right, value) - price * cost
        value = value - price * segment[:, k]


def quotas(grid: CutGrid, m: int, subset: NDArray[np.bool_]) -> Genomes:
    """Shares of samples for the exits of `subset` in geometric progression, for a range of ratios.

    Source: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018.
    """
    exits = np.flatnonzero(subset)
    share = _RATIOS[:, None] ** np.arange(len(exits) + 1)
    wanted = grid.problem.samples * share / share.sum(axis=1, keepdims=True)
    genomes = np.full((len(_RATIOS), len(subset)), grid.off, dtype=np.int64)
    inside = np.broadcast_to(grid.everybody, (len(_RATIOS), len(grid.everybody)))
    for j, k in enumerate(exits):
        count = grid.finite[m, k]
        if count:
            leaving = bits(inside[:, None, :] & grid.masks[m, k, 1 : count + 1])  # ratios x cuts
            genomes[:, k] = 1 + np.argmin(np.abs(leaving - wanted[:, j : j + 1]), axis=1)
            inside = inside & ~grid.masks[m, k, genomes[:, k]]
    return genomes


def shared(grid: CutGrid, m: int, subset: NDArray[np.bool_]) -> Genomes:
    """One threshold for all exits of `subset`, each taking its nearest cut above, for a range of thresholds."""
    cuts = [grid.thresholds[m, k, 1 : grid.finite[m, k] + 1] for k in np.flatnonzero(subset)]
    pooled = np.sort(np.concatenate(cuts)) if cuts else np.empty(0)
    if not len(pooled):
        return np.empty((0, len(subset)), dtype=np.int64)
    levels = pooled[np.unique(np.linspace(0, len(pooled) - 1, _LEVELS).astype(np.int64))]
    genomes = np.full((len(levels), len(subset)), grid.off, dtype=np.int64)
    for k, own in zip(np.flatnonzero(subset), cuts, strict=True):
        genomes[:, k] = 1 + np.searchsorted(own, levels)
    return genomes


def fixed(grid: CutGrid) -> Genomes:
    """Each exit alone, for everybody, and the full network."""
    e = grid.problem.exits
    return np.where(np.eye(e + 1, e, dtype=np.bool_), 0, grid.off)


def exit_subsets(exits: int, placed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All exits, every second, third and fourth of them from each offset, and at most eight of `placed` (`p x e`)."""
    number = np.arange(exits)
    spaced = [number % stride == offset for stride in _STRIDES for offset in range(stride)]
    own = np.unique(placed, axis=0)
    own = own[np.unique(np.linspace(0, len(own) - 1, 8).astype(np.int64))] if len(own) else own
    subsets = np.unique(np.concatenate([np.array(spaced).reshape(-1, exits), own]), axis=0)
    return subsets[subsets.any(axis=1)]


def fixed_policies(problem: ExitProblem) -> list[Policy]:
    """The static networks that are inside: each exit for everybody, and the full network."""
    names = problem.decisions
    singles = [Policy.single(problem.exits, k, decision=names[0]) for k in range(problem.exits)]
    return [*singles, Policy.never(problem.exits)]


def patience_policies(exits: int) -> Iterable[Policy]:
    """Leave when `k` tried exits in a row agree, for spaced subsets of exits and each `k` that can happen.

    Source: Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", NeurIPS 2020.
    """
    for subset in exit_subsets(exits, np.zeros((0, exits), dtype=np.bool_)):
        for k in range(2, int(subset.sum()) + 1):
            yield Policy(PATIENCE, tuple(k - 0.5 if tried else None for tried in subset))
