"""The embedded sequences: two drifts in noise, whose evidence adds up over time.

The rule. A sequence has 12 to 24 steps of four channels. Its label is two bits, `y = 2 b1 + b2`, and each step is

    x_t = s (±1) m1 + s (±1) m2 + e_t,   m1 = (1, 1, 1, 1) / 2,   m2 = (1, -1, 1, -1) / 2,   e_t ~ N(0, I),

where a sign is + if its bit is 1. The strength `s` of a sequence is 1.2 (easy), 0.6 or 0.3 (hard), each for a third of
all, and is not told. What can be known about a bit after T steps is the sum of `m · x_t`, which is normal with mean
`±s T` and variance T; its sign is the best guess for any `s`, and right with probability Φ(s √T). The bits' noises are
independent, as m1 and m2 are orthogonal. Hence the Bayes accuracy after T steps is Φ(s √T)²: an easy sequence is all
but certain after 5 steps (0.99), one of middle strength after 18 (0.99), and a hard one is not even at its end (0.86
after 24 steps). Over strengths and lengths the mean is `bayes_accuracy()`.

Source: Wald, "Sequential Tests of Statistical Hypotheses", 1945: evidence from independent steps adds up, and a test
that stops when there is enough of it needs fewer steps than any of fixed length.
"""

from __future__ import annotations

import math

import numpy as np

from ...spaces.errors import DataError
from .data import Data
from .sequences import from_sequences

SEQUENCES = 3000
STRENGTHS = (1.2, 0.6, 0.3)
SHORTEST, LONGEST = 12, 24
DIRECTIONS = np.array([[1, 1, 1, 1], [1, -1, 1, -1]]) / 2


def right(strength: float, steps: int) -> float:
    """The probability that the best guess after so many steps is right."""
    return (0.5 * (1 + math.erf(strength * math.sqrt(steps) / math.sqrt(2)))) ** 2


def bayes_accuracy() -> float:
    """The mean of `right` over the strengths and lengths that the sequences have."""
    chances = [right(s, t) for s in STRENGTHS for t in range(SHORTEST, LONGEST + 1)]
    return sum(chances) / len(chances)


def drifts(sequences: int = SEQUENCES, seed: int = 0) -> Data:
    """Sequences of up to 24 steps of four channels in four classes.

    Raises:
        DataError: if too few are asked for.
    """
    if sequences < 12:
        raise DataError("data", f"must be 12 sequences or more, but got {sequences}")
    generator = np.random.default_rng([seed, 0x5E])
    made, labels = [], np.arange(sequences) % 4
    for number, label in enumerate(labels.tolist()):
        strength = STRENGTHS[number // 4 % len(STRENGTHS)]
        steps = int(generator.integers(SHORTEST, LONGEST + 1))
        signs = np.array([2 * (label // 2) - 1, 2 * (label % 2) - 1])
        made.append(strength * signs @ DIRECTIONS + generator.normal(size=(steps, DIRECTIONS.shape[1])))
    return from_sequences(made, labels, name="drifts")
