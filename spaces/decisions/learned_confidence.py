"""A learned score: how likely an exit's answer is right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..decision import AbstractDecision

FIRST = (1.0, 0.05, 0.05)  # weights before training: the odds of the best class, and a little of the rest


@final
class Evidence(nn.Module):
    """Log-odds that an exit is right, from what its logits say; `b x c` -> `b`.

    A sum of three measures that grow as an answer gets sharper, with weights that cannot fall below 0, and an offset
    for the predicted class. So a sharper answer never scores less, and classes that are often mistaken score less.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(FIRST).expm1().log())  # the softplus of these is FIRST
        self.offset = nn.Parameter(torch.zeros(classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Log-odds."""
        best, predicted = logits.max(1)
        others = logits.scatter(1, predicted[:, None], -torch.inf).logsumexp(1)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        certainty = 1 + (p * log_p).sum(1) / math.log(logits.shape[1])
        two = p.topk(2, dim=1).values
        measures = torch.stack([best - others, certainty, two[:, 0] - two[:, 1]], 1)
        return (measures * functional.softplus(self.weights)).sum(1) + self.offset[predicted]


@final
@dataclass(frozen=True)
class LearnedConfidence(AbstractDecision):
    """Score: the learned probability that the exit's answer is right, in `[0, 1]`.

    Odds of the best class, entropy and lead over the second are weighed by what was learned of each exit, and each
    predicted class has an offset.

    Source: Ilhan, Chow, Hu, Huang, Tekin, Wei, Wu, Lee, Kompella, Latapie, Liu, "Adaptive Deep Neural Network
        Inference Optimization with EENet", WACV 2024 (scores learned from several measures of confidence); Dai, Kong,
        Guo, "EPNet: Learning to Exit with Flexible Multi-Branch Network", CIKM 2020 (a selector beside each exit).
    """

    name: ClassVar[str] = "learned_confidence"
    source: ClassVar[str] = "Ilhan et al., WACV 2024"
    learns: ClassVar[bool] = True

    def build(self, classes: int) -> nn.Module:
        """Weights of one exit."""
        return Evidence(classes)

    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The probability of each row."""
        assert learned is not None, "this scheme scores by what was learned"
        evidence: Tensor = learned(logits)
        return evidence.sigmoid(), None
