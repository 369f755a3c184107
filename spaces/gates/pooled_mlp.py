"""Pooled gate with a hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of, last_layer

HIDDEN = 16


@final
@dataclass(frozen=True)
class PooledMlp(AbstractGate):
    """Mean over places, a hidden layer of 16, one linear layer.

    Source: Veit, Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV 2018.
    """

    name: ClassVar[str] = "pooled_mlp"
    source: ClassVar[str] = "Veit, Belongie, ECCV 2018"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Anything that can be pooled."""
        return len(shape) in (1, 2, 3)

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Pool, linear, linear."""
        modules = [
            nn.Sequential(
                Pool(), nn.Linear(channels_of(shape), HIDDEN), nn.ReLU(), last_layer(HIDDEN, branches, opening)
            )
            for shape in places
        ]
        return GateSet(tuple(GateUnit(module, self.name) for module in modules))
