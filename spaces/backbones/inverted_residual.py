"""Inverted-residual CNN for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional

from ..backbone import AbstractBackbone, AbstractNarrowable, AbstractSelective, AbstractTileable, Backbone, Signature
from ..own_kernels import convolve_each, normalise_picked
from ..scope import Scope
from ..spec import AbstractSpec, require, require_options
from .residual import image_channels


@final
class InvertedResidualBlock(AbstractNarrowable, AbstractSelective, AbstractTileable):
    """Expand, filter each channel, project back; a shortcut where shapes allow; `b x c x h x w`."""

    halo = 1  # only the filter looks around

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.inner = inner = channels_in * expansion
        self.channels, self.stride = channels_out, stride
        self.expand = nn.Sequential(nn.Conv2d(channels_in, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        self.filter = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Features after the block."""
        inner: Tensor = self.project(self.filter(self.expand(x)))
        return x + inner if self.residual else inner

    def narrowed(self, share: float) -> nn.Module:
        """The block with the first `share` of its expanded channels."""
        return _NarrowInvertedResidual(self, max(1, round(share * self.inner)))

    @property
    def inner_channels(self) -> int:
        """Expanded channels."""
        return self.inner

    def selected(self) -> nn.Module:
        """The block with expanded channels picked for each input."""
        return _SelectedInvertedResidual(self)

    def on_tiles(self) -> nn.Module:
        """The block on tiles with a halo of 1."""
        return _TiledInvertedResidual(self)


