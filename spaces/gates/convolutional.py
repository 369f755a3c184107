"""Convolutional gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of, last_layer

CHANNELS = 8


@final
@dataclass(frozen=True)
class Convolutional(AbstractGate):
    """A strided 3 x 3 convolution, mean over places, one linear layer: sees where things are, and costs more.

    Source: Wang, Yu, Dou, Darrell, Gonzalez, "SkipNet", ECCV 2018 (feed-forward gate).
    """

    name: ClassVar[str] = "convolutional"
    source: ClassVar[str] = "Wang et al., ECCV 2018"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Channels with two sides only."""
        return len(shape) == 3

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Convolution, pool, linear."""
        modules = [
            nn.Sequential(
                nn.Conv2d(channels_of(shape), CHANNELS, 3, 2, 1),
                nn.ReLU(),
                Pool(),
                last_layer(CHANNELS, branches, opening),
            )
            for shape in places
        ]
        return GateSet(tuple(GateUnit(module, self.name) for module in modules))
