"""Channel saliency: of a block's inner channels each input computes the few that it needs most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ...backbone import AbstractSelective, Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily, dashed
from ...gate import Pool
from ...level_step import AbstractLevel, LevelStep
from ...plan import Plan
from ...spec import AbstractSpec, require


@final
@dataclass(frozen=True)
class ChannelSaliencyChoice(AbstractBlockChoice):
    """Which blocks pick channels, and how many at each level of the knob.

    Args:
        shares: of the inner channels, ascending; the last is that at a knob of 0.
    """

    shares: tuple[float, ...]

    def check_options(self) -> None:
        """Shares ascend within (0, 1]."""
        given = list(self.shares)
        require(len(given) >= 1, "shares", "must hold at least one share")
        require(given == sorted(set(given)), "shares", f"must ascend, but got {given}")
        require(given[0] > 0 and given[-1] <= 1, "shares", f"must lie in (0, 1], but got {given}")


@final
class Saliency(nn.Module):
    """How much each inner channel of a block matters to an input; `b x c x h x w` -> `b x inner`, at least 0."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.pool = Pool()
        self.linear = nn.Linear(channels, inner)
        nn.init.ones_(self.linear.bias)  # at first all channels matter alike, and every one learns

    def forward(self, x: Tensor) -> Tensor:
        """Saliencies."""
        scores: Tensor = self.linear(self.pool(x))
        return scores.relu()


@final
class SalientLevel(AbstractLevel):
    """A block with its `k` most salient inner channels.

    Args:
        saliency: shared by the levels of a block.
        block: the block with selected channels, its last normalisation its own.
        winners: `k`.
        inner: all inner channels.
        token: of equal work.
    """

    def __init__(self, saliency: Saliency, block: nn.Module, *, winners: int, inner: int, token: object) -> None:
        super().__init__()
        self.saliency = saliency
        self.block = block
        self.winners = winners
        self.inner = inner
        self.token = (token, winners)

    def forward(self, x: Tensor) -> Tensor:
        """Only the winners are computed, with weights that are gathered for each input."""
        scores = self.saliency(x)
        scales, picked = scores, None
        if self.winners < self.inner:
            scales, picked = scores.topk(self.winners, dim=1, sorted=False)
        made: Tensor = self.block(x, scales, picked)
        return made

    def whole(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """All are computed, the losers times 0."""
        scores = self.saliency(x)
        scores = scores if order is None else scores.index_select(0, order)
        winners = scores.topk(self.winners, dim=1).indices
        kept = torch.zeros_like(scores).scatter(1, winners, 1.0)
        made: Tensor = self.block(x, scores * kept, None)
        return made


@final
@dataclass(frozen=True)
class ChannelSaliency(AbstractBlockFamily):
    """A predictor scores a block's inner channels for each input; the `k` with the largest scores are computed.

    Channels are scaled by their scores, which is how the predictor learns. Weights are gathered for each input, so
    that nothing but the winners is computed. `k` is no choice of the input: the knob `channel_saliency` sets the
    share at run time (0: the largest, -1 the next), the same for all, and one trained network serves all levels.

    Args:
        placement: which of the blocks whose inner channels can be picked; to choose from.
        shares: sets of shares to choose from, ascending; one operating point each.

    Source: Gao, Zhao, Dudziak, Mullins, Xu, "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019; a
        normalisation a level from Yu, Yang, Xu, Yang, Huang, "Slimmable Neural Networks", ICLR 2019.
    """

    name: ClassVar[str] = "channel_saliency"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "channel"
    source: ClassVar[str] = "Gao et al., ICLR 2019"
    choice_type: ClassVar[type[AbstractSpec]] = ChannelSaliencyChoice
    rewrites_blocks: ClassVar[bool] = True
    fits: ClassVar[str] = "can run with picked inner channels"

    placement: tuple[str, ...] = ("all", "late")
    shares: tuple[tuple[float, ...], ...] = ((0.25, 0.5, 1.0),)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks whose inner channels can be picked."""
        return tuple(index for index, able in enumerate(outline.selective) if able)

    def schemes(self) -> tuple[str, ...]:
        """Each input ranks the channels; how many win is set from outside."""
        return ("fixed_top_k", "external_budget")

    @classmethod
    def apply(cls, choice: ChannelSaliencyChoice, plan: Plan) -> None:
        """Put a step with all levels in the place of each block."""
        cls.require_fit(choice, plan.outline)
        for index, number in enumerate(choice.blocks):
            block = plan.block(number)
            assert isinstance(block, AbstractSelective)
            inner = block.inner_channels
            saliency = Saliency(plan.outline.before(number)[0], inner)
            levels = [
                SalientLevel(saliency, block.selected(), winners=winners, inner=inner, token=(cls.name, id(block)))
                for winners in _winners(choice.shares, inner)
            ]
            plan.replace(number, LevelStep(index, levels, knob=cls.name))

    @classmethod
    def describe(cls, choice: ChannelSaliencyChoice) -> str:
        """Such as `winners 0.25-0.5-1 at 0,2`."""
        return f"winners {dashed(choice.shares)} at {choice.places}"


def _winners(shares: Sequence[float], inner: int) -> list[int]:
    return [max(1, round(share * inner)) for share in shares]
