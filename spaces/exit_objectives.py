"""Training objectives of multi-exit networks.

They live beside the design choices because an objective is one: it changes what the network is
worth, and gradient equilibrium changes its backward pass too. An objective is one class and one line
in `EXIT_OBJECTIVES`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from .errors import UnknownNameError


@dataclass(frozen=True)
class AbstractExitObjective(abc.ABC):
    """A loss over all exits of a network."""

    name: ClassVar[str]
    source: ClassVar[str]
    equilibrium: ClassVar[bool] = False  # whether gradients are rescaled where exits leave the backbone

    @abc.abstractmethod
    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """One scalar of the losses of all exits, the final head last."""

    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The loss of a batch, without a teacher.

        Args:
            logits: one `b x c` tensor for each exit in depth order, the final head last.
            labels: `b` class indices.
            label_smoothing: share of the target spread over all classes.

        Returns:
            A scalar.
        """
        return self.weigh(cross_entropies(logits, labels, label_smoothing=label_smoothing))


def cross_entropies(logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> list[Tensor]:
    """The cross entropy of every exit: scalars."""
    return [functional.cross_entropy(x, labels, label_smoothing=label_smoothing) for x in logits]


@final
@dataclass(frozen=True)
class EqualWeights(AbstractExitObjective):
    """Every exit counts the same.

    Source: Huang et al., "Multi-Scale Dense Networks", ICLR 2018.
    """

    name: ClassVar[str] = "equal"
    source: ClassVar[str] = "Huang et al., ICLR 2018"

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """Their mean."""
        return torch.stack(list(losses)).mean()


@final
@dataclass(frozen=True)
class LinearWeights(AbstractExitObjective):
    """Exit `i` of `k` counts `i`: deep exits matter most.

    Source: Zhou et al., "BERT Loses Patience", NeurIPS 2020 (weights grow with depth).
    """

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = "Zhou et al., NeurIPS 2020"

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """Their mean, weighted by the number of the exit."""
        made = torch.stack(list(losses))
        weights = torch.arange(1, len(losses) + 1, device=made.device)
        return (weights * made).sum() / weights.sum()


@final
@dataclass(frozen=True)
class GradientEquilibrium(AbstractExitObjective):
    """Equal weights, with gradients rescaled at every branch so that early blocks are not torn by many exits.

    At exit `i` of `k` the branch sends back `1 / (k - i + 1)` of its gradient and the rest of the network
    `(k - i) / (k - i + 1)`; the network does this, the loss is the plain sum.

    Source: Li, Zhang, Qi, Yang, Huang, "Improved Techniques for Training Adaptive Deep Networks", ICCV 2019.
    """

    name: ClassVar[str] = "gradient_equilibrium"
    source: ClassVar[str] = "Li et al., ICCV 2019"
    equilibrium: ClassVar[bool] = True

    def weigh(self, losses: Sequence[Tensor]) -> Tensor:
        """Their sum."""
        return torch.stack(list(losses)).sum()


EXIT_OBJECTIVES: tuple[AbstractExitObjective, ...] = (
    EqualWeights(),
    LinearWeights(),
    GradientEquilibrium(),
)


def exit_objective(name: str, path: str = "objective") -> AbstractExitObjective:
    """The training objective of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in EXIT_OBJECTIVES:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in EXIT_OBJECTIVES])
