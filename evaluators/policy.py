"""What a policy is worth on a score table: accuracy, mean cost, and who leaves where.

Everything is read from recorded scores and predictions, so the network does not run again. Costs are those of
routed mode: a sample pays every segment up to its exit, and the head and the decision of every tried exit on
the way, also of those that it passes. Where everybody leaves (threshold `-inf`) nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError, UnknownNameError
from ..spaces.policy import Policy

PATIENCE = "patience"


@final
@dataclass(frozen=True, eq=False)
class ExitProblem:
    """Score table and costs of one trained candidate on one device (`n` samples, `e` early exits).

    Args:
        scores: measure -> `n x e`, higher is more certain; only measures that policies may use.
        predictions: `n x (e+1)` predicted classes, the final head last.
        labels: `n`.
        segment_ms: `e+1`, or `n x (e+1)` where samples differ: the segment that ends at each exit, the last one
            with the final head.
        exit_ms: `e`, the head of each exit, paid by every sample that gets to it while it is enabled.
        decide_ms: measure (and "patience") -> one decision, paid with each tried exit that decides.
        patience: whether patience policies may be used.

    Raises:
        DataError: if shapes do not fit together, values are not finite, costs are negative or missing.
    """

    scores: Mapping[str, NDArray[np.float32]]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    segment_ms: NDArray[np.float64]
    exit_ms: NDArray[np.float64]
    decide_ms: Mapping[str, float]
    patience: bool = False

    def __post_init__(self) -> None:
        if self.predictions.ndim != 2 or not self.predictions.size:
            raise DataError("predictions", f"must be n x (e+1) with n >= 1, but got {self.predictions.shape}")
        n, e = self.samples, self.exits
        _check("labels", self.labels, ((n,),))
        _check("segment_ms", self.segment_ms, ((e + 1,), (n, e + 1)), cost=True)
        _check("exit_ms", self.exit_ms, ((e,),), cost=True)
        for name, scores in self.scores.items():
            _check(f"scores.{name}", scores, ((n, e),))
        for name in self.decisions:
            if name not in self.decide_ms:
                raise DataError(f"decide_ms.{name}", "is missing; give the cost of one such decision")
            _check(f"decide_ms.{name}", np.asarray(self.decide_ms[name]), ((),), cost=True)
        if PATIENCE in self.scores:
            raise DataError("scores", "patience follows from the predictions; set patience=True instead")
        if e and not self.decisions:
            raise DataError("scores", "must hold a measure (or patience=True) where there are exits")

    @property
    def samples(self) -> int:
        """`n`."""
        return len(self.predictions)

    @property
    def exits(self) -> int:
        """`e`: early exits, the final head not counted."""
        return int(self.predictions.shape[1]) - 1

    @property
    def decisions(self) -> tuple[str, ...]:
        """Names that a policy may decide by."""
        return (*self.scores, PATIENCE) if self.patience else tuple(self.scores)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """`n x (e+1)`: whether each head is right."""
        return np.asarray(self.predictions == self.labels[:, None])

    def tried_ms(self, policy: Policy) -> NDArray[np.float64]:
        """`e`: what each exit adds for every sample that gets to it, 0 where it is not tried."""
        decide = self.decide_ms[policy.decision] if any(policy.enabled) else 0.0
        costs = [
            0.0 if t is None else head + (0.0 if t == -math.inf else decide)
            for t, head in zip(policy.thresholds, self.exit_ms, strict=True)
        ]
        return np.array(costs, dtype=np.float64)


@final
@dataclass(frozen=True)
class PolicyPoint:
    """A policy with its accuracy, mean cost and the share of samples that leave at each exit (final head last)."""

    policy: Policy
    accuracy: float
    mean_cost_ms: float
    exit_share: tuple[float, ...]


def leave_at(
    scores: Mapping[str, NDArray[np.float32]], predictions: NDArray[np.int64], policy: Policy
) -> NDArray[np.int64]:
    """The exit that each sample leaves at under a policy.

    Args:
        scores: measure -> `n x e`.
        predictions: `n x (e+1)`.
        policy: one threshold for each of the `e` exits.

    Returns:
        `n` numbers of exits; `e` is the final head.

    Raises:
        DataError: if the policy is for another number of exits.
        UnknownNameError: if nothing was recorded for the policy's decision scheme.
    """
    n, exits = predictions.shape[0], predictions.shape[1] - 1
    if len(policy.thresholds) != exits:
        raise DataError("policy", f"must have {exits} thresholds, one an exit, but has {len(policy.thresholds)}")
    taken = np.full(n, exits, dtype=np.int64)
    if not any(policy.enabled):
        return taken
    judged = _runs(predictions, policy) if policy.decision == PATIENCE else scores.get(policy.decision)
    if judged is None:
        raise UnknownNameError("policy.decision", policy.decision, (*scores, PATIENCE))
    for k in reversed(range(exits)):  # from the back, so that the earliest exit that takes a sample has the last word
        threshold = policy.thresholds[k]
        if threshold is not None:
            # In float64: a threshold must not be rounded to the score beside it.
            taken[judged[:, k].astype(np.float64) > threshold] = k
    return taken


def evaluate(problem: ExitProblem, policy: Policy) -> PolicyPoint:
    """Accuracy and mean cost of a policy over all samples of the problem.

    Raises:
        DataError: if the policy is for another number of exits.
        UnknownNameError: if the problem has no scores for the policy's decision scheme.
    """
    if any(policy.enabled) and policy.decision not in problem.decisions:
        raise UnknownNameError("policy.decision", policy.decision, problem.decisions)
    taken = leave_at(problem.scores, problem.predictions, policy)
    n, exits = problem.samples, problem.exits
    share = np.bincount(taken, minlength=exits + 1) / n
    reached = taken[:, None] >= np.arange(exits + 1)  # n x (e+1)
    segments = np.where(reached, problem.segment_ms, 0.0).sum() / n
    heads = float(reached[:, :exits].mean(axis=0) @ problem.tried_ms(policy))
    accuracy = problem.correct[np.arange(n), taken].mean()
    return PolicyPoint(policy, float(accuracy), float(segments) + heads, tuple(float(s) for s in share))


def _runs(predictions: NDArray[np.int64], policy: Policy) -> NDArray[np.int64]:
    """`n x e`: how many tried exits in a row, this one the last, predict the same class."""
    runs = np.zeros((predictions.shape[0], predictions.shape[1] - 1), dtype=np.int64)
    before = None
    for k, enabled in enumerate(policy.enabled):
        if enabled:
            runs[:, k] = 1
            if before is not None:
                runs[:, k] += np.where(predictions[:, k] == predictions[:, before], runs[:, before], 0)
            before = k
    return runs


def _check(path: str, values: NDArray[np.generic], shapes: tuple[tuple[int, ...], ...], *, cost: bool = False) -> None:
    if values.shape not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise DataError(path, f"must have shape {wanted}, but has {values.shape}")
    if not np.isfinite(values.astype(np.float64)).all():
        raise DataError(path, "must be finite, but holds NaN or infinity; leave failed samples out")
    if cost and (values.astype(np.float64) < 0.0).any():
        raise DataError(path, f"must not be negative, but holds {values.astype(np.float64).min():.4g} ms")
