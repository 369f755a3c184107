"""Distillation: exits that learn from another classifier beside the labels; part of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from .scope import Scope
from .spec import AbstractSpec, require, require_name, require_options

NONE, SELF, TEACHER = "none", "self", "teacher"
KINDS = (NONE, SELF, TEACHER)


@final
@dataclass(frozen=True)
class DistillationChoice(AbstractSpec):
    """One way to distil.

    Args:
        kind: who teaches: `self`, the final head of the network; `teacher`, a static network of its own.
        temperature: logits are divided by it before they are compared.
        weight: share of the teacher in a pupil's loss; the labels have the rest.
    """

    kind: str
    temperature: float
    weight: float

    def check(self) -> None:
        """A known teacher, sane numbers."""
        require_name("kind", self.kind, (SELF, TEACHER))
        _check_temperature(self.temperature, "temperature")
        _check_weight(self.weight, "weight")


@final
@dataclass(frozen=True)
class Distillation(AbstractSpec):
    """The ranges in which a search may vary who teaches.

    A `teacher` is the static network of the candidate's own backbone. It is trained first, by the same recipe, seed
    and number of epochs, and its epochs are counted among those that were spent. With `self` the final head teaches
    the early exits; a network without early exits has nobody to teach, and is trained without.

    Args:
        kind: teachers to choose from: `none`, `self`, `teacher`.
        temperature: temperatures to choose from.
        weight: shares of the teacher to choose from.

    Source: Phuong, Lampert, "Distillation-Based Training for Multi-Exit Architectures", ICCV 2019 (self); Hinton,
        Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (teacher).
    """

    kind: tuple[str, ...] = (NONE,)
    temperature: tuple[float, ...] = (3.0,)
    weight: tuple[float, ...] = (0.5,)

    def check(self) -> None:
        """Known, distinct options."""
        require_options("kind", self.kind, KINDS)
        require_options("temperature", self.temperature)
        require_options("weight", self.weight)
        for index, value in enumerate(self.temperature):
            _check_temperature(value, f"temperature.{index}")
        for index, value in enumerate(self.weight):
            _check_weight(value, f"weight.{index}")

    def suggest(self, scope: Scope, *, exits: bool) -> DistillationChoice | None:
        """Who teaches, then how.

        Args:
            scope: to ask.
            exits: whether the network has early exits.
        """
        kinds = self._kinds(exits=exits)
        name = "kind" if kinds == self.kind else "kind_without_exits"  # a name always means the same range
        kind = scope.categorical(name, kinds)
        if kind == NONE:
            return None
        temperature = scope.categorical("temperature", self.temperature)
        return DistillationChoice(kind, temperature, scope.categorical("weight", self.weight))

    def size(self, *, exits: bool) -> int:
        """How many choices `suggest` can make."""
        each = len(self.temperature) * len(self.weight)
        return sum(1 if kind == NONE else each for kind in self._kinds(exits=exits))

    def _kinds(self, *, exits: bool) -> tuple[str, ...]:
        if exits:
            return self.kind
        return tuple(dict.fromkeys(NONE if kind == SELF else kind for kind in self.kind))


def _check_temperature(value: float, path: str) -> None:
    require(0 < value <= 100, path, f"must be in (0, 100], but got {value}")


def _check_weight(value: float, path: str) -> None:
    require(0 < value <= 1, path, f"must be in (0, 1], but got {value}; without a teacher's share the kind is none")


def taught(
    losses: Sequence[Tensor], logits: Sequence[Tensor], choice: DistillationChoice, teacher: Tensor | None = None
) -> list[Tensor]:
    """The loss of every exit with a share for its teacher: `(1 - w) CE + w T^2 KL(teacher | pupil)`.

    Args:
        losses: cross entropy of each exit, the final head last.
        logits: `b x c` of each exit.
        choice: how to distil.
        teacher: `b x c`, of the static network; None: the final head teaches the others, and itself learns from the
            labels alone.
    """
    if teacher is None:
        # The teacher gets no gradient from its pupils, or it would be pulled down to them.
        return [*taught(losses[:-1], logits[:-1], choice, logits[-1].detach()), losses[-1]]
    goal = functional.log_softmax(teacher / choice.temperature, 1)
    pupils = [functional.log_softmax(x / choice.temperature, 1) for x in logits]
    gaps = [functional.kl_div(pupil, goal, reduction="batchmean", log_target=True) for pupil in pupils]
    share, scale = choice.weight, choice.weight * choice.temperature**2
    return [torch.add((1 - share) * loss, gap, alpha=scale) for loss, gap in zip(losses, gaps, strict=True)]
