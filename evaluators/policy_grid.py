"""Many threshold policies at once: cuts on a grid, samples as bits.

Each exit has at most `cuts` thresholds for each measure. A policy is a row of `e` indices into them: 0 lets
everybody leave, a larger index fewer, `off` does not try the exit. Which samples leave at an exit under an index
is one bit set, so that a policy costs some AND and population counts over `n / 64` words.

Cuts are few on purpose: every further one fits the samples searched on more than it serves the next ones.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from ..spaces.policy import Policy
from .policy import ExitProblem

Genomes = NDArray[np.int64]
_CHUNK = 256  # policies at once: keeps the bit sets of one step inside the processor's cache
# Scores nearer than this share of the largest are taken as equal: rounding differs that much between batch sizes.
_RESOLUTION = 2.0**-20
_PLANES = 8


@final
class CutGrid:
    """The grid of a problem; immutable.

    Args:
        problem: scores and costs; only its measures have a grid, patience has none.
        cuts: most finite thresholds an exit and measure.
    """

    def __init__(self, problem: ExitProblem, cuts: int) -> None:
        n, e = problem.samples, problem.exits
        self.problem = problem
        self.measures = tuple(problem.scores)
        self.off = cuts + 1
        shape = (len(self.measures), e)
        self.thresholds = np.full((*shape, cuts + 2), np.nan)  # measures x e x indices
        self.thresholds[:, :, 0] = -np.inf
        self.finite = np.zeros(shape, dtype=np.int64)
        self.levels = np.zeros((*shape, n), dtype=np.int64)  # a sample leaves where level >= index
        for m, name in enumerate(self.measures):
            for k in range(e):
                self._cut(m, k, problem.scores[name][:, k].astype(np.float64), cuts)
        leaves = self.levels[:, :, None, :] >= np.arange(cuts + 2)[:, None]
        leaves[:, :, self.off] = False
        self.masks = _packed(leaves)  # measures x e x indices x words
        self.correct = _packed(problem.correct.T)  # (e+1) x words
        self.everybody = _packed(np.ones(n, dtype=np.bool_))
        self.decide_ms = np.array([problem.decide_ms[name] for name in self.measures])
        self._segments = [_Weights(problem.segment_ms[..., k], n) for k in range(e + 1)]

    def _cut(self, m: int, k: int, scores: NDArray[np.float64], cuts: int) -> None:
        chosen = cut_points(scores, cuts)
        self.finite[m, k] = len(chosen)
        self.thresholds[m, k, 1 : len(chosen) + 1] = chosen
        self.levels[m, k] = np.searchsorted(chosen, scores, side="left")

    def normalised(self, measure: NDArray[np.int64], genomes: Genomes) -> Genomes:
        """The same policies in one spelling: no index beyond the cuts there are, nothing behind a closed end."""
        result = np.where(genomes > self.finite[measure], self.off, genomes)
        closed = np.cumsum(result == 0, axis=1)
        behind = np.pad(closed, ((0, 0), (1, 0)))[:, :-1] > 0
        return np.where(behind, self.off, result)

    def score(self, measure: NDArray[np.int64], genomes: Genomes) -> NDArray[np.float64]:
        """Accuracy and mean cost of normalised policies, `p x 2`.

        Accuracy is exact; where segments differ between samples, their cost is rounded to 1/255 of its range.
        """
        chunks = [self._score(measure[i : i + _CHUNK], genomes[i : i + _CHUNK]) for i in range(0, len(genomes), _CHUNK)]
        return np.concatenate(chunks) if chunks else np.empty((0, 2))

    def _score(self, measure: NDArray[np.int64], genomes: Genomes) -> NDArray[np.float64]:
        n, e = self.problem.samples, self.problem.exits
        inside = np.broadcast_to(self.everybody, (len(genomes), len(self.everybody)))
        right, cost = np.zeros(len(genomes)), np.zeros(len(genomes))
        for k in range(e):
            index, count = genomes[:, k], bits(inside)
            cost += self._segments[k].total(inside, count)
            cost += count * self.exit_cost(k, index, self.decide_ms[measure])
            leaving = inside & self.masks[measure, k, index]
            right += bits(leaving & self.correct[k])
            inside = inside & ~leaving
        cost += self._segments[e].total(inside, bits(inside))
        right += bits(inside & self.correct[e])
        return np.column_stack([right, cost]) / n

    def exit_cost(self, k: int, index: NDArray[np.int64], decide_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """What exit `k` adds for each sample that gets to it, under each index."""
        tried = np.where(index == self.off, 0.0, self.problem.exit_ms[k])
        return tried + np.where((index == self.off) | (index == 0), 0.0, decide_ms)

    def policy(self, measure: int, genome: Genomes) -> Policy:
        """The policy that a normalised row spells."""
        if (genome == self.off).all():
            return Policy.never(len(genome))
        values = [self.thresholds[measure, k, index] for k, index in enumerate(genome)]
        return Policy(self.measures[measure], tuple(None if np.isnan(v) else float(v) for v in values))


def cut_points(scores: NDArray[np.float64], cuts: int) -> NDArray[np.float64]:
    """At most `cuts` ascending thresholds near the quantiles of `scores` (`n`).

    Each lies midway between two neighbouring distinct scores and is a float32, so that neither ties nor rounding
    split what belongs together.
    """
    ordered = np.sort(scores)
    gaps = np.flatnonzero(np.diff(ordered) > _RESOLUTION * np.abs(ordered).max(initial=0.0))
    if len(gaps) > cuts:
        wanted = np.arange(1, cuts + 1) * len(ordered) / (cuts + 1) - 1
        after = np.clip(np.searchsorted(gaps, wanted), 1, len(gaps) - 1)
        before = after - 1
        nearer = np.abs(gaps[before] - wanted) <= np.abs(gaps[after] - wanted)
        gaps = gaps[np.unique(np.where(nearer, before, after))]
    middle = (ordered[gaps] + ordered[gaps + 1]) / 2
    return middle.astype(np.float32).astype(np.float64)


def bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits are set, over the last axis."""
    return np.asarray(np.bitwise_count(words).sum(axis=-1, dtype=np.int64))


def _packed(flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The last axis as bits of 64-bit words, padded with zeros."""
    packed = np.packbits(flags, axis=-1)
    padding = [(0, 0)] * (packed.ndim - 1) + [(0, -packed.shape[-1] % 8)]
    return np.ascontiguousarray(np.pad(packed, padding)).view(np.uint64)


@final
class _Weights:
    """Sums of one number a sample over bit sets: one count where all are equal, else one a bit of the number."""

    def __init__(self, weights: NDArray[np.float64], n: int) -> None:
        values = np.broadcast_to(weights, (n,))
        self.least = float(values.min())
        span = float(values.max()) - self.least
        self.unit = span / (2**_PLANES - 1)
        self.planes = None
        if span > 0.0:
            steps = np.round((values - self.least) / self.unit).astype(np.int64)
            self.planes = [_packed((steps >> bit & 1).astype(np.bool_)) for bit in range(_PLANES)]

    def total(self, sets: NDArray[np.uint64], count: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum over each set, given how many members it has."""
        result = count.astype(np.float64) * self.least
        for bit, plane in enumerate(self.planes or ()):
            result += self.unit * 2.0**bit * bits(sets & plane)
        return result
