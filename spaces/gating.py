"""Gating: what families with a learned gate have in common: who decides, and how that is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from .backbone import Outline
from .gates import GATES, gate
from .gradient import AbstractGradient
from .gradients import GRADIENTS, gradient
from .gradients.gumbel import SCHEDULES, Gumbel
from .ranges import AbstractRanges
from .scope import Scope
from .spec import AbstractSpec, require, require_name, require_options


@final
@dataclass(frozen=True)
class GatingChoice(AbstractSpec):
    """One way to decide and to learn deciding.

    Args:
        gate: kind of gate.
        gradient: estimator.
        temperature: of Gumbel-softmax at its end; None for other estimators.
        schedule: of that temperature; None for other estimators.
    """

    gate: str
    gradient: str
    temperature: float | None = None
    schedule: str | None = None

    def check(self) -> None:
        """Known names; a temperature where there is something to temper."""
        gate(self.gate)
        gradient(self.gradient)
        tempered = self.gradient == Gumbel.name
        for name, value in (("temperature", self.temperature), ("schedule", self.schedule)):
            require((value is not None) == tempered, name, f"belongs to the gradient {Gumbel.name!r} and to no other")
        if self.temperature is not None:
            require(0 < self.temperature <= 10, "temperature", f"must be in (0, 10], but got {self.temperature}")
        if self.schedule is not None:
            require_name("schedule", self.schedule, SCHEDULES)

    def estimator(self) -> AbstractGradient:
        """The gradient estimator with its settings."""
        made = gradient(self.gradient)
        if isinstance(made, Gumbel) and self.temperature is not None and self.schedule is not None:
            return replace(made, end=min(self.temperature, made.start), schedule=self.schedule)
        return made

    def describe(self) -> str:
        """Such as `pooled_linear gumbel`."""
        return f"{self.gate} {self.gradient}"


@final
@dataclass(frozen=True)
class Gating(AbstractRanges):
    """The ranges in which a search may vary how gates decide and learn.

    Args:
        gate: kinds to choose from.
        gradient: estimators to choose from.
        temperature: ends of the Gumbel-softmax temperature to choose from.
        schedule: schedules of that temperature to choose from.
    """

    gate: tuple[str, ...] = ("pooled_linear", "pooled_mlp", "recurrent", "policy_network")
    gradient: tuple[str, ...] = ("gumbel", "straight_through")
    temperature: tuple[float, ...] = (0.5,)
    schedule: tuple[str, ...] = ("exponential",)

    def check(self) -> None:
        """Known, distinct options."""
        require_options("gate", self.gate, tuple(member.name for member in GATES))
        require_options("gradient", self.gradient, tuple(member.name for member in GRADIENTS))
        require_options("temperature", self.temperature)
        require_options("schedule", self.schedule, SCHEDULES)
        for index, value in enumerate(self.temperature):
            require(0 < value <= 10, f"temperature.{index}", f"must be in (0, 10], but got {value}")

    def fitting(self, outline: Outline) -> tuple[str, ...]:
        """The kinds that can read what this backbone shows its gates, wherever they stand."""
        shapes = {outline.peeked(block) for block in range(outline.blocks)}
        return tuple(name for name in self.gate if all(gate(name).fits(shape) for shape in shapes))

    def suggest(self, scope: Scope, outline: Outline) -> GatingChoice:
        """One question an option; temperatures only for Gumbel-softmax."""
        fitting = self.fitting(outline)
        # Not every gate fits every backbone, and a name always means the same range.
        kind = scope.categorical("gate" if fitting == self.gate else f"gate_{'_or_'.join(fitting)}", fitting)
        estimator = scope.categorical("gradient", self.gradient)
        if estimator != Gumbel.name:
            return GatingChoice(kind, estimator)
        temperature = scope.categorical("temperature", self.temperature)
        return GatingChoice(kind, estimator, temperature, scope.categorical("schedule", self.schedule))

    def size(self, outline: Outline) -> int:
        """How many choices `suggest` can make; none if no gate fits."""
        tempered = len(self.temperature) * len(self.schedule)
        return len(self.fitting(outline)) * sum(tempered if name == Gumbel.name else 1 for name in self.gradient)

    def listed(self) -> tuple[GatingChoice, ...]:
        """One choice for each kind of gate: nothing else changes what runs."""
        estimator = self.gradient[0]
        if estimator != Gumbel.name:
            return tuple(GatingChoice(kind, estimator) for kind in self.gate)
        return tuple(GatingChoice(kind, estimator, self.temperature[0], self.schedule[0]) for kind in self.gate)

    def cover(self, outline: Outline) -> tuple[GatingChoice, ...]:
        """Those of the kinds that fit."""
        fitting = self.fitting(outline)
        return tuple(choice for choice in self.listed() if choice.gate in fitting)
