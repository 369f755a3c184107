"""Gumbel-softmax with hard samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..gradient import AbstractGradient, Draw, one_hot, straight_through, uniform

SCHEDULES = ("exponential", "linear", "constant")


@final
@dataclass(frozen=True)
class Gumbel(AbstractGradient):
    """Sampled decisions forward, the gradient of a tempered softmax backward.

    Args:
        start, end: temperature when training begins and ends.
        schedule: how it falls in between.

    Source: Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017; temperatures from
        Han et al., "Latency-aware Unified Dynamic Networks", TPAMI 2024 (5 to 0.1, exponential).
    """

    name: ClassVar[str] = "gumbel"
    source: ClassVar[str] = "Jang et al., ICLR 2017"
    start: float = 5.0
    end: float = 0.5
    schedule: str = "exponential"

    def temperature(self, progress: float) -> float:
        """At this share of the training."""
        if self.schedule == "constant":
            return self.start
        if self.schedule == "linear":
            return self.start + (self.end - self.start) * progress
        return float(self.start * (self.end / self.start) ** progress)

    def draw(self, logits: Tensor, *, progress: float, place: float, generator: torch.Generator | None = None) -> Draw:
        """The largest of logits and noise."""
        noise = -torch.log(-torch.log(uniform(logits.shape, logits, generator)))
        noisy = logits + noise
        soft = (noisy / self.temperature(progress)).softmax(1)
        return Draw(straight_through(one_hot(noisy.argmax(1), logits), soft))
