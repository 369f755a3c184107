"""Confidence by the largest class probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..decision import AbstractDecision


@final
@dataclass(frozen=True)
class MaxProbability(AbstractDecision):
    """Score: the largest softmax probability, in `[1/c, 1]`.

    Source: Huang et al., "Multi-Scale Dense Networks", ICLR 2018; Kaya et al., "Shallow-Deep Networks", ICML 2019.
    """

    name: ClassVar[str] = "max_prob"
    source: ClassVar[str] = "Huang et al., ICLR 2018"

    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The largest probability of each row."""
        return logits.softmax(1).amax(1), None
