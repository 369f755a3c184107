"""Mixture of experts: several blocks of the same shape, of which each input runs one or two."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import nn

from ...adopted.tape import Tape
from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices, put_gates
from ...gating import Gating, GatingChoice
from ...mixture_step import MixtureStep
from ...plan import Plan
from ...spec import AbstractSpec, require, require_range


@final
@dataclass(frozen=True)
class MixtureOfExpertsChoice(AbstractBlockChoice):
    """Which blocks have experts, how many, who decides, and how hard balance is asked for.

    Args:
        experts: of each block.
        gating: who decides.
        balance: factor of the load-balance loss.
        top: how many experts an input runs; fewer than there are.
    """

    experts: int
    gating: GatingChoice
    balance: float
    top: int = 1

    def check_options(self) -> None:
        """At least two experts, and a gate that tells them apart."""
        require_range("experts", self.experts, 2, 64)
        require_range("balance", self.balance, 0, 10)
        require_range("top", self.top, 1, 64)
        fewer = f"must be less than the number of experts ({self.experts}), but got {self.top}"
        require(self.top < self.experts, "top", fewer)
        require(self.gating.gate != "halting", "gating.gate", "halting scores tell no experts apart; leave it out")


@final
@dataclass(frozen=True)
class MixtureOfExperts(AbstractGatedFamily):
    """A gate sends each input to one of several blocks: more capacity at the work of one block and a gate.

    With a `top` of 2 an input runs two of them, and their sum goes on, weighted by the softmax of their logits.

    Args:
        placement: which blocks have experts; to choose from.
        experts: numbers to choose from.
        gating: kinds of gate and gradient estimators.
        balance: factors of the load-balance loss to choose from.
        top: how many experts an input runs, to choose from; only fewer than there are.

    Source: Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", ICLR
        2017; one expert an input and the balance loss from Fedus, Zoph, Shazeer, "Switch Transformers", JMLR 2022.
    """

    name: ClassVar[str] = "mixture_of_experts"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "expert"
    source: ClassVar[str] = "Shazeer et al., ICLR 2017"
    choice_type: ClassVar[type[AbstractSpec]] = MixtureOfExpertsChoice
    fits: ClassVar[str] = "exists"
    learning: ClassVar[tuple[str, ...]] = ("balance",)

    placement: tuple[str, ...] = ("late", "alternate")
    experts: tuple[int, ...] = (2, 4)
    gating: Gating = field(default_factory=lambda: Gating(gate=("pooled_linear", "pooled_mlp")))
    balance: tuple[float, ...] = (0.1,)
    top: tuple[int, ...] = (1, 2)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Every block."""
        return range(outline.blocks)

    @classmethod
    def possible(cls, answers: Mapping[str, Any]) -> bool:
        """Who runs all experts needs no gate."""
        return bool(answers.get("top", 0) < answers.get("experts", math.inf))

    @classmethod
    def apply(cls, choice: MixtureOfExpertsChoice, plan: Plan) -> None:
        """Put a choice between experts in the place of each block."""
        cls.require_fit(choice, plan.outline)

        if choice.top > 1:
            _put_mixtures(plan, choice)
            return

        def ways(block: nn.Module) -> list[Branch]:
            return [Branch(expert, 1.0, id(block)) for expert in _experts(block, choice.experts)]

        put_choices(
            plan,
            choice.blocks,
            ways,
            choice.gating,
            knob=None,
            opening=0.0,
            balance=choice.balance,
            explore=EXPLORE,
        )

    @classmethod
    def describe(cls, choice: MixtureOfExpertsChoice) -> str:
        """Such as `2 experts at 1,2 pooled_linear gumbel`, or `2 of 4 experts at ...`."""
        some = f"{choice.top} of {choice.experts}" if choice.top > 1 else f"{choice.experts}"
        return f"{some} experts at {choice.places} {choice.gating.describe()}"


def _put_mixtures(plan: Plan, choice: MixtureOfExpertsChoice) -> None:
    units = put_gates(plan, choice.blocks, choice.gating, branches=choice.experts, opening=0.0)
    for index, (number, unit) in enumerate(zip(choice.blocks, units, strict=True)):
        block = plan.block(number)
        step = MixtureStep(
            index,
            unit,
            _experts(block, choice.experts),
            top=choice.top,
            gradient=choice.gating.estimator(),
            place=(index + 1) / len(choice.blocks),
            balance=choice.balance,
            explore=EXPLORE,
            token=id(block),
        )
        plan.replace(number, step)


def _experts(block: nn.Module, number: int) -> list[nn.Module]:
    return [block, *(fresh_copy(block) for _ in range(number - 1))]


def fresh_copy(block: nn.Module) -> nn.Module:
    """A block of the same build with weights of its own, drawn anew where its layers know how.

    An adopted one begins with the weights that it has, which then learn as fast as new ones.
    """
    made = copy.deepcopy(block)
    if isinstance(made, Tape):
        made.thaw()
        return made
    for module in made.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return made
