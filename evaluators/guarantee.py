"""Guarantees: which policies lose no more accuracy than a user allows, with the probability that is promised.

A policy's *drop* on an input is 1 if the whole network is right and the policy is wrong, -1 if it is the other way
round, and 0 else; its mean is the accuracy that the policy loses. A mean on a finite split is luck in part. What is
promised here holds for the distribution that the split was drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom  # type: ignore[import-untyped]

from ..spaces.errors import SpecError
from ..spaces.policy import Policy
from .policy import leave_at
from .score_table import ScoreTables

Drops = NDArray[np.int64]

_BETS: Final = 200


def drops(tables: ScoreTables, policies: Sequence[Policy]) -> Drops:
    """`n x k`: what each policy loses on each input, against the whole network with its knobs at 0."""
    whole = tables.plain.correct[:, -1].astype(np.int64)
    found = []
    for policy in policies:
        table = tables.at(policy.setting)
        taken = leave_at(table.scores, table.predictions, policy)
        found.append(whole - table.correct[np.arange(len(taken)), taken])
    return np.stack(found, axis=1)


def p_value(losses: Drops, limit: float) -> float:
    """How likely such losses are, at most, if their expectation is above the limit.

    Two tests, twice the smaller value. `exact` counts the inputs that lose, and is the sharpest where none gains.
    `betting` sets gains against losses.

    Args:
        losses: `n` values of -1, 0 and 1.
        limit: below 1.
    """
    return min(1.0, 2 * min(exact(losses, limit), betting(losses, limit)))


def exact(losses: Drops, limit: float) -> float:
    """The binomial probability of so few losses, were they as frequent as the limit; a drop is no more frequent."""
    return float(binom.cdf(int(np.count_nonzero(losses > 0)), len(losses), limit))


def betting(losses: Drops, limit: float) -> float:
    """One over the capital of a gambler who bets on every input that the loss stays below the limit.

    If it does not, no strategy makes her rich. Her capital is the mean over all fractions that may be staked, so that
    it depends on no order of the inputs.

    Source: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.
    """
    stakes = (np.arange(_BETS) + 0.5) / _BETS / (1 - limit)
    values, times = np.unique(losses, return_counts=True)
    logs = np.log1p(-stakes[:, None] * (values[None, :] - limit)) @ times
    most = float(logs.max())
    return min(1.0, math.exp(-most) / float(np.exp(logs - most).mean()))


def learn_then_test(losses: Drops, *, limit: float, confidence: float) -> int:
    """How many policies, from the first on, lose no more than the limit; all of them at once with that confidence.

    Policies are tested in the given order until the first that fails, so no confidence is spent on looking at several.

    Args:
        losses: `n x k`, as `drops` gives them, of policies in an order that was fixed on other data, safest first.
        limit: accuracy that may be lost, as a fraction.
        confidence: probability, over the drawing of the `n` inputs, that the promise holds.

    Raises:
        SpecError: if limit or confidence cannot be promised.

    Source: Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control", AOAS
        2025; used for early exits by Schuster et al., "Confident Adaptive Language Modeling", NeurIPS 2022.
    """
    _check(limit, confidence)
    for index, column in enumerate(losses.T):
        if p_value(column, limit) > 1 - confidence:
            return index
    return int(losses.shape[1])


def conformal(losses: Drops, *, limit: float) -> int:
    """How many policies, from the first on, may be used so that the last of them loses no more than the limit.

    In expectation over the drawing of the `n` inputs and of the next one, not with a high probability. The loss of a
    policy is taken to be at least that of every safer one, since the proof wants losses that never fall.

    Args:
        losses: `n x k`, as `drops` gives them, of policies in an order that was fixed on other data, safest first.
        limit: accuracy that may be lost, as a fraction.

    Raises:
        SpecError: if the limit cannot be promised.

    Source: Angelopoulos et al., "Conformal Risk Control", ICLR 2024.
    """
    _check(limit, 0.5)
    n = len(losses)
    risk = np.maximum.accumulate(np.maximum(losses, 0), axis=1).mean(0)
    return int(np.count_nonzero((n * risk + 1) / (n + 1) <= limit))


def least_limit(n: int, confidence: float) -> float:
    """The least drop that `n` inputs can rule out at all, if not one of them is lost."""
    low, high, none = 0.0, 1.0, np.zeros(n, dtype=np.int64)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(none, middle) <= 1 - confidence else (middle, high)
    return high


def _check(limit: float, confidence: float) -> None:
    if not 0 < limit < 1:
        raise SpecError("max_drop", f"must be a fraction between 0 and 1, but got {limit:g}; 0.01 is one point")
    if not 0 < confidence < 1:
        raise SpecError("confidence", f"must be between 0 and 1, but got {confidence:g}; 0.95 is usual")
