"""Halting score: places run until the sum of their scores reaches one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of

EPSILON = 0.01
SHARPNESS = 4.0  # logits a unit of score: how sharply training sees the border


@final
class _Place(nn.Module):
    """Adds this place's score to the sum of those before; open while that sum was below one."""

    def __init__(self, channels: int, branches: int, places: int) -> None:
        super().__init__()
        self.score = nn.Sequential(Pool(), nn.Linear(channels, 1))
        self.branches = branches
        # At first all places run: each scores the half of an equal share.
        share = 0.5 / max(places, 1)
        with torch.no_grad():
            nn.init.constant_(self.score[1].bias, math.log(share / (1 - share)))  # type: ignore[arg-type]

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `b x k` (only the last one differs from zero) and the new sum `b x 1`."""
        summed = state + torch.sigmoid(self.score(features))
        ahead = SHARPNESS * (1 - EPSILON - summed)
        return torch.cat([torch.zeros_like(ahead)] * (self.branches - 1) + [ahead], dim=1), summed


@final
@dataclass(frozen=True)
class Halting(AbstractGate):
    """Each place scores the input; once the scores add up to `1 - 0.01`, the remaining places are skipped.

    Unlike the original, the output is that of the last place that ran, not a mean weighted by the scores: a mean
    would need all of them.

    Source: Figurnov et al., "Spatially Adaptive Computation Time for Residual Networks", CVPR 2017; Graves,
        "Adaptive Computation Time for Recurrent Neural Networks", 2016.
    """

    name: ClassVar[str] = "halting"
    source: ClassVar[str] = "Figurnov et al., CVPR 2017"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Anything that can be pooled."""
        return len(shape) in (1, 2, 3)

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """A score a place; how far they are open at first follows from their number."""
        modules = [_Place(channels_of(shape), branches, len(places)) for shape in places]
        return GateSet(tuple(GateUnit(module, self.name, "halting", 1) for module in modules))
