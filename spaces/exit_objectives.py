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
    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The loss of a batch.

        Args:
            logits: one `b x c` tensor for each exit in depth order, the final head last.
            labels: `b` class indices.
            label_smoothing: share of the target spread over all classes.

        Returns:
            A scalar.
        """


def _weighted(logits: Sequence[Tensor], labels: Tensor, weights: Sequence[float], smoothing: float) -> Tensor:
    losses = [functional.cross_entropy(x, labels, label_smoothing=smoothing) for x in logits]
    total = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
    return total / sum(weights)


@final
@dataclass(frozen=True)
class EqualWeights(AbstractExitObjective):
    """Every exit counts the same.

    Source: Huang et al., "Multi-Scale Dense Networks", ICLR 2018.
    """

    name: ClassVar[str] = "equal"
    source: ClassVar[str] = "Huang et al., ICLR 2018"

    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy over the exits."""
        return _weighted(logits, labels, [1.0] * len(logits), label_smoothing)


@final
@dataclass(frozen=True)
class LinearWeights(AbstractExitObjective):
    """Exit `i` of `k` counts `i`: deep exits matter most.

    Source: Zhou et al., "BERT Loses Patience", NeurIPS 2020 (weights grow with depth).
    """

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = "Zhou et al., NeurIPS 2020"

    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy weighted by the number of the exit."""
        return _weighted(logits, labels, [float(i + 1) for i in range(len(logits))], label_smoothing)


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

    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Sum of cross entropies."""
        return _weighted(logits, labels, [1.0] * len(logits), label_smoothing) * len(logits)


@final
@dataclass(frozen=True)
class DistillLast(AbstractExitObjective):
    """Early exits learn from the labels and from the final head in equal parts.

    Source: Phuong, Lampert, "Distillation-Based Training for Multi-Exit Architectures", ICCV 2019.
    """

    name: ClassVar[str] = "distillation"
    source: ClassVar[str] = "Phuong, Lampert, ICCV 2019"
    share: float = 0.5
    temperature: float = 3.0

    def loss(self, logits: Sequence[Tensor], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean over exits of cross entropy and, for early ones, divergence from the final head."""
        plain = _weighted(logits, labels, [1.0] * len(logits), label_smoothing)
        if len(logits) == 1:
            return plain
        # The teacher gets no gradient from its pupils, or it would be pulled down to them.
        teacher = functional.log_softmax(logits[-1].detach() / self.temperature, 1)
        pupils = [functional.log_softmax(x / self.temperature, 1) for x in logits[:-1]]
        gaps = [functional.kl_div(pupil, teacher, reduction="batchmean", log_target=True) for pupil in pupils]
        divergence = torch.stack(gaps).sum() * self.temperature**2 / len(logits)
        return (1 - self.share) * plain + self.share * divergence


EXIT_OBJECTIVES: tuple[AbstractExitObjective, ...] = (
    EqualWeights(),
    LinearWeights(),
    GradientEquilibrium(),
    DistillLast(),
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
