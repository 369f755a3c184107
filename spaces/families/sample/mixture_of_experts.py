"""Mixture of experts: several blocks of the same shape, of which each input runs one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices
from ...gating import Gating, GatingChoice
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
    """

    experts: int
    gating: GatingChoice
    balance: float

    def check_options(self) -> None:
        """At least two experts, and a gate that tells them apart."""
        require_range("experts", self.experts, 2, 64)
        require_range("balance", self.balance, 0, 10)
        require(self.gating.gate != "halting", "gating.gate", "halting scores tell no experts apart; leave it out")


@final
@dataclass(frozen=True)
class MixtureOfExperts(AbstractGatedFamily):
    """A gate sends each input to one of several blocks: more capacity at the work of one block and a gate.

    Args:
        placement: which blocks have experts; to choose from.
        experts: numbers to choose from.
        gating: kinds of gate and gradient estimators.
        balance: factors of the load-balance loss to choose from.

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

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Every block."""
        return range(outline.blocks)

    @classmethod
    def apply(cls, choice: MixtureOfExpertsChoice, plan: Plan) -> None:
        """Put a choice between experts in the place of each block."""
        cls.require_fit(choice, plan.outline)

        def ways(block: nn.Module) -> list[Branch]:
            experts = (block, *(fresh_copy(block) for _ in range(choice.experts - 1)))
            return [Branch(expert, 1.0, id(block)) for expert in experts]

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
        """Such as `2 experts at 1,2 pooled_linear gumbel`."""
        return f"{choice.experts} experts at {choice.places} {choice.gating.describe()}"


def fresh_copy(block: nn.Module) -> nn.Module:
    """A block of the same build with weights of its own, drawn anew where its layers know how."""
    made = copy.deepcopy(block)
    for module in made.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return made
