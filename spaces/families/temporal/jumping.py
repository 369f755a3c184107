"""Jumping: whoever has read a chunk decides how many of the next to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from ...backbone import AbstractChunk, Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...decider import Decider
from ...gated import EXPLORE, INFORMED, OPENING, put_gates
from ...gating import GatingChoice
from ...plan import Plan
from ...read_step import JumpStep
from ...resource import Resource, ResourceChoice, ResourceTarget
from ...spec import AbstractSpec, require
from .skip_update import several_chunks


@final
@dataclass(frozen=True)
class JumpingChoice(AbstractBlockChoice):
    """Which chunks may be jumped over, how far at once, who decides, and how much may be spent.

    Args:
        reach: chunks that a jump goes past at most.
        gating: who decides.
        target: what training charges for.
    """

    reach: int
    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """A jump goes past something, and something is left to land on."""
        require(self.reach >= 1, "reach", f"must be at least 1, but got {self.reach}")


@final
@dataclass(frozen=True)
class Jumping(AbstractGatedFamily):
    """After each chunk that it reads, a network decides how many of the next ones it jumps over; these cost nothing at
    all, not even a decision.

    Args:
        placement: which of the chunks take part; the others are always read; to choose from.
        reach: longest jumps to choose from, in chunks.
        gating: kinds of gate and gradient estimators.
        target: what training charges for.

    The knob `jumping` shortens all jumps at run time.

    Source: Yu, Lee, Le, "Learning to Skim Text", ACL 2017. There the state alone decides, taught by REINFORCE; here a
        gate also sees the chunk that comes next, and the estimator is a choice.
    """

    name: ClassVar[str] = "jumping"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "row of chunks"
    source: ClassVar[str] = "Yu, Lee, Le, ACL 2017"
    choice_type: ClassVar[type[AbstractSpec]] = JumpingChoice
    fits: ClassVar[str] = "reads one of several chunks"

    placement: tuple[str, ...] = ("all",)
    reach: tuple[int, ...] = (1, 2)
    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All chunks, if there is more than one."""
        return several_chunks(outline)

    def placements(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        """Those with a chunk to jump from and one to jump over."""
        return {name: blocks for name, blocks in super().placements(outline).items() if len(blocks) > 1}

    @classmethod
    def apply(cls, choice: JumpingChoice, plan: Plan) -> None:
        """Put a jump step in the place of each chunk; behind the last there is nothing to jump over."""
        cls.require_fit(choice, plan.outline)
        require(len(choice.blocks) > 1, "blocks", "must name a chunk to jump from and one to jump over")
        # The share of chunks that would be read if all jumps were so long.
        works = tuple(1 / (1 + jump) for jump in range(choice.reach, -1, -1))
        after = [block + 1 for block in choice.blocks[:-1]]  # a gate sees what is there once its chunk is read
        units = put_gates(plan, after, choice.gating, branches=choice.reach + 1, opening=OPENING)
        groups = []
        for index, block in enumerate(choice.blocks):
            chunk = plan.block(block)
            assert isinstance(chunk, AbstractChunk)
            decider = None
            if index < len(units):
                decider = Decider(
                    units[index],
                    works,
                    gradient=choice.gating.estimator(),
                    knob=cls.name,
                    place=(index + 1) / len(choice.blocks),
                    explore=EXPLORE,
                    informed=INFORMED,
                )
            step = JumpStep(index, chunk, choice.reach, decider)
            plan.replace(block, step)
            groups.append((step.reading.name,))
        plan.charge(ResourceTarget(tuple(groups[1:]), choice.target))

    @classmethod
    def describe(cls, choice: JumpingChoice) -> str:
        """Such as `jumps 2 over 0,1,2 pooled_linear gumbel 0.6 latency`."""
        return f"jumps {choice.reach} over {choice.places} {choice.gating.describe()} {choice.target.describe()}"
