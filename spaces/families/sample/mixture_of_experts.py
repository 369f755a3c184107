"""Mixture of experts: several blocks of the same shape, of which each input runs one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...choice_step import Branch
from ...family import AbstractFamily
from ...gated import EXPLORE, PLACEMENTS, check_blocks, placed, put_choices, require_blocks
from ...gating import Gating, GatingChoice
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require, require_options, require_range


@final
@dataclass(frozen=True)
class MixtureOfExpertsChoice(AbstractSpec):
    """Which blocks have experts, how many, who decides, and how hard balance is asked for.

    Args:
        blocks: numbers of the blocks, ascending.
        experts: of each block.
        gating: who decides.
        balance: factor of the load-balance loss.
    """

    blocks: tuple[int, ...]
    experts: int
    gating: GatingChoice
    balance: float

    def check(self) -> None:
        """Blocks in order, at least two experts."""
        check_blocks(self.blocks)
        require_range("experts", self.experts, 2, 64)
        require_range("balance", self.balance, 0, 10)


@final
@dataclass(frozen=True)
class MixtureOfExperts(AbstractFamily):
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
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("late", "alternate")
    experts: tuple[int, ...] = (2, 4)
    gating: Gating = field(default_factory=lambda: Gating(gate=("pooled_linear", "pooled_mlp")))
    balance: tuple[float, ...] = (0.1,)

    def check(self) -> None:
        """Known placements, sane numbers."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("experts", self.experts)
        for index, number in enumerate(self.experts):
            require_range(f"experts.{index}", number, 2, 64)
        require_options("balance", self.balance)
        for index, factor in enumerate(self.balance):
            require_range(f"balance.{index}", factor, 0, 10)
        require("halting" not in self.gating.gate, "gating.gate", "halting scores tell no experts apart; leave it out")

    def suggest(self, scope: Scope, outline: Outline) -> MixtureOfExpertsChoice | None:
        """Blocks, number of experts, then the gate."""
        options = self._options(outline)
        if not options:
            return None
        return MixtureOfExpertsChoice(
            options[scope.categorical(f"placement_of_{outline.blocks}", tuple(options))],
            scope.categorical("experts", self.experts),
            self.gating.suggest(scope / "gating", outline),
            scope.categorical("balance", self.balance),
        )

    def size(self, outline: Outline) -> int:
        """Placements x experts x gatings x balances."""
        return len(self._options(outline)) * len(self.experts) * self.gating.size(outline) * len(self.balance)

    def cover(self, outline: Outline) -> Iterator[MixtureOfExpertsChoice]:
        """Every number of experts with every gate, for every placement."""
        for gating in self.gating.cover(outline):
            for experts in self.experts:
                for blocks in self._options(outline).values():
                    yield MixtureOfExpertsChoice(blocks, experts, gating, self.balance[0])

    def cuts(self, outline: Outline) -> Iterator[MixtureOfExpertsChoice]:
        """Every placement."""
        for blocks in self._options(outline).values():
            yield MixtureOfExpertsChoice(blocks, self.experts[0], self.gating.cover(outline)[0], self.balance[0])

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """The kinds of gate."""
        return self.gating.gate

    def _options(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        return placed(range(outline.blocks), self.placement) if self.gating.fitting(outline) else {}

    @classmethod
    def apply(cls, choice: MixtureOfExpertsChoice, plan: Plan) -> None:
        """Put a choice between experts in the place of each block."""
        require_blocks(choice.blocks, range(plan.outline.blocks), "exists")

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
        return f"{choice.experts} experts at {','.join(map(str, choice.blocks))} {choice.gating.describe()}"


def fresh_copy(block: nn.Module) -> nn.Module:
    """A block of the same build with weights of its own, drawn anew where its layers know how."""
    made = copy.deepcopy(block)
    for module in made.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return made
