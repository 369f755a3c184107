"""Training recipe: how a candidate is trained; part of what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from .distillation import Distillation, DistillationChoice
from .scope import Scope
from .spec import AbstractSpec, require, require_options, require_range


@final
@dataclass(frozen=True)
class RecipeChoice(AbstractSpec):
    """One recipe.

    Args:
        learning_rate: peak rate of AdamW, reached after a short warm-up, then falling as a cosine to zero.
        weight_decay: decoupled weight decay.
        label_smoothing: share of the target spread over all classes.
        batch_size: inputs in a training step.
        shift: images are moved by up to so many pixels in training.
        flip: images are mirrored at random in training.
        distillation: who teaches beside the labels, if anybody does.
    """

    learning_rate: float
    weight_decay: float
    label_smoothing: float
    batch_size: int
    shift: int
    flip: bool
    distillation: DistillationChoice | None = None

    def check(self) -> None:
        """Positive rate, sane sizes."""
        require(0 < self.learning_rate <= 1, "learning_rate", f"must be in (0, 1], but got {self.learning_rate}")
        require_range("weight_decay", self.weight_decay, 0, 1)
        require(0 <= self.label_smoothing < 1, "label_smoothing", f"must be in [0, 1), got {self.label_smoothing}")
        require_range("batch_size", self.batch_size, 2, 65536)  # batch normalisation needs two
        require_range("shift", self.shift, 0, 64)


@final
@dataclass(frozen=True)
class Recipe(AbstractSpec):
    """The ranges of the recipe.

    Args:
        learning_rate: rates to choose from.
        weight_decay, label_smoothing, batch_size, shift, flip: fixed for the search.
        distillation: who may teach beside the labels, and how.
    """

    name: ClassVar[str] = "training"

    learning_rate: tuple[float, ...] = (0.003,)
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    batch_size: int = 64
    shift: int = 0
    flip: bool = False
    distillation: Distillation = field(default_factory=Distillation)

    def check(self) -> None:
        """As for a choice, for every rate."""
        require_options("learning_rate", self.learning_rate)
        for rate in self.learning_rate:
            self._choice(rate)

    def suggest(self, scope: Scope, *, exits: bool) -> RecipeChoice:
        """Ask for the learning rate, then who teaches.

        Args:
            scope: to ask.
            exits: whether the network has early exits, which its final head could teach.
        """
        rate = scope.categorical("learning_rate", self.learning_rate)
        return self._choice(rate, self.distillation.suggest(scope / "distillation", exits=exits))

    def size(self, *, exits: bool) -> int:
        """How many recipes there are for networks with, or without, early exits."""
        return len(self.learning_rate) * self.distillation.size(exits=exits)

    def _choice(self, rate: float, distillation: DistillationChoice | None = None) -> RecipeChoice:
        return RecipeChoice(
            rate,
            self.weight_decay,
            self.label_smoothing,
            self.batch_size,
            self.shift,
            self.flip,
            distillation,
        )
