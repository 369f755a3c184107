"""Heads of early exits: from the features between two blocks to logits.

A head type is one class and one line in `EXIT_HEADS`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from .errors import UnknownNameError
from .spec import require


@dataclass(frozen=True)
class AbstractExitHead(abc.ABC):
    """Builds heads for what a backbone shows its exits: `b x c x h x w` or `b x c`."""

    name: ClassVar[str]

    @abc.abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether such a head can read features of this shape (without the batch)."""

    @abc.abstractmethod
    def build(self, feature_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A fresh head that gives logits `b x classes`."""


def _pool(feature_shape: tuple[int, ...]) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if len(feature_shape) == 3 else []


@final
@dataclass(frozen=True)
class LinearHead(AbstractExitHead):
    """Global average pooling and one linear layer: the cheapest."""

    name: ClassVar[str] = "linear"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Channels with sides, or a flat row."""
        return len(shape) in (1, 3)

    def build(self, feature_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Pool, linear."""
        return nn.Sequential(*_pool(feature_shape), nn.Linear(feature_shape[0], classes))


@final
@dataclass(frozen=True)
class MlpHead(AbstractExitHead):
    """Global average pooling and two linear layers."""

    name: ClassVar[str] = "mlp"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Channels with sides, or a flat row."""
        return len(shape) in (1, 3)

    def build(self, feature_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Pool, linear, linear."""
        hidden = 2 * feature_shape[0]
        return nn.Sequential(
            *_pool(feature_shape), nn.Linear(feature_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )


@final
@dataclass(frozen=True)
class ConvHead(AbstractExitHead):
    """A strided convolution before pooling: dearer, better on early, fine-grained features."""

    name: ClassVar[str] = "conv"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Channels with sides only."""
        return len(shape) == 3

    def build(self, feature_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Convolution, pool, linear."""
        hidden = 2 * feature_shape[0]
        return nn.Sequential(
            nn.Conv2d(feature_shape[0], hidden, 3, 2, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, classes),
        )


EXIT_HEADS: tuple[AbstractExitHead, ...] = (LinearHead(), MlpHead(), ConvHead())


def exit_head(name: str, path: str = "head") -> AbstractExitHead:
    """The head type of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in EXIT_HEADS:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in EXIT_HEADS])


def require_head(name: str, shape: tuple[int, ...], path: str) -> None:
    """Raise unless heads of that name can read what this backbone shows them."""
    known = ", ".join(member.name for member in EXIT_HEADS if member.fits(shape)) or "none does"
    require(exit_head(name, path).fits(shape), path, f"must fit features of {shape} ({known}), but got {name!r}")
