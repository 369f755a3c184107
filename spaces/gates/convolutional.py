"""Convolutional gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of, last_layer
from .pooled_mlp import PooledMlp

CHANNELS = 8


@final
@dataclass(frozen=True)
class Convolutional(AbstractGate):
    """A strided 3 x 3 convolution, mean over places, one linear layer: sees where things are, and costs more.

    Features without two sides get a pooled gate with a hidden layer instead.

    Source: Wang, Yu, Dou, Darrell, Gonzalez, "SkipNet", ECCV 2018 (feed-forward gate).
    """

    name: ClassVar[str] = "convolutional"
    source: ClassVar[str] = "Wang et al., ECCV 2018"

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Convolution, pool, linear."""
        if any(len(shape) != 3 for shape in places):
            return PooledMlp().build(stem, places, branches, opening)
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
