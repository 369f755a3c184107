"""Decision scheme: how a network that tried an exit judges whether to stop there."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class AbstractDecision(abc.ABC):
    """Turns the logits of a tried exit into one score for each input; leave when score > threshold.

    A member is one file in `spaces/decisions/` and one line in `DECISIONS`. A scheme may remember
    something of the exits tried before (`state`, one row for each input still in the network), or learn something
    beside each exit.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    remembers: ClassVar[bool] = False  # whether scores depend on the exits tried before
    learns: ClassVar[bool] = False  # whether each exit has weights for it; scores are then probabilities of being right

    def build(self, classes: int) -> nn.Module | None:
        """Fresh weights for one exit, if the scheme learns: logits `b x c` -> whatever `score` makes of it."""
        return None

    @abc.abstractmethod
    def score(
        self, logits: Tensor, state: Tensor | None, learned: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores and the new state.

        Args:
            logits: `b x c`.
            state: `b x s`, or None at the first tried exit and for schemes without memory.
            learned: what `build` made for this exit, trained; None for schemes that learn nothing.

        Returns:
            Scores `b`, larger for safer answers, and the state for the next exit.
        """
