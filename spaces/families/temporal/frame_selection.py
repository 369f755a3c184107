"""Frame selection: a cheap sampler scores all chunks, and the best ones are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily, dashed
from ...packed import ReadChunk, Sampler
from ...plan import Plan
from ...sample_step import KeptStep, SampleStep
from ...spec import AbstractSpec, require
from .skip_update import several_chunks


@final
@dataclass(frozen=True)
class FrameSelectionChoice(AbstractBlockChoice):
    """Which chunks compete, how many of them may be kept, and how large the sampler is.

    Args:
        keep: shares of the chunks, ascending; the knob picks one of them.
        hidden: size of the sampler's hidden layer.
    """

    keep: tuple[float, ...]
    hidden: int

    def check_options(self) -> None:
        """Shares ascend within (0, 1]; a sampler that exists."""
        given = list(self.keep)
        require(len(given) > 0 and given == sorted(set(given)), "keep", f"must ascend, but got {given}")
        require(given[0] > 0 and given[-1] <= 1, "keep", f"must lie in (0, 1], but got {given}")
        require(self.hidden >= 1, "hidden", f"must be at least 1, but got {self.hidden}")

    def counts(self) -> tuple[int, ...]:
        """How many chunks these shares are, each number once."""
        return tuple(sorted({math.ceil(share * len(self.blocks)) for share in self.keep}))


@final
@dataclass(frozen=True)
class FrameSelection(AbstractBlockFamily):
    """Before anything is read, a sampler sees a glimpse of every chunk and scores it; the `k` best chunks are read in
    their order, the others are dropped.

    How many is an external budget: the knob `frame_selection` stands at one of a few levels, the same for all inputs.
    One network is trained for all of them.

    Args:
        placement: which of the chunks compete; the others are always read; to choose from.
        keep: sets of shares that the knob may pick from; to choose from.
        hidden: sizes of the sampler's hidden layer to choose from.

    Source: Korbar, Tran, Torresani, "SCSampler: Sampling Salient Clips from Video for Efficient Action Recognition",
        ICCV 2019. There the sampler is trained to rank by saliency; here it is trained with the network, through a
        sigmoid about the border of the kept ones.
    """

    name: ClassVar[str] = "frame_selection"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "set of chunks"
    source: ClassVar[str] = "Korbar, Tran, Torresani, ICCV 2019"
    choice_type: ClassVar[type[AbstractSpec]] = FrameSelectionChoice
    fits: ClassVar[str] = "reads one of several chunks"
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("all", "late")
    keep: tuple[tuple[float, ...], ...] = ((0.25, 0.5, 0.75, 1.0),)
    hidden: tuple[int, ...] = (16,)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All chunks, if there is more than one."""
        return several_chunks(outline)

    def placements(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        """Those whose chunks are neighbours: the sampler looks at them in one go."""
        made = super().placements(outline)
        return {name: blocks for name, blocks in made.items() if blocks[-1] - blocks[0] + 1 == len(blocks)}

    def schemes(self) -> tuple[str, ...]:
        """The best ones, as many as the budget says."""
        return ("fixed_top_k", "external_budget")

    @classmethod
    def apply(cls, choice: FrameSelectionChoice, plan: Plan) -> None:
        """Put the sampler first, and a step that obeys it in the place of each chunk."""
        cls.require_fit(choice, plan.outline)
        blocks = [plan.block(index) for index in range(plan.outline.blocks)]
        chunks = [block for block in blocks if isinstance(block, ReadChunk)]
        chosen = [chunks[block] for block in choice.blocks]
        start = sum(each.taken for each in chunks[: choice.blocks[0]])
        contiguous = choice.blocks[-1] - choice.blocks[0] + 1 == len(choice.blocks)
        require(contiguous, "blocks", f"must be neighbours, but got {list(choice.blocks)}; use all or late")
        plan.insert_first(SampleStep(Sampler(chosen, start, choice.hidden), choice.counts(), knob=cls.name))
        for index, (block, chunk) in enumerate(zip(choice.blocks, chosen, strict=True)):
            plan.replace(block, KeptStep(index, chunk))

    @classmethod
    def describe(cls, choice: FrameSelectionChoice) -> str:
        """Such as `keeps 0.25-0.5-1 of 0,1,2,3 h16`."""
        return f"keeps {dashed(choice.keep)} of {choice.places} h{choice.hidden}"
