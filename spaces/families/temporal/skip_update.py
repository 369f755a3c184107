"""Skipped state updates: a chunk of the input is read only if it matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import AbstractChunk, Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices
from ...gating import GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...spec import AbstractSpec


@final
@dataclass(frozen=True)
class SkipUpdateChoice(AbstractBlockChoice):
    """Which chunks may be skipped, who decides, and how much may be spent.

    Args:
        gating: who decides.
        target: what training charges for.
    """

    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """Both check themselves."""


@final
@dataclass(frozen=True)
class SkipUpdate(AbstractGatedFamily):
    """A gate that sees the state and a glimpse of the next chunk reads the chunk, or drops it and keeps the state.

    Args:
        placement: which of the chunks may be skipped; to choose from.
        gating: kinds of gate and gradient estimators.
        target: what training charges for.

    The knob `skip_update` moves all gates at run time.

    Source: Campos, Jou, Giro-i-Nieto, Torres, Chang, "Skip RNN: Learning to Skip State Updates in Recurrent Neural
        Networks", ICLR 2018. There the state alone decides, a step at a time; here a gate also sees what it would skip.
    """

    name: ClassVar[str] = "skip_update"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "chunk of steps"
    source: ClassVar[str] = "Campos et al., ICLR 2018"
    choice_type: ClassVar[type[AbstractSpec]] = SkipUpdateChoice
    fits: ClassVar[str] = "reads one of several chunks"

    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All chunks, if there is more than one."""
        return several_chunks(outline)

    @classmethod
    def apply(cls, choice: SkipUpdateChoice, plan: Plan) -> None:
        """Put a choice between dropping and reading in the place of each chunk."""
        cls.require_fit(choice, plan.outline)
        put_choices(plan, choice.blocks, _ways, choice.gating, knob=cls.name, target=choice.target, explore=EXPLORE)

    @classmethod
    def describe(cls, choice: SkipUpdateChoice) -> str:
        """Such as `skips chunks 0,2 pooled_linear gumbel 0.6 latency`."""
        return f"skips chunks {choice.places} {choice.gating.describe()} {choice.target.describe()}"


def several_chunks(outline: Outline) -> tuple[int, ...]:
    """The chunks of a network that has more than one: skipping the only one would leave nothing."""
    return outline.chunks if len(outline.chunks) > 1 else ()


def dropping(block: nn.Module) -> Branch:
    """The branch that leaves a chunk out."""
    assert isinstance(block, AbstractChunk)
    return Branch(block.dropped(), 0.0, ("drop", block.taken))


def _ways(block: nn.Module) -> tuple[Branch, Branch]:
    return dropping(block), Branch(block, 1.0, id(block))
