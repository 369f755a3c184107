"""Straight-through estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..gradient import AbstractGradient, Draw, one_hot, straight_through


@final
@dataclass(frozen=True)
class StraightThrough(AbstractGradient):
    """The decision of run time forward, the gradient of a softmax backward; no noise.

    Source: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
    """

    name: ClassVar[str] = "straight_through"
    source: ClassVar[str] = "Bengio et al., 2013"

    def draw(self, logits: Tensor, *, progress: float, place: float, generator: torch.Generator | None = None) -> Draw:
        """The largest logit."""
        return Draw(straight_through(one_hot(logits.argmax(1), logits), logits.softmax(1)))
