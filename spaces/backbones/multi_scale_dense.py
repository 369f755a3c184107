"""Multi-scale dense CNN for small images: coarse features from the first block on, so that exits work anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..backbone import AbstractBackbone, Backbone, Signature
from ..scope import Scope
from ..spec import AbstractSpec, require, require_options
from .residual import image_channels

BOTTLENECK = 4  # inner channels of a convolution as a multiple of those it makes
WIDEST = 4  # channels that a scale adds, at most, as a multiple of those of the finest


@final
@dataclass(frozen=True)
class Layout:
    """How the maps of several scales lie in one row of numbers, the coarsest at its end.

    Args:
        maps: `c x h x w` of each scale, the finest first.
        spare: zeros at the front: no two layouts of a network are equally long, so that a row tells its layout.
    """

    maps: tuple[tuple[int, int, int], ...]
    spare: int = 0

    @property
    def length(self) -> int:
        """Numbers in a row."""
        return self.spare + sum(map(math.prod, self.maps))

    def unpack(self, x: Tensor) -> list[Tensor]:
        """`b x length` -> `b x c x h x w` a scale; views."""
        pieces = torch.split(x[:, self.spare :], [math.prod(shape) for shape in self.maps], 1)
        return [piece.view(x.shape[0], *shape) for piece, shape in zip(pieces, self.maps, strict=True)]

    def pack(self, maps: Iterable[Tensor]) -> Tensor:
        """`b x length`; consecutive maps of one scale become the channels of one map."""
        rows = [each.flatten(1) for each in maps]
        front = [rows[0].new_zeros(rows[0].shape[0], self.spare)] if self.spare else []
        return torch.cat([*front, *rows], 1)


@final
class Coarsest(nn.Module):
    """The map of the coarsest scale: `b x length` -> `b x c x h x w`, a view.

    Args:
        layouts: all that there are in the network; their lengths differ.
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.shapes = {layout.length: layout.maps[-1] for layout in layouts}

    def forward(self, x: Tensor) -> Tensor:
        """The last numbers of each row."""
        shape = self.shapes[x.shape[1]]
        return x[:, -math.prod(shape) :].view(x.shape[0], *shape)


