"""Encoders: what a network that reads in chunks makes of raw steps, and what a glimpse of them costs."""

from __future__ import annotations

import abc
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

THUMBNAIL = 4  # side of what gates see of a frame


class AbstractEncoder(nn.Module, abc.ABC):
    """Turns raw steps into what the recurrent cell reads; `pads` says whether some may be absent."""

    pads: bool = True

    @abc.abstractmethod
    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw steps `b x k x w` -> `b x k x e`, and which are present (`b x k`; None: all)."""

    @abc.abstractmethod
    def summary(self, steps: Tensor) -> Tensor:
        """Raw steps `b x k x w` -> `b x m`: cheap, the same size for any number of steps."""

    @abc.abstractmethod
    def coarse(self, share: float) -> tuple[nn.Module, int]:
        """A cheaper encoder, perhaps this one, and the size of what it makes."""


@final
class TextEncoder(AbstractEncoder):
    """Looks words up; `w` is 1."""

    def __init__(self, vocabulary: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings; id 0 is absent."""
        ids = steps.squeeze(2)
        return self.embedding(ids.long()), ids > 0

    def summary(self, steps: Tensor) -> Tensor:
        """Mean embedding of the present words, and their share."""
        made, present = self(steps)
        return _mean_present(made, present.to(made.dtype).unsqueeze(2))

    def coarse(self, share: float) -> tuple[nn.Module, int]:
        """Itself: looking up costs next to nothing."""
        return self, self.embedding.embedding_dim


@final
class StepEncoder(AbstractEncoder):
    """Hands the channels on; `w` is 1 + channels, the first being the presence."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Channels and presence."""
        return steps[..., 1:], steps[..., 0] > 0

    def summary(self, steps: Tensor) -> Tensor:
        """Mean of the present steps, and their share."""
        return _mean_present(steps[..., 1:], steps[..., :1])

    def coarse(self, share: float) -> tuple[nn.Module, int]:
        """Itself."""
        return self, self.channels


@final
class FrameEncoder(AbstractEncoder):
    """A small convolutional network for each frame; `w` is channels x height x width.

    Args:
        shape: of a frame, `channels x height x width`.
        width: channels of its first convolution.
        shrink: the frame's sides are divided by this first.
    """

    pads = False

    def __init__(self, shape: tuple[int, ...], width: int, *, shrink: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.width = width
        layers: list[nn.Module] = [nn.AvgPool2d(shrink)] if shrink > 1 else []
        channels = shape[0]
        for size in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, size, 3, 2, 1, bias=False), nn.BatchNorm2d(size), nn.ReLU()]
            channels = size
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.size = channels

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of each frame; all frames are present."""
        made = self.body(steps.reshape(-1, *self.shape))
        return made.view(steps.shape[0], steps.shape[1], self.size), None

    def summary(self, steps: Tensor) -> Tensor:
        """The mean frame, shrunk to a thumbnail."""
        frames = steps.mean(1).view(-1, *self.shape)
        return functional.adaptive_avg_pool2d(frames, THUMBNAIL).flatten(1)

    def coarse(self, share: float) -> tuple[nn.Module, int]:
        """Fewer channels, on frames of half the sides."""
        small = FrameEncoder(self.shape, max(1, round(share * self.width)), shrink=2)
        return small, small.size


def _mean_present(steps: Tensor, present: Tensor) -> Tensor:
    """Mean of the present ones of steps `b x k x e`, and their share; `present` is `b x k x 1`."""
    count = present.sum(1)
    return torch.cat([(steps * present).sum(1) / count.clamp_min(1), count / steps.shape[1]], 1)
