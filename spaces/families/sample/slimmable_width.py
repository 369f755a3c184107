"""Slimmable width: each input runs a contiguous slice of a block's inner channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import AbstractNarrowable, Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily, dashed
from ...choice_step import Branch
from ...gated import EXPLORE, put_choices
from ...gating import GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...spec import AbstractSpec, require


@final
@dataclass(frozen=True)
class SlimmableWidthChoice(AbstractBlockChoice):
    """Which blocks have several widths, which widths, who decides, and how much may be spent.

    Args:
        shares: of the inner channels, ascending; the last one is 1, the block as it is.
        gating: who decides.
        target: what training charges for.
    """

    shares: tuple[float, ...]
    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """Shares ascend within (0, 1], end in 1, and are two at least."""
        shares, given = self.shares, list(self.shares)
        require(len(shares) >= 2, "shares", f"must hold two widths at least, but got {given}")
        require(given == sorted(set(shares)), "shares", f"must ascend, but got {given}")
        require(shares[0] > 0 and shares[-1] == 1, "shares", f"must lie in (0, 1] and end in 1, but got {given}")


@final
@dataclass(frozen=True)
class SlimmableWidth(AbstractGatedFamily):
    """A gate before a block picks how many of its inner channels run; slices nest and share their weights.

    Slices are contiguous, so routed mode runs dense convolutions with fewer channels: no masks, no gathering.
    Each width has normalisation layers of its own.

    Args:
        placement: which of the blocks that can be sliced have several widths; to choose from.
        shares: sets of widths to choose from, as shares of the inner channels that end in 1.
        gating: kinds of gate and gradient estimators.
        target: what training charges for.

    The knob `slimmable_width` moves all gates at run time.

    Source: Li, Wang, Wang, Liang, Li, Chang, "Dynamic Slimmable Network", CVPR 2021; normalisation a width from Yu,
        Yang, Xu, Yang, Huang, "Slimmable Neural Networks", ICLR 2019.
    """

    name: ClassVar[str] = "slimmable_width"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "channel slice"
    source: ClassVar[str] = "Li et al., CVPR 2021"
    choice_type: ClassVar[type[AbstractSpec]] = SlimmableWidthChoice
    fits: ClassVar[str] = "can be sliced"

    placement: tuple[str, ...] = ("all", "late")
    shares: tuple[tuple[float, ...], ...] = ((0.5, 1.0), (0.25, 0.5, 1.0))
    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks of which a slice can run alone."""
        return tuple(index for index, able in enumerate(outline.narrowable) if able)

    @classmethod
    def apply(cls, choice: SlimmableWidthChoice, plan: Plan) -> None:
        """Put a choice between widths in the place of each block."""
        cls.require_fit(choice, plan.outline)

        def ways(block: nn.Module) -> list[Branch]:
            assert isinstance(block, AbstractNarrowable)
            narrow = [Branch(block.narrowed(share), share, (id(block), share)) for share in choice.shares[:-1]]
            return [*narrow, Branch(block, 1.0, id(block))]

        put_choices(plan, choice.blocks, ways, choice.gating, knob=cls.name, target=choice.target, explore=EXPLORE)

    @classmethod
    def describe(cls, choice: SlimmableWidthChoice) -> str:
        """Such as `widths 0.5-1 at 0,2 pooled_linear gumbel 0.6 latency`."""
        what = f"widths {dashed(choice.shares)} at {choice.places}"
        return f"{what} {choice.gating.describe()} {choice.target.describe()}"
