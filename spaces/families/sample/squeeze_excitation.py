"""Squeeze and excitation: channels are rescaled by what the whole input looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily, channelled
from ...gate import Pool
from ...plan import Plan
from ...spec import AbstractSpec, require_range

LEAST = 8  # hidden units: a pair of them dies too easily


@final
@dataclass(frozen=True)
class SqueezeExcitationChoice(AbstractBlockChoice):
    """After which blocks channels are rescaled, and how narrow the squeeze is.

    Args:
        reduction: channels over hidden units.
    """

    reduction: int

    def check_options(self) -> None:
        """A possible reduction."""
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
class SqueezeExcitation(AbstractBlockFamily):
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
    fits: ClassVar[str] = "has channels and two sides"

    placement: tuple[str, ...] = ("all", "late")
    reduction: tuple[int, ...] = (4,)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks with channels."""
        return channelled(outline)

    def schemes(self) -> tuple[str, ...]:
        """Attention over channels."""
        return ("attention",)

    @classmethod
    def apply(cls, choice: SqueezeExcitationChoice, plan: Plan) -> None:
        """Put it behind each block, and behind what decides about that block."""
        cls.require_fit(choice, plan.outline)
        for block in choice.blocks:
            plan.insert_after(block, Excitation(plan.outline.feature_shapes[block][0], choice.reduction))

    @classmethod
    def describe(cls, choice: SqueezeExcitationChoice) -> str:
        """Such as `se/4 at 0,1,2`."""
        return f"se/{choice.reduction} at {choice.places}"
