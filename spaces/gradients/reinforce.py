"""REINFORCE with a curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..gradient import AbstractGradient, Draw, one_hot, uniform


@final
@dataclass(frozen=True)
class Reinforce(AbstractGradient):
    """Sampled decisions without a gradient of their own; the training loop rewards what turned out well.

    At first only the last places decide, and everything before them runs; place after place, from the back, the
    others join in, the first one after `curriculum` of the training.

    Args:
        curriculum: share of the training until all places decide; 0: all from the start.

    Source: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
        1992; curriculum from Wu et al., "BlockDrop", CVPR 2018.
    """

    name: ClassVar[str] = "reinforce"
    source: ClassVar[str] = "Williams, 1992"
    curriculum: float = 0.4

    def draw(self, logits: Tensor, *, progress: float, place: float, generator: torch.Generator | None = None) -> Draw:
        """A sample of the softmax, or the last branch where this place has no say yet."""
        if self.curriculum > 0 and 1 - place > progress / self.curriculum:
            last = torch.full((logits.shape[0],), logits.shape[1] - 1, device=logits.device)
            return Draw(one_hot(last, logits))
        noise = -torch.log(-torch.log(uniform(logits.shape, logits, generator)))
        drawn = (logits.detach() + noise).argmax(1)
        return Draw(one_hot(drawn, logits), logits.log_softmax(1).gather(1, drawn[:, None])[:, 0])
