"""Gradient: how training passes through a decision that is hard at run time."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Draw:
    """How a decision was taken in training.

    Args:
        weights: `b x k`, one-hot in value; the gradient is the estimator's.
        log_prob: `b`, of what was drawn, for estimators that need it.
    """

    weights: Tensor
    log_prob: Tensor | None = None


@dataclass(frozen=True)
class AbstractGradient(abc.ABC):
    """A gradient estimator for choices.

    A member is one file in `spaces/gradients/` and one line in `GRADIENTS`.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    @abc.abstractmethod
    def draw(self, logits: Tensor, *, progress: float, place: float, generator: torch.Generator | None = None) -> Draw:
        """Decide in training.

        Args:
            logits: `b x k`.
            progress: share of the training that is done.
            place: where in the network the choice is, from 0 (first) to 1 (last).
            generator: of the noise.
        """


def one_hot(index: Tensor, logits: Tensor) -> Tensor:
    """`b` numbers of branches -> `b x k` in the type of the logits."""
    return torch.nn.functional.one_hot(index, logits.shape[1]).to(logits)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """`hard` in value, `soft` in gradient."""
    return hard + soft - soft.detach()


def uniform(shape: torch.Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers in (0, 1), drawn where the generator lives, so that a seed means the same on every device."""
    device = "cpu" if generator is None else generator.device
    drawn = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    return drawn.clamp(1e-6, 1 - 1e-6).to(like)
