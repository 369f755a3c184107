"""Coarse updates: a chunk of the input is read thoroughly, or skimmed by a small reader."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import nn

from ...backbone import AbstractChunk, Outline, work_of
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices
from ...gating import GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...spec import AbstractSpec, require
from .skip_update import dropping, several_chunks


@final
@dataclass(frozen=True)
class CoarseUpdateChoice(AbstractBlockChoice):
    """Which chunks may be skimmed, by how small a reader, who decides, and how much may be spent.

    Args:
        share: of the state that the small reader changes.
        skip: whether a chunk may be dropped as well.
        gating: who decides.
        target: what training charges for.
    """

    share: float
    skip: bool
    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """A share that is smaller than the whole."""
        require(0 < self.share < 1, "share", f"must lie between 0 and 1, but got {self.share}")


@final
@dataclass(frozen=True)
class CoarseUpdate(AbstractGatedFamily):
    """A gate before a chunk picks the full reader, or a small one that changes the first numbers of the state alone.

    The small reader is one for all chunks. For texts and sequences it is a smaller cell; for clips also a smaller CNN
    on frames of half the sides.

    Args:
        placement: which of the chunks may be skimmed; to choose from.
        share: shares of the state that the small reader changes; to choose from.
        skip: whether a chunk may be dropped as well; to choose from.
        gating: kinds of gate and gradient estimators.
        target: what training charges for.

    The knob `coarse_update` moves all gates at run time.

    Source: Seo, Min, Farhadi, Hajishirzi, "Neural Speed Reading via Skim-RNN", ICLR 2018; a coarse and a fine reader
        of frames from Wu, Xiong, Jiang, Davis, "LiteEval", NeurIPS 2019.
    """

    name: ClassVar[str] = "coarse_update"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "reader of a chunk"
    source: ClassVar[str] = "Seo et al., ICLR 2018"
    choice_type: ClassVar[type[AbstractSpec]] = CoarseUpdateChoice
    fits: ClassVar[str] = "reads one of several chunks"

    share: tuple[float, ...] = (0.25, 0.5)
    skip: tuple[bool, ...] = (False, True)
    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All chunks, if there is more than one."""
        return several_chunks(outline)

    @classmethod
    def apply(cls, choice: CoarseUpdateChoice, plan: Plan) -> None:
        """Put a choice between readers in the place of each chunk."""
        cls.require_fit(choice, plan.outline)
        first = plan.block(choice.blocks[0])
        assert isinstance(first, AbstractChunk)
        small = first.small(choice.share)
        row = torch.zeros(1, *plan.outline.before(choice.blocks[0]))
        # Copies: counting must not change the statistics of what is counted.
        skimmed, read = (work_of(copy.deepcopy(each).eval(), row) for each in (first.read_by(small), first))

        def ways(block: nn.Module) -> list[Branch]:
            assert isinstance(block, AbstractChunk)
            skimming = Branch(block.read_by(small), skimmed / read, (id(block), choice.share))
            return [*([dropping(block)] if choice.skip else []), skimming, Branch(block, 1.0, id(block))]

        put_choices(plan, choice.blocks, ways, choice.gating, knob=cls.name, target=choice.target, explore=EXPLORE)

    @classmethod
    def describe(cls, choice: CoarseUpdateChoice) -> str:
        """Such as `skims chunks 0,2 by 0.25 pooled_linear gumbel 0.6 latency`."""
        what = f"skims{' or skips' if choice.skip else ''} chunks {choice.places} by {choice.share:g}"
        return f"{what} {choice.gating.describe()} {choice.target.describe()}"
