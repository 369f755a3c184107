"""Spatial gate: one decision a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..gate import AbstractGate, GateSet, GateUnit, channels_of

HIDDEN = 8


@final
class _TileGate(nn.Module):
    """Mean of each tile, a look at its neighbours, one logit a tile."""

    def __init__(self, channels: int, tile: int, opening: float) -> None:
        super().__init__()
        # Tiles that stick out at the border are judged by what lies within.
        self.pool = nn.AvgPool2d(tile, ceil_mode=True, count_include_pad=False)
        self.look = nn.Sequential(nn.Conv2d(channels, HIDDEN, 3, 1, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 1, 1))
        with torch.no_grad():
            nn.init.constant_(self.look[2].bias, opening)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Features `b x c x h x w` -> logits `b x 1 x h/s x w/s` as pairs `(b * tiles) x 2`; to stay shut is 0."""
        logits = self.look(self.pool(x)).reshape(-1, 1)
        return torch.cat([torch.zeros_like(logits), logits], 1)


@final
@dataclass(frozen=True)
class Spatial(AbstractGate):
    """A gate that opens or shuts every tile of the features; only steps that run on tiles can ask it.

    Args:
        tile: side of a tile; 0: not told yet, and then it fits nothing.

    Source: Verelst, Tuytelaars, "Dynamic Convolutions: Exploiting Spatial Sparsity for Faster Inference", CVPR 2020.
    """

    name: ClassVar[str] = "spatial"
    source: ClassVar[str] = "Verelst, Tuytelaars, CVPR 2020"

    tile: int = 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Channels with two sides, once it knows its tiles."""
        return self.tile > 0 and len(shape) == 3

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Pool each tile, convolution over the grid, linear."""
        modules = [_TileGate(channels_of(shape), self.tile, opening) for shape in places]
        return GateSet(tuple(GateUnit(module, f"{self.name} {self.tile}") for module in modules))
