"""Slimmable width: each input runs a contiguous slice of a block's inner channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import AbstractNarrowable, Outline
from ...choice_step import Branch
from ...family import AbstractFamily
from ...gated import EXPLORE, PLACEMENTS, check_blocks, placed, put_choices, require_blocks
from ...gating import Gating, GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...scope import Scope
from ...spec import AbstractSpec, require, require_options


@final
@dataclass(frozen=True)
class SlimmableWidthChoice(AbstractSpec):
    """Which blocks have several widths, which widths, who decides, and how much may be spent.

    Args:
        blocks: numbers of the blocks, ascending.
        shares: of the inner channels, ascending; the last one is 1, the block as it is.
        gating: who decides.
        target: what training charges for.
    """

    blocks: tuple[int, ...]
    shares: tuple[float, ...]
    gating: GatingChoice
    target: ResourceChoice

    def check(self) -> None:
        """Blocks and shares in order."""
        check_blocks(self.blocks)
        check_shares(self.shares, "shares")


@final
@dataclass(frozen=True)
class SlimmableWidth(AbstractFamily):
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
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("all", "late")
    shares: tuple[tuple[float, ...], ...] = ((0.5, 1.0), (0.25, 0.5, 1.0))
    gating: Gating = field(default_factory=Gating)
    target: Resource = field(default_factory=Resource)

    def check(self) -> None:
        """Known placements, possible widths."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("shares", self.shares)
        for index, shares in enumerate(self.shares):
            check_shares(shares, f"shares.{index}")

    def suggest(self, scope: Scope, outline: Outline) -> SlimmableWidthChoice | None:
        """Blocks, widths, then the gate, then the target."""
        options = self._options(outline)
        if not options:
            return None
        chosen = scope.categorical(f"placement_of_{len(sliceable(outline))}", tuple(options))
        widths = {describe_shares(shares): shares for shares in self.shares}
        shares = widths[scope.categorical("shares", tuple(widths))]
        gating, target = self.gating.suggest(scope / "gating", outline), self.target.suggest(scope / "target")
        return SlimmableWidthChoice(options[chosen], shares, gating, target)

    def size(self, outline: Outline) -> int:
        """Placements x sets of widths x gatings x targets."""
        return len(self._options(outline)) * len(self.shares) * self.gating.size(outline) * self.target.size()

    def cover(self, outline: Outline) -> Iterator[SlimmableWidthChoice]:
        """Every set of widths with every gate, for every placement."""
        for gating in self.gating.cover(outline):
            for shares in self.shares:
                for blocks in self._options(outline).values():
                    yield SlimmableWidthChoice(blocks, shares, gating, self.target.first())

    def cuts(self, outline: Outline) -> Iterator[SlimmableWidthChoice]:
        """Every placement."""
        for blocks in self._options(outline).values():
            yield SlimmableWidthChoice(blocks, self.shares[0], self.gating.cover(outline)[0], self.target.first())

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """The kinds of gate."""
        return self.gating.gate

    def _options(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        return placed(sliceable(outline), self.placement) if self.gating.fitting(outline) else {}

    @classmethod
    def apply(cls, choice: SlimmableWidthChoice, plan: Plan) -> None:
        """Put a choice between widths in the place of each block."""
        require_blocks(choice.blocks, sliceable(plan.outline), "can be sliced")

        def ways(block: nn.Module) -> list[Branch]:
            assert isinstance(block, AbstractNarrowable)
            narrow = [Branch(block.narrowed(share), share, (id(block), share)) for share in choice.shares[:-1]]
            return [*narrow, Branch(block, 1.0, id(block))]

        put_choices(plan, choice.blocks, ways, choice.gating, knob=cls.name, target=choice.target, explore=EXPLORE)

    @classmethod
    def describe(cls, choice: SlimmableWidthChoice) -> str:
        """Such as `widths 0.5-1 at 0,2 pooled_linear gumbel 0.6 latency`."""
        places = ",".join(map(str, choice.blocks))
        return (
            f"widths {describe_shares(choice.shares)} at {places} {choice.gating.describe()} {choice.target.describe()}"
        )


def sliceable(outline: Outline) -> tuple[int, ...]:
    """Blocks of which a slice can run alone."""
    return tuple(index for index, able in enumerate(outline.narrowable) if able)


def check_shares(shares: tuple[float, ...], path: str) -> None:
    """Raise unless shares ascend within (0, 1], end in 1, and are two at least."""
    require(len(shares) >= 2, path, f"must hold two widths at least, but got {list(shares)}")
    require(list(shares) == sorted(set(shares)), path, f"must ascend, but got {list(shares)}")
    require(shares[0] > 0 and shares[-1] == 1, path, f"must lie in (0, 1] and end in 1, but got {list(shares)}")


def describe_shares(shares: tuple[float, ...]) -> str:
    """Such as `0.25-0.5-1`."""
    return "-".join(f"{share:g}" for share in shares)
