"""Gate: a small network that decides, for each input, which branch of a choice runs."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn


@final
@dataclass(frozen=True)
class GateUnit:
    """The gate of one place.

    Args:
        module: what gates see, `b x ...` -> logits `b x k`; with a memory also state `b x s` -> (logits, new state).
        token: equal tokens promise equal work on equal features.
        memory: name of the state that it shares with other places; None: no memory.
        size: `s`.
    """

    module: nn.Module
    token: Hashable
    memory: str | None = None
    size: int = 0

    def state(self, features: Tensor, memory: dict[str, Tensor]) -> Tensor | None:
        """What earlier places handed on, zeros before the first; None for gates without memory."""
        if self.memory is None:
            return None
        found = memory.get(self.memory)
        return features.new_zeros(features.shape[0], self.size) if found is None else found

    def logits(self, features: Tensor, memory: dict[str, Tensor], *, asked: nn.Module) -> Tensor:
        """`b x k`; the memory is brought up to date.

        Args:
            features: what gates see.
            memory: what decisions hand on.
            asked: the module as the step holds it: under a variant of a fork that is a twin of the unit's own.
        """
        state = self.state(features, memory)
        if state is None:
            made: Tensor = asked(features)
        else:
            assert self.memory is not None
            made, memory[self.memory] = asked(features, state)
        return made


@final
@dataclass(frozen=True)
class GateSet:
    """The gates of all places of a network.

    Args:
        units: one a place, in depth order.
        first: prepares, right after the stem, the memory that they read, if there is such a one: its module takes
            what gates see there to `b x s`.
    """

    units: tuple[GateUnit, ...]
    first: GateUnit | None = None


@dataclass(frozen=True)
class AbstractGate(abc.ABC):
    """A kind of gate.

    A member is one file in `spaces/gates/` and one line in `GATES`.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    @abc.abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether such a gate can read features of this shape (without the batch)."""

    @abc.abstractmethod
    def build(self, stem: tuple[int, ...], places: Sequence[tuple[int, ...]], branches: int, opening: float) -> GateSet:
        """Fresh gates.

        Args:
            stem: shape of what gates see after the stem.
            places: shape of what the gate of each place sees.
            branches: `k`, by rising cost.
            opening: logit by which the last, dearest branch is ahead at first.
        """


def channels_of(shape: tuple[int, ...]) -> int:
    """Numbers that pooling leaves of features: channels of `c x h x w`, width of tokens `t x d` and of `c`."""
    return shape[-1] if len(shape) == 2 else shape[0]


@final
class Pool(nn.Module):
    """Mean over places: `b x c x h x w`, `b x t x d` or `b x c` -> `b x c`."""

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        if x.dim() == 4:
            return x.mean((2, 3))
        return x.mean(1) if x.dim() == 3 else x


def last_layer(width: int, branches: int, opening: float) -> nn.Linear:
    """A linear layer whose last branch is ahead at first: gates that start shut would never see a gradient."""
    layer = nn.Linear(width, branches)
    with torch.no_grad():
        layer.bias.zero_()
        layer.bias[-1] = opening
    return layer