@final
class _TiledInvertedResidual(nn.Module):
    """A block with a shortcut whose filter eats up the halo."""

    def __init__(self, block: InvertedResidualBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """`n x c x (s + 2) x (s + 2)` -> `n x c x s x s`."""
        block = self.block
        spread = functional.conv2d(block.expand(x), _first_weight(block.filter), groups=block.inner)
        made: Tensor = block.project(functional.relu6(block.filter[1](spread)))
        return x[:, :, 1:-1, 1:-1] + made


@final
class _NarrowInvertedResidual(nn.Module):
    """The first channels of a block; the statistics of a slice are its own."""

    def __init__(self, block: InvertedResidualBlock, inner: int) -> None:
        super().__init__()
        self.block = block
        self.inner = inner
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in (inner, inner, block.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features after the block."""
        block, k = self.block, self.inner
        expand, spread, project = (_first_weight(part) for part in (block.expand, block.filter, block.project))
        made = functional.relu6(self.norms[0](functional.conv2d(x, expand[:k])))
        made = functional.conv2d(made, spread[:k], None, block.stride, 1, groups=k)
        made = functional.relu6(self.norms[1](made))
        out: Tensor = self.norms[2](functional.conv2d(made, project[:, :k]))
        return x + out if block.residual else out


@final
class _SelectedInvertedResidual(nn.Module):
    """Picked channels of a block; the statistics behind them are its own."""

    def __init__(self, block: InvertedResidualBlock) -> None:
        super().__init__()
        self.expand, self.filter, self.mix = block.expand, block.filter, _convolution(block.project)
        self.norm = nn.BatchNorm2d(block.channels)
        self.stride, self.residual = block.stride, block.residual

    def forward(self, x: Tensor, scales: Tensor, picked: Tensor | None) -> Tensor:
        """Features after the block."""
        if picked is None:
            inner = self.filter(self.expand(x)) * scales[:, :, None, None]
            made = self.norm(self.mix(inner))
        else:
            made = convolve_each(x, _first_weight(self.expand)[picked], stride=(1, 1), padding=0)
            made = functional.relu6(normalise_picked(_norm(self.expand), made, picked))
            spread, stride = _first_weight(self.filter)[picked], (self.stride, self.stride)
            made = convolve_each(made, spread, stride=stride, padding=1, groups=picked.shape[1])
            made = functional.relu6(normalise_picked(_norm(self.filter), made, picked)) * scales[:, :, None, None]
            mix = self.mix.weight[:, picked].transpose(0, 1)
            made = self.norm(convolve_each(made, mix, stride=(1, 1), padding=0))
        out: Tensor = x + made if self.residual else made
        return out


def _first_weight(part: nn.Sequential) -> Tensor:
    return _convolution(part).weight


def _convolution(part: nn.Sequential) -> nn.Conv2d:
    layer = part[0]
    assert isinstance(layer, nn.Conv2d)
    return layer


def _norm(part: nn.Sequential) -> nn.BatchNorm2d:
    layer = part[1]
    assert isinstance(layer, nn.BatchNorm2d)
    return layer


@final
@dataclass(frozen=True)
class InvertedResidualChoice(AbstractSpec):
    """One inverted-residual CNN."""

    width: int
    expansion: int
    depths: tuple[int, ...]

    def check(self) -> None:
        """Positive sizes."""
        require(self.width >= 1, "width", f"must be at least 1, but got {self.width}")
        require(1 <= self.expansion <= 8, "expansion", f"must be between 1 and 8, but got {self.expansion}")
        require(len(self.depths) >= 1, "depths", "must have at least one stage")
        require(min(self.depths) >= 1, "depths", f"each stage needs a block, but got {list(self.depths)}")


@final
@dataclass(frozen=True)
class InvertedResidual(AbstractBackbone):
    """Mobile network of inverted residual blocks with linear bottlenecks.

    Args:
        width: channels of the first stage to choose from.
        expansion: inner channels as a multiple of a block's inputs, to choose from.
        depth: blocks of a stage to choose from, for each stage on its own.
        stages: number of stages; each after the first halves the sides and doubles the channels.

    Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2", CVPR 2018.
    """

    name: ClassVar[str] = "inverted_residual"
    source: ClassVar[str] = "Sandler et al., CVPR 2018"
    choice_type: ClassVar[type[AbstractSpec]] = InvertedResidualChoice

    width: tuple[int, ...] = (8, 16)
    expansion: tuple[int, ...] = (2, 4)
    depth: tuple[int, ...] = (1, 2)
    stages: int = 3

    def check(self) -> None:
        """Options present, distinct, positive."""
        require_options("width", self.width)
        require_options("expansion", self.expansion)
        require_options("depth", self.depth)
        require(min(self.width) >= 1, "width", f"must be at least 1, but got {list(self.width)}")
        require(min(self.expansion) >= 1, "expansion", f"must be at least 1, but got {list(self.expansion)}")
        require(max(self.expansion) <= 8, "expansion", f"must be at most 8, but got {list(self.expansion)}")
        require(min(self.depth) >= 1, "depth", f"must be at least 1, but got {list(self.depth)}")
        require(1 <= self.stages <= 6, "stages", f"must be between 1 and 6, but got {self.stages}")

    def suggest(self, scope: Scope) -> InvertedResidualChoice:
        """Width, expansion and one depth a stage."""
        return InvertedResidualChoice(
            scope.categorical("width", self.width),
            scope.categorical("expansion", self.expansion),
            tuple((scope / "depth").categorical(str(s), self.depth) for s in range(self.stages)),
        )

    def extremes(self) -> tuple[InvertedResidualChoice, InvertedResidualChoice]:
        """The smallest and the largest of everything."""
        small = InvertedResidualChoice(min(self.width), min(self.expansion), (min(self.depth),) * self.stages)
        return small, InvertedResidualChoice(max(self.width), max(self.expansion), (max(self.depth),) * self.stages)

    def size(self) -> int:
        """The product of the options."""
        return int(len(self.width) * len(self.expansion) * len(self.depth) ** self.stages)

    @classmethod
    def build(cls, choice: InvertedResidualChoice, signature: Signature) -> Backbone:
        """A fresh network for `channels x height x width` images."""
        channels = image_channels(signature, halvings=len(choice.depths) - 1)
        stem = nn.Sequential(
            nn.Conv2d(channels, choice.width, 3, 1, 1, bias=False), nn.BatchNorm2d(choice.width), nn.ReLU6()
        )
        blocks: list[nn.Module] = []
        width_in = choice.width
        for stage, depth in enumerate(choice.depths):
            width = choice.width * 2**stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(InvertedResidualBlock(width_in, width, stride, choice.expansion))
                width_in = width
        last = 2 * width_in  # a wider last layer, as the paper does, keeps the classifier from being the bottleneck
        head = nn.Sequential(
            nn.Conv2d(width_in, last, 1, bias=False),
            nn.BatchNorm2d(last),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, signature.classes),
        )
        least = 2 ** (len(choice.depths) - 1)
        return Backbone(stem=stem, blocks=blocks, stages=choice.depths, head=head, least_side=least)

    @classmethod
    def describe(cls, choice: InvertedResidualChoice) -> str:
        """Such as `inverted_residual w16 e2 d2-2-2`."""
        return f"inverted w{choice.width} e{choice.expansion} d{'-'.join(map(str, choice.depths))}"
