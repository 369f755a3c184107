"""Recurrent gate, shared by all places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of, last_layer

HIDDEN = 10


@final
class _Shared(nn.Module):
    """What all places have in common."""

    def __init__(self, branches: int, opening: float) -> None:
        super().__init__()
        self.cell = nn.GRUCell(HIDDEN, HIDDEN)
        self.out = last_layer(HIDDEN, branches, opening)


@final
class _Place(nn.Module):
    """One place: its own projection of the pooled features, then the shared cell."""

    def __init__(self, channels: int, shared: _Shared) -> None:
        super().__init__()
        self.project = nn.Sequential(Pool(), nn.Linear(channels, HIDDEN))
        self.shared = shared

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `b x k` and the new state."""
        state = self.shared.cell(self.project(features), state)
        return self.shared.out(state), state


@final
@dataclass(frozen=True)
class Recurrent(AbstractGate):
    """A recurrent cell that all places share and that remembers what was decided before.

    Source: Wang, Yu, Dou, Darrell, Gonzalez, "SkipNet", ECCV 2018 (recurrent gate, with a GRU of 10 units here).
    """

    name: ClassVar[str] = "recurrent"
    source: ClassVar[str] = "Wang et al., ECCV 2018"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Anything that can be pooled."""
        return len(shape) in (1, 2, 3)

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """A projection a place and one cell."""
        shared = _Shared(branches, opening)
        modules = [_Place(channels_of(shape), shared) for shape in places]
        return GateSet(tuple(GateUnit(module, self.name, "recurrent", HIDDEN) for module in modules))
