"""Stop when successive exits agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..decision import AbstractDecision


@final
@dataclass(frozen=True)
class Patience(AbstractDecision):
    """Score: how many successive tried exits, this one included, predict the same class.

    A threshold of `k - 0.5` leaves when `k` exits agree.

    Source: Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", NeurIPS 2020.
    """

    name: ClassVar[str] = "patience"
    source: ClassVar[str] = "Zhou et al., NeurIPS 2020"
    remembers: ClassVar[bool] = True

    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Run lengths; the state holds the last class and its run length, `b x 2`."""
        predicted = logits.argmax(1).float()  # whatever the logits are: bfloat16 would take class 257 for 256
        run = torch.ones_like(predicted)
        if state is not None:
            run = torch.where(predicted == state[:, 0], state[:, 1] + 1, run)
        return run, torch.stack((predicted, run), dim=1)