def _convolution(channels_in: int, channels_out: int, side: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


def _bottleneck(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    inner = min(channels_in, BOTTLENECK * channels_out)
    return nn.Sequential(*_convolution(channels_in, inner, 1, 1), *_convolution(inner, channels_out, 3, stride))


@final
class MultiScaleStem(nn.Module):
    """Images `b x c x h x w` -> maps of all scales in a row, each made from the next finer one."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        widths = [channels, *(shape[0] for shape in layout.maps)]
        self.scales = nn.ModuleList(
            nn.Sequential(*_convolution(before, after, 3, 1 if index == 0 else 2))
            for index, (before, after) in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`b x length`."""
        maps = []
        for scale in self.scales:
            x = scale(x)
            maps.append(x)
        return self.layout.pack(maps)


@final
class MultiScaleBlock(nn.Module):
    """Adds channels to each scale, half of them from its own map, half from the next finer one.

    Args:
        given: layout of what comes in.
        growth: channels to add, for each scale.
        halve: halve the channels of all maps first: a new stage begins.
        drop: the finest scale ends here: its stage does.
        spare: as in a layout.
    """

    def __init__(self, given: Layout, growth: Sequence[int], *, halve: bool, drop: bool, spare: int = 0) -> None:
        super().__init__()
        self.given, self.drop = given, int(drop)
        widths = [shape[0] // (1 + halve) for shape in given.maps]
        self.halving = nn.ModuleList(
            nn.Sequential(*_convolution(shape[0], width, 1, 1))
            for shape, width in zip(given.maps if halve else (), widths, strict=False)
        )
        kept = range(self.drop, len(widths))
        self.same = nn.ModuleList(_bottleneck(widths[s], growth[s] // (2 if s else 1), 1) for s in kept)
        self.down = nn.ModuleList(_bottleneck(widths[s - 1], growth[s] // 2, 2) for s in kept if s)
        self.made = Layout(tuple((widths[s] + growth[s], *given.maps[s][1:]) for s in kept), spare)

    def forward(self, x: Tensor) -> Tensor:
        """`b x length` -> `b x length'`."""
        maps = self.given.unpack(x)
        if self.halving:
            maps = [halve(each) for halve, each in zip(self.halving, maps, strict=True)]
        made, finer = [], len(self.same) - len(self.down)
        for index, same in enumerate(self.same):
            scale = index + self.drop
            made += [maps[scale], same(maps[scale])]
            if index >= finer:
                made.append(self.down[index - finer](maps[scale - 1]))
        return self.made.pack(made)


@final
@dataclass(frozen=True)
class MultiScaleDenseChoice(AbstractSpec):
    """One multi-scale dense CNN: channels that a block adds to the finest scale, blocks in each stage."""

    growth: int
    depths: tuple[int, ...]

    def check(self) -> None:
        """Positive sizes."""
        require(self.growth >= 1, "growth", f"must be at least 1, but got {self.growth}")
        require(len(self.depths) >= 1, "depths", "must have at least one stage")
        require(min(self.depths) >= 1, "depths", f"each stage needs a block, but got {list(self.depths)}")


@final
@dataclass(frozen=True)
class MultiScaleDense(AbstractBackbone):
    """As many scales as stages; each block adds channels to all scales, and after each stage the finest one ends.

    Features are the maps of all scales in one row of numbers; exits and gates see the coarsest. A new stage halves
    the channels of all scales. As in the paper, nothing is computed that no later block reads.

    Args:
        growth: channels that a block adds to the finest scale, to choose from; coarser scales add up to four times
            as many.
        depth: blocks of a stage to choose from, for each stage on its own.
        stages: number of stages and of scales; each scale halves the sides of the one before.

    Source: Huang, Chen, Li, Wu, van der Maaten, Weinberger, "Multi-Scale Dense Networks for Resource Efficient Image
        Classification", ICLR 2018.
    """

    name: ClassVar[str] = "multi_scale_dense"
    source: ClassVar[str] = "Huang et al., ICLR 2018"
    choice_type: ClassVar[type[AbstractSpec]] = MultiScaleDenseChoice

    growth: tuple[int, ...] = (4, 8)
    depth: tuple[int, ...] = (1, 2)
    stages: int = 3

    def check(self) -> None:
        """Options present, distinct, positive."""
        require_options("growth", self.growth)
        require_options("depth", self.depth)
        require(min(self.growth) >= 1, "growth", f"must be at least 1, but got {list(self.growth)}")
        require(min(self.depth) >= 1, "depth", f"must be at least 1, but got {list(self.depth)}")
        require(1 <= self.stages <= 6, "stages", f"must be between 1 and 6, but got {self.stages}")

    def suggest(self, scope: Scope) -> MultiScaleDenseChoice:
        """Growth and one depth a stage."""
        growth = scope.categorical("growth", self.growth)
        return MultiScaleDenseChoice(
            growth, tuple((scope / "depth").categorical(str(s), self.depth) for s in range(self.stages))
        )

    def extremes(self) -> tuple[MultiScaleDenseChoice, MultiScaleDenseChoice]:
        """Narrowest and shallowest; widest and deepest."""
        small = MultiScaleDenseChoice(min(self.growth), (min(self.depth),) * self.stages)
        return small, MultiScaleDenseChoice(max(self.growth), (max(self.depth),) * self.stages)

    def size(self) -> int:
        """Growths times depths to the number of stages."""
        return len(self.growth) * math.prod([len(self.depth)] * self.stages)

    @classmethod
    def build(cls, choice: MultiScaleDenseChoice, signature: Signature) -> Backbone:
        """A fresh network for `channels x height x width` images."""
        scales = len(choice.depths)
        channels = image_channels(signature, halvings=scales - 1)
        growth = [choice.growth * min(2**scale, WIDEST) for scale in range(scales)]
        stem = MultiScaleStem(channels, _first_layout(growth, signature.input_shape))
        layouts, blocks = [stem.layout], list[nn.Module]()
        for stage, depth in enumerate(choice.depths):
            for index in range(depth):
                halve, drop = stage > 0 and index == 0, stage < scales - 1 and index == depth - 1
                block = _next_block(layouts, growth[stage:], halve=halve, drop=drop)
                blocks.append(block)
                layouts.append(block.made)
        view = Coarsest(layouts)
        last = layouts[-1].maps[-1][0]
        head = nn.Sequential(view, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, signature.classes))
        return Backbone(stem=stem, blocks=blocks, stages=choice.depths, head=head, view=view)

    @classmethod
    def describe(cls, choice: MultiScaleDenseChoice) -> str:
        """Such as `multi-scale g8 d2-2-2`."""
        return f"multi-scale g{choice.growth} d{'-'.join(map(str, choice.depths))}"


def _first_layout(growth: Sequence[int], shape: tuple[int, ...]) -> Layout:
    _, height, width = shape
    maps = []
    for added in growth:
        maps.append((2 * added, height, width))
        height, width = (height + 1) // 2, (width + 1) // 2
    return Layout(tuple(maps))


def _next_block(layouts: Sequence[Layout], growth: Sequence[int], *, halve: bool, drop: bool) -> MultiScaleBlock:
    """The next block, its layout as long as no other."""
    taken, spare = {layout.length for layout in layouts}, 0
    while True:
        block = MultiScaleBlock(layouts[-1], growth, halve=halve, drop=drop, spare=spare)
        if block.made.length not in taken:
            return block
        spare += 1
