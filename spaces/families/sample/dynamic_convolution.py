"""Dynamic convolution: each input mixes its own kernel from a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily, channelled
from ...plan import Plan
from ...spec import AbstractSpec, require, require_range

TEMPERATURE = 4.0  # flat attention at first, so that all kernels learn
HIDDEN = 8


@final
@dataclass(frozen=True)
class DynamicConvolutionChoice(AbstractBlockChoice):
    """Which blocks mix their kernels, and from how many.

    Args:
        kernels: of each convolution.
    """

    kernels: int

    def check_options(self) -> None:
        """At least two kernels."""
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
class DynamicConvolution(AbstractBlockFamily):
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
    fits: ClassVar[str] = "has channels and two sides"

    placement: tuple[str, ...] = ("late",)
    kernels: tuple[int, ...] = (2, 4)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks with channels."""
        return channelled(outline)

    def schemes(self) -> tuple[str, ...]:
        """Attention over kernels."""
        return ("attention",)

    @classmethod
    def apply(cls, choice: DynamicConvolutionChoice, plan: Plan) -> None:
        """Replace the convolutions of each block that are not depthwise; a block without one is an error."""
        cls.require_fit(choice, plan.outline)
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
        return f"{choice.kernels} kernels at {choice.places}"


def _dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.bias is None and module.dilation == (1, 1)
