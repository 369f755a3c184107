"""Dynamic convolution: each input mixes its own kernel from a few."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...backbone import Outline
from ...family import AbstractFamily
from ...gated import PLACEMENTS, check_blocks, placed, require_blocks
from ...plan import Plan
from ...scope import Scope
from ...spec import AbstractSpec, require, require_options, require_range
from .squeeze_excitation import channelled

TEMPERATURE = 4.0  # flat attention at first, so that all kernels learn
HIDDEN = 8


@final
@dataclass(frozen=True)
class DynamicConvolutionChoice(AbstractSpec):
    """Which blocks mix their kernels, and from how many.

    Args:
        blocks: numbers of the blocks, ascending.
        kernels: of each convolution.
    """

    blocks: tuple[int, ...]
    kernels: int

    def check(self) -> None:
        """Blocks in order, at least two kernels."""
        check_blocks(self.blocks)
        require_range("kernels", self.kernels, 2, 16)


@final
class MixedConvolution(nn.Module):
    """A convolution whose kernel is a mean of `k`, weighted for each input; `b x c x h x w`.

    Args:
        like: the convolution to replace; its kernel becomes the first of the `k`.
        kernels: `k`.
    """

    def __init__(self, like: nn.Conv2d, kernels: int) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = like.stride, like.padding, like.groups
        others = torch.empty(kernels - 1, *like.weight.shape)
        for kernel in others:
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        self.weight = nn.Parameter(torch.cat([like.weight.detach()[None], others]))
        self.attention = nn.Sequential(nn.Linear(like.in_channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, kernels))

    def forward(self, x: Tensor) -> Tensor:
        """Each input convolved with its own kernel: one grouped convolution over the whole batch."""
        b, c, h, w = x.shape
        share = (self.attention(x.mean((2, 3))) / TEMPERATURE).softmax(1)  # b x k
        kernel = (share @ self.weight.flatten(1)).view(-1, *self.weight.shape[2:])  # (b * out) x in/groups x ...
        made = functional.conv2d(
            x.reshape(1, b * c, h, w), kernel, None, self.stride, self.padding, groups=b * self.groups
        )
        return made.view(b, -1, *made.shape[2:])


@final
@dataclass(frozen=True)
class DynamicConvolution(AbstractFamily):
    """Dense convolutions of a block get several kernels; attention mixes one from them for each input.

    Nothing is skipped: the network represents more for little more work, since kernels are mixed before they are
    applied.

    Args:
        placement: which blocks; to choose from.
        kernels: numbers of kernels to choose from.

    Source: Chen, Dai, Liu, Chen, Yuan, Liu, "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020.
    """

    name: ClassVar[str] = "dynamic_convolution"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "kernel"
    source: ClassVar[str] = "Chen et al., CVPR 2020"
    choice_type: ClassVar[type[AbstractSpec]] = DynamicConvolutionChoice
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("late",)
    kernels: tuple[int, ...] = (2, 4)

    def check(self) -> None:
        """Known placements, possible numbers."""
        require_options("placement", self.placement, PLACEMENTS)
        require_options("kernels", self.kernels)
        for index, value in enumerate(self.kernels):
            require_range(f"kernels.{index}", value, 2, 16)

    def suggest(self, scope: Scope, outline: Outline) -> DynamicConvolutionChoice | None:
        """Blocks, then kernels."""
        options = placed(channelled(outline), self.placement)
        if not options:
            return None
        chosen = scope.categorical(f"placement_of_{outline.blocks}", tuple(options))
        return DynamicConvolutionChoice(options[chosen], scope.categorical("kernels", self.kernels))

    def size(self, outline: Outline) -> int:
        """Placements x kernels."""
        return len(placed(channelled(outline), self.placement)) * len(self.kernels)

    def cover(self, outline: Outline) -> Iterator[DynamicConvolutionChoice]:
        """All choices."""
        for blocks in placed(channelled(outline), self.placement).values():
            for kernels in self.kernels:
                yield DynamicConvolutionChoice(blocks, kernels)

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def schemes(self) -> tuple[str, ...]:
        """Attention over kernels."""
        return ("attention",)

    @classmethod
    def apply(cls, choice: DynamicConvolutionChoice, plan: Plan) -> None:
        """Replace the convolutions of each block that are not depthwise; a block without one is an error."""
        require_blocks(choice.blocks, channelled(plan.outline), "has channels and two sides")
        for index, block in enumerate(choice.blocks):
            made = plan.copied(block)
            found = [(name, each) for name, each in made.named_modules() if _dense(each)]
            require(bool(found), f"blocks.{index}", f"block {block} has no dense convolution without a bias to mix")
            for name, each in found:
                assert isinstance(each, nn.Conv2d)
                made.set_submodule(name, MixedConvolution(each, choice.kernels))
            plan.replace(block, made)

    @classmethod
    def describe(cls, choice: DynamicConvolutionChoice) -> str:
        """Such as `2 kernels at 1,2`."""
        return f"{choice.kernels} kernels at {','.join(map(str, choice.blocks))}"


def _dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.bias is None and module.dilation == (1, 1)
