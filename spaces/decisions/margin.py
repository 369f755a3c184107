"""Confidence by the lead of the best class over the second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..decision import AbstractDecision


@final
@dataclass(frozen=True)
class Margin(AbstractDecision):
    """Score: largest minus second largest probability, in `[0, 1]`.

    Source: Park et al., "Big/Little Deep Neural Network for Ultra Low Power Inference", CODES+ISSS 2015.
    """

    name: ClassVar[str] = "margin"
    source: ClassVar[str] = "Park et al., CODES+ISSS 2015"

    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The lead of each row."""
        best = logits.softmax(1).topk(2, dim=1).values
        return best[:, 0] - best[:, 1], None
