"""Confidence by the entropy of the predicted distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..decision import AbstractDecision


@final
@dataclass(frozen=True)
class Entropy(AbstractDecision):
    """Score: one minus the entropy divided by its maximum, in `[0, 1]`; 1 is certain.

    Source: Teerapittayanon, McDanel, Kung, "BranchyNet", ICPR 2016.
    """

    name: ClassVar[str] = "entropy"
    source: ClassVar[str] = "Teerapittayanon et al., ICPR 2016"

    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """One minus the normalised entropy of each row."""
        log_p = logits.log_softmax(1)
        return 1 + (log_p.exp() * log_p).sum(1) / math.log(logits.shape[1]), None
