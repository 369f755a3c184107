"""Roofline with residuals: the time of a part that was never measured, from measured ones of its group.

`t = sum over families of c*operations + macs/a + bytes/b`, all coefficients at least 0, is fitted to relative
errors; what it leaves is learned from the nearest parts, or by boosted trees where there are enough. Of these
the one that predicts left-out parts best is kept, and its error on them is the spread that is stated.

Sources: Williams, Waterman, Patterson, "Roofline", CACM 2009; the residuals follow measurements of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from .correction import Floats

FOLDS: Final = 5
_NEIGHBOURS: Final = 3
_MIN_FOR_TREES: Final = 50
# Weight of the pooled coefficients against the data: decides only what a few parts leave undecided.
_PRIOR_WEIGHT: Final = 0.1
_ROUNDING: Final = 1e-6
_LOUD: Final = 1e3
# The totals of parts of one kind lie on a thin curved sheet: a tenth beside it is still between them.
_MARGIN: Final = 0.1


@final
@dataclass(frozen=True)
class Sample:
    """A measured part: which key, what it does (`families x 3`), how long it takes."""

    key: str
    features: Floats
    ms: float


@final
class GroupModel:
    """Predicts parts of one group.

    Args:
        samples: measured parts, of at least two keys.
        seed: folds and trees.
    """

    def __init__(self, samples: Sequence[Sample], *, seed: int) -> None:
        self._x = np.stack([sample.features for sample in samples])
        self._ms = np.array([sample.ms for sample in samples])
        self._keys = np.array([sample.key for sample in samples])
        self._seed = seed

    @cached_property
    def spread(self) -> float:
        """Root mean square of the log error on parts that were left out of the fit."""
        return self._chosen[0]

    def predict(self, features: Floats) -> float:
        """Milliseconds of a part that does this (`families x 3`)."""
        return float(self._chosen[1](features[None])[0])

    def covers(self, features: Floats) -> bool:
        """Whether a part lies between the measured ones: in the convex hull of their logarithmic totals."""
        return inside(np.log1p(features.sum(axis=0)), np.log1p(self._x.sum(axis=1)), margin=_MARGIN)

    @cached_property
    def _chosen(self) -> tuple[float, Callable[[Floats], Floats]]:
        kinds = _residuals(len(set(self._keys)), self._seed)
        spreads = [self._left_out_error(kind) for kind in kinds]
        best = int(np.argmin(spreads))
        return spreads[best], _fit(self._x, self._ms, kinds[best])

    def _left_out_error(self, kind: Callable[[], Any] | None) -> float:
        """All batches of a key are left out together: they tell too much of each other."""
        names = np.random.default_rng(self._seed).permutation(sorted(set(self._keys)))
        errors = np.zeros(len(self._ms))
        for fold in range(min(FOLDS, len(names))):
            left_out = np.isin(self._keys, names[fold::FOLDS])
            predict = _fit(self._x[~left_out], self._ms[~left_out], kind)
            errors[left_out] = np.log(self._ms[left_out] / predict(self._x[left_out]))
        return float(np.sqrt((errors**2).mean()))


def inside(point: Floats, cloud: Floats, *, margin: float = 0.0) -> bool:
    """Whether `point` (`d`) lies in the convex hull of the points `cloud` (`n x d`), or not further from it."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    # It does exactly if it is a mean of them with weights of at least 0 that add up to 1; the last row says that
    # so loudly that the distance is one between points.
    system = np.concatenate([cloud.T, np.full((1, len(cloud)), _LOUD)])
    _, distance = nnls(system, np.append(point, _LOUD))
    return bool(distance <= margin + _ROUNDING * max(1.0, float(np.abs(point).max())))


def _residuals(keys: int, seed: int) -> list[Callable[[], Any] | None]:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.neighbors import KNeighborsRegressor

    kinds: list[Callable[[], Any] | None] = [None, lambda: KNeighborsRegressor(_NEIGHBOURS, weights="distance")]
    if keys >= _MIN_FOR_TREES:
        kinds.append(lambda: GradientBoostingRegressor(max_depth=2, n_estimators=60, random_state=seed))
    return kinds


def _fit(x: Floats, ms: Floats, kind: Callable[[], Any] | None) -> Callable[[Floats], Floats]:
    """A function from `n x families x 3` to `n` milliseconds."""
    coefficients = _roofline(x, ms)
    least = float(ms.min()) / 2  # a part must never come out as free

    def roofline(of: Floats) -> Floats:
        return np.maximum(of.reshape(len(of), -1) @ coefficients, least)

    if kind is None or len(ms) < _NEIGHBOURS:
        return roofline
    mean, scale = _standard(x)
    model = kind().fit(_scaled(x, mean, scale), np.log(ms / roofline(x)))
    return lambda of: roofline(of) * np.exp(model.predict(_scaled(of, mean, scale)))


def _standard(x: Floats) -> tuple[Floats, Floats]:
    logs = np.log1p(x.reshape(len(x), -1))
    scale = logs.std(axis=0)
    return logs.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _scaled(x: Floats, mean: Floats, scale: Floats) -> Floats:
    scaled: Floats = (np.log1p(x.reshape(len(x), -1)) - mean) / scale
    return scaled


def _roofline(x: Floats, ms: Floats) -> Floats:
    """Coefficients of every family's columns, drawn to those of one roofline for all families."""
    pooled = _solve(x.sum(axis=1) / ms[:, None], np.ones(len(ms)))
    prior = np.tile(pooled, x.shape[1])
    design = x.reshape(len(x), -1) / ms[:, None]
    faint = _PRIOR_WEIGHT * np.linalg.norm(design, axis=0)
    seen = np.flatnonzero(faint)
    rows = np.concatenate([design[:, seen], np.diag(faint[seen])])
    found = prior.copy()
    found[seen] = _solve(rows, np.concatenate([np.ones(len(ms)), faint[seen] * prior[seen]]))
    return found


def _solve(rows: NDArray[np.float64], target: Floats) -> Floats:
    """Least squares with coefficients of at least 0; columns are scaled, as bytes and calls differ by millions."""
    from scipy.optimize import nnls

    scale = np.linalg.norm(rows, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    solution, _ = nnls(rows / scale, target)
    coefficients: Floats = solution / scale
    return coefficients
