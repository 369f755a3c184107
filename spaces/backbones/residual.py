"""Residual CNN for small images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from ..backbone import AbstractBackbone, AbstractNarrowable, AbstractSelective, AbstractTileable, Backbone, Signature
from ..errors import ShapeError
from ..own_kernels import convolve_each, normalise_picked
from ..scope import Scope
from ..spec import AbstractSpec, require, require_options


@final
class BasicBlock(AbstractNarrowable, AbstractSelective, AbstractTileable):
    """Two 3 x 3 convolutions beside a shortcut; `b x c x h x w` -> `b x c' x h/s x w/s`."""

    halo = 2  # one place for each of its convolutions

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features after the block."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))

    def narrowed(self, share: float) -> nn.Module:
        """The block with the first `share` of the channels between its convolutions."""
        return _NarrowBasicBlock(self, max(1, round(share * self.conv1.out_channels)))

    @property
    def inner_channels(self) -> int:
        """Channels between the convolutions."""
        return self.conv1.out_channels

    def selected(self) -> nn.Module:
        """The block with channels between its convolutions picked for each input."""
        return _SelectedBasicBlock(self)

    def on_tiles(self) -> nn.Module:
        """The block on tiles with a halo of 2."""
        return _TiledBasicBlock(self)


@final
class _TiledBasicBlock(nn.Module):
    """A block of stride 1 whose convolutions eat up the halo."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """`n x c x (s + 4) x (s + 4)` -> `n x c x s x s`."""
        block = self.block
        inner = functional.relu(block.norm1(functional.conv2d(x, block.conv1.weight)))
        made = block.norm2(functional.conv2d(inner, block.conv2.weight))
        return functional.relu(made + x[:, :, 2:-2, 2:-2])


@final
class _NarrowBasicBlock(nn.Module):
    """The first channels of a block; the statistics of a slice are its own."""

    def __init__(self, block: BasicBlock, inner: int) -> None:
        super().__init__()
        self.block = block
        self.inner = inner
        self.norm1 = nn.BatchNorm2d(inner)
        self.norm2 = nn.BatchNorm2d(block.conv2.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features after the block."""
        block, k = self.block, self.inner
        inner = functional.conv2d(x, block.conv1.weight[:k], None, block.conv1.stride, 1)
        inner = functional.relu(self.norm1(inner))
        made = self.norm2(functional.conv2d(inner, block.conv2.weight[:, :k], None, 1, 1))
        return functional.relu(made + block.shortcut(x))


@final
class _SelectedBasicBlock(nn.Module):
    """Picked channels of a block; the statistics behind them are its own."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.shortcut = block.conv1, block.norm1, block.conv2, block.shortcut
        self.norm2 = nn.BatchNorm2d(block.conv2.out_channels)

    def forward(self, x: Tensor, scales: Tensor, picked: Tensor | None) -> Tensor:
        """Features after the block."""
        if picked is None:
            inner = functional.relu(self.norm1(self.conv1(x))) * scales[:, :, None, None]
            made = self.conv2(inner)
        else:
            inner = convolve_each(x, self.conv1.weight[picked], stride=self.conv1.stride, padding=1)
            inner = functional.relu(normalise_picked(self.norm1, inner, picked)) * scales[:, :, None, None]
            made = convolve_each(inner, self.conv2.weight[:, picked].transpose(0, 1), stride=(1, 1), padding=1)
        return functional.relu(self.norm2(made) + self.shortcut(x))


@final
@dataclass(frozen=True)
class ResidualChoice(AbstractSpec):
    """One residual CNN: channels of the first stage, blocks in each stage."""

    width: int
    depths: tuple[int, ...]

    def check(self) -> None:
        """Positive sizes."""
        require(self.width >= 1, "width", f"must be at least 1, but got {self.width}")
        require(len(self.depths) >= 1, "depths", "must have at least one stage")
        require(min(self.depths) >= 1, "depths", f"each stage needs a block, but got {list(self.depths)}")


@final
@dataclass(frozen=True)
class Residual(AbstractBackbone):
    """Residual network of basic blocks; each stage after the first halves the sides and doubles the channels.

    Args:
        width: channels of the first stage to choose from.
        depth: blocks of a stage to choose from, for each stage on its own.
        stages: number of stages.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    name: ClassVar[str] = "residual"
    source: ClassVar[str] = "He et al., CVPR 2016"
    choice_type: ClassVar[type[AbstractSpec]] = ResidualChoice

    width: tuple[int, ...] = (8, 16)
    depth: tuple[int, ...] = (1, 2)
    stages: int = 3

    def check(self) -> None:
        """Options present, distinct, positive."""
        require_options("width", self.width)
        require_options("depth", self.depth)
        require(min(self.width) >= 1, "width", f"must be at least 1, but got {list(self.width)}")
        require(min(self.depth) >= 1, "depth", f"must be at least 1, but got {list(self.depth)}")
        require(1 <= self.stages <= 6, "stages", f"must be between 1 and 6, but got {self.stages}")

    def suggest(self, scope: Scope) -> ResidualChoice:
        """Width and one depth a stage."""
        width = scope.categorical("width", self.width)
        return ResidualChoice(
            width, tuple((scope / "depth").categorical(str(s), self.depth) for s in range(self.stages))
        )

    def extremes(self) -> tuple[ResidualChoice, ResidualChoice]:
        """Narrowest and shallowest; widest and deepest."""
        small = ResidualChoice(min(self.width), (min(self.depth),) * self.stages)
        return small, ResidualChoice(max(self.width), (max(self.depth),) * self.stages)

    def size(self) -> int:
        """Widths times depths to the number of stages."""
        return len(self.width) * math.prod([len(self.depth)] * self.stages)

    @classmethod
    def build(cls, choice: ResidualChoice, signature: Signature) -> Backbone:
        """A fresh network for `channels x height x width` images."""
        channels = image_channels(signature, halvings=len(choice.depths) - 1)
        stem = nn.Sequential(
            nn.Conv2d(channels, choice.width, 3, 1, 1, bias=False), nn.BatchNorm2d(choice.width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        width_in = choice.width
        for stage, depth in enumerate(choice.depths):
            width = choice.width * 2**stage
            for index in range(depth):
                blocks.append(BasicBlock(width_in, width, 2 if stage > 0 and index == 0 else 1))
                width_in = width
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width_in, signature.classes))
        least = 2 ** (len(choice.depths) - 1)
        return Backbone(stem=stem, blocks=blocks, stages=choice.depths, head=head, least_side=least)

    @classmethod
    def describe(cls, choice: ResidualChoice) -> str:
        """Such as `residual w16 d2-2-2`."""
        return f"{cls.name} w{choice.width} d{'-'.join(map(str, choice.depths))}"


def image_channels(signature: Signature, *, halvings: int) -> int:
    """Channels of image inputs large enough to be halved so often.

    Raises:
        ShapeError: for inputs that are no images, or too small ones.
    """
    if signature.kind != "image" or len(signature.input_shape) != 3:
        raise ShapeError(
            f"an image backbone needs inputs of channels x height x width, but got {signature.input_shape}"
        )
    channels, height, width = signature.input_shape
    if min(height, width) < 2**halvings:
        raise ShapeError(
            f"images of {height} x {width} cannot be halved {halvings} times; use fewer stages or larger images"
        )
    return channels
