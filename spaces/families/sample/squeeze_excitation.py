"""Squeeze and excitation: channels are rescaled by what the whole input looks like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ...backbone import Outline
from ...family import AbstractFamily
from ...gate import Pool
from ...gated import PLACEMENTS, check_blocks, placed, require_blocks
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require_options, require_range

LEAST = 8  # hidden units: a pair of them dies too easily


@final
@dataclass(frozen=True)
class SqueezeExcitationChoice(AbstractSpec):
    """After which blocks channels are rescaled, and how narrow the squeeze is.

    Args:
        blocks: numbers of the blocks, ascending.
        reduction: channels over hidden units.
    """

    blocks: tuple[int, ...]
    reduction: int

    def check(self) -> None:
        """Blocks in order, a possible reduction."""
        check_blocks(self.blocks)
        require_range("reduction", self.reduction, 1, 64)


@final
class Excitation(nn.Module):
    """Features times a factor a channel; `b x c x h x w`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(LEAST, channels // reduction)
        self.factors = nn.Sequential(
            Pool(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features, rescaled."""
        scaled: Tensor = x * self.factors(x)[:, :, None, None]
        return scaled


@final
@dataclass(frozen=True)
class SqueezeExcitation(AbstractFamily):
    """Features of a block are multiplied by a factor for each channel, computed from their means.

    Nothing is skipped: for a little more work a network represents more. Whether that beats a wider static network is
    for the search to find out.

    Args:
        placement: after which blocks; to choose from.
        reduction: channels over hidden units, to choose from.

    Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    name: ClassVar[str] = "squeeze_excitation"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "channel scale"
    source: ClassVar[str] = "Hu et al., CVPR 2018"
    choice_type: ClassVar[type[AbstractSpec]] = SqueezeExcitationChoice

    placement: tuple[str, ...] = ("all", "late")
    reduction: tuple[int, ...] = (4,)

    def check(self) -> None:
        """Known placements, possible reductions."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("reduction", self.reduction)
        for index, value in enumerate(self.reduction):
            require_range(f"reduction.{index}", value, 1, 64)

    def suggest(self, scope: Scope, outline: Outline) -> SqueezeExcitationChoice | None:
        """Whether at all, then blocks and reduction."""
        options = placed(channelled(outline), self.placement)
        if not options or not scope.boolean("used"):
            return None
        chosen = scope.categorical(f"placement_of_{outline.blocks}", tuple(options))
        return SqueezeExcitationChoice(options[chosen], scope.categorical("reduction", self.reduction))

    def size(self, outline: Outline) -> int:
        """Placements x reductions, and none."""
        return 1 + len(placed(channelled(outline), self.placement)) * len(self.reduction)

    def cover(self, outline: Outline) -> Iterator[SqueezeExcitationChoice]:
        """All choices."""
        for blocks in placed(channelled(outline), self.placement).values():
            for reduction in self.reduction:
                yield SqueezeExcitationChoice(blocks, reduction)

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """Attention over channels."""
        return ("attention",)

    @classmethod
    def apply(cls, choice: SqueezeExcitationChoice, plan: Plan) -> None:
        """Put it behind each block, and behind what decides about that block."""
        require_blocks(choice.blocks, channelled(plan.outline), "has channels and two sides")
        for block in choice.blocks:
            plan.insert_after(block, Excitation(plan.outline.feature_shapes[block][0], choice.reduction))

    @classmethod
    def describe(cls, choice: SqueezeExcitationChoice) -> str:
        """Such as `se/4 at 0,1,2`."""
        return f"se/{choice.reduction} at {','.join(map(str, choice.blocks))}"


def channelled(outline: Outline) -> tuple[int, ...]:
    """Blocks whose features are `c x h x w`."""
    return tuple(index for index, shape in enumerate(outline.feature_shapes) if len(shape) == 3)
