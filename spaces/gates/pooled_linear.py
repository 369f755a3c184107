"""Pooled linear gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of, last_layer


@final
@dataclass(frozen=True)
class PooledLinear(AbstractGate):
    """Mean over places, one linear layer: the cheapest gate.

    Source: Veit, Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV 2018 (pooled features).
    """

    name: ClassVar[str] = "pooled_linear"
    source: ClassVar[str] = "Veit, Belongie, ECCV 2018"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Anything that can be pooled."""
        return len(shape) in (1, 2, 3)

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Pool, linear."""
        modules = [nn.Sequential(Pool(), last_layer(channels_of(shape), branches, opening)) for shape in places]
        return GateSet(tuple(GateUnit(module, self.name) for module in modules))
