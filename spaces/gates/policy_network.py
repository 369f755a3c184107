"""Policy network: one small network decides about all places before the first of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..gate import AbstractGate, GateSet, GateUnit, Pool, channels_of

CHANNELS, HIDDEN = 8, 16
MEMORY = "policy"


@final
class _Reader(nn.Module):
    """The logits of one place."""

    def __init__(self, index: int, branches: int) -> None:
        super().__init__()
        self.columns = slice(index * branches, (index + 1) * branches)

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of the state, and the state."""
        return state[:, self.columns], state


@final
@dataclass(frozen=True)
class PolicyNetwork(AbstractGate):
    """Reads the stem's features once and decides about all places.

    Source: Wu, Nagarajan, Kumar, Rennie, Davis, Grauman, Feris, "BlockDrop", CVPR 2018.
    """

    name: ClassVar[str] = "policy_network"
    source: ClassVar[str] = "Wu et al., CVPR 2018"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Anything that can be pooled."""
        return len(shape) in (1, 2, 3)

    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Convolution where there are sides, pool, linear, linear."""
        eyes: list[nn.Module] = []
        width = channels_of(stem)
        if len(stem) == 3:
            eyes, width = [nn.Conv2d(width, CHANNELS, 3, 2, 1), nn.ReLU()], CHANNELS
        size = len(places) * branches
        out = nn.Linear(HIDDEN, size)
        with torch.no_grad():
            out.bias.zero_()
            out.bias[branches - 1 :: branches] = opening
        module = nn.Sequential(*eyes, Pool(), nn.Linear(width, HIDDEN), nn.ReLU(), out)
        token = f"{self.name} {size}"
        units = (GateUnit(_Reader(index, branches), token, MEMORY, size) for index in range(len(places)))
        return GateSet(tuple(units), GateUnit(module, token, MEMORY, size))
