"""Frame network with a recurrent head, for clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from ..backbone import AbstractBackbone, Backbone, Signature
from ..encoders import FrameEncoder
from ..errors import ShapeError
from ..packed import Reader
from ..scope import Scope
from ..signature import require_kind
from ..spec import AbstractSpec, require, require_options
from .recurrent import reading, recurrent_cell

SMALLEST = 8  # side of a frame: three halvings, and a coarse reader halves once more


@final
@dataclass(frozen=True)
class FrameRecurrentChoice(AbstractSpec):
    """One frame network: channels of its first convolution, size of the state, chunks of frames."""

    width: int
    state: int
    chunks: int

    def check(self) -> None:
        """Positive sizes."""
        for name in ("width", "state", "chunks"):
            require(getattr(self, name) >= 1, name, f"must be at least 1, but got {getattr(self, name)}")


@final
@dataclass(frozen=True)
class FrameRecurrent(AbstractBackbone):
    """A small CNN reads each frame, a GRU adds up what it sees; every chunk of frames is a block.

    One chunk is the static network at its fastest: all frames go through the CNN as one batch.

    Args:
        width: channels of the first of three strided convolutions to choose from.
        state: sizes of the hidden state to choose from.
        chunks: numbers of chunks to choose from; a clip of fewer frames has fewer.

    Source: Donahue et al., "Long-term Recurrent Convolutional Networks for Visual Recognition and Description",
        CVPR 2015.
    """

    name: ClassVar[str] = "frame_recurrent"
    source: ClassVar[str] = "Donahue et al., CVPR 2015"
    choice_type: ClassVar[type[AbstractSpec]] = FrameRecurrentChoice
    kinds: ClassVar[tuple[str, ...]] = ("clip",)

    width: tuple[int, ...] = (8, 16)
    state: tuple[int, ...] = (32,)
    chunks: tuple[int, ...] = (1, 4, 8)

    def check(self) -> None:
        """Options present, distinct, positive."""
        for name in ("width", "state", "chunks"):
            values = getattr(self, name)
            require_options(name, values)
            require(min(values) >= 1, name, f"must be at least 1, but got {list(values)}")

    def suggest(self, scope: Scope) -> FrameRecurrentChoice:
        """Width, state, chunks."""
        return FrameRecurrentChoice(
            scope.categorical("width", self.width),
            scope.categorical("state", self.state),
            scope.categorical("chunks", self.chunks),
        )

    def extremes(self) -> tuple[FrameRecurrentChoice, FrameRecurrentChoice]:
        """Narrowest and widest; in as few calls as may be, as whoever decides nothing would run it."""
        chunks = min(self.chunks)
        small = FrameRecurrentChoice(min(self.width), min(self.state), chunks)
        return small, FrameRecurrentChoice(max(self.width), max(self.state), chunks)

    def size(self) -> int:
        """The product of the options."""
        return math.prod((len(self.width), len(self.state), len(self.chunks)))

    @classmethod
    def build(cls, choice: FrameRecurrentChoice, signature: Signature) -> Backbone:
        """A fresh network for clips.

        Raises:
            ShapeError: for other inputs, or frames too small to be halved three times.
        """
        require_kind(signature, cls.kinds, f"backbone {cls.name!r}")
        frames, *shape = signature.input_shape
        if min(shape[1:]) < SMALLEST:
            raise ShapeError(f"frames must be {SMALLEST} x {SMALLEST} or larger, but are {shape[1]} x {shape[2]}")
        encoder = FrameEncoder(tuple(shape), choice.width)
        reader = Reader(encoder, recurrent_cell("gru", encoder.size, choice.state), choice.state)
        return reading(reader, frames, choice.chunks, width=math.prod(shape), classes=signature.classes)

    @classmethod
    def describe(cls, choice: FrameRecurrentChoice) -> str:
        """Such as `frames w8 s32 c8`."""
        return f"frames w{choice.width} s{choice.state} c{choice.chunks}"
