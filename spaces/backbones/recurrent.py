"""Recurrent network for texts and sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ..backbone import AbstractBackbone, Backbone, Signature
from ..encoders import AbstractEncoder, StepEncoder, TextEncoder
from ..packed import Ahead, Known, Pack, ReadChunk, Reader, chunk_sizes
from ..scope import Scope
from ..signature import require_kind
from ..spec import AbstractSpec, require, require_name, require_options

CELLS = ("gru", "lstm")


@final
@dataclass(frozen=True)
class RecurrentChoice(AbstractSpec):
    """One recurrent network: size of its state, kind of its cell, chunks that the input is read in."""

    width: int
    cell: str
    chunks: int

    def check(self) -> None:
        """Positive sizes, a known cell."""
        require(self.width >= 1, "width", f"must be at least 1, but got {self.width}")
        require_name("cell", self.cell, CELLS)
        require(self.chunks >= 1, "chunks", f"must be at least 1, but got {self.chunks}")


@final
@dataclass(frozen=True)
class Recurrent(AbstractBackbone):
    """A GRU or LSTM that reads words or steps in chunks; every chunk is a block, with the same weights.

    One chunk is the static network at its fastest, a single call of the cell. More chunks are more places to decide at:
    exits behind chunks see what is known so far, gates before them decide about the next.

    Args:
        width: sizes of the hidden state to choose from; words have embeddings of the same size.
        cell: `gru`, `lstm`; to choose from.
        chunks: numbers of chunks to choose from; an input of fewer steps has fewer.

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014 (GRU); Hochreiter,
        Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.
    """

    name: ClassVar[str] = "recurrent"
    source: ClassVar[str] = "Cho et al., EMNLP 2014"
    choice_type: ClassVar[type[AbstractSpec]] = RecurrentChoice
    kinds: ClassVar[tuple[str, ...]] = ("sequence", "text")

    width: tuple[int, ...] = (32, 64)
    cell: tuple[str, ...] = CELLS
    chunks: tuple[int, ...] = (1, 4, 8)

    def check(self) -> None:
        """Options present, distinct, positive."""
        require_options("width", self.width)
        require_options("cell", self.cell, CELLS)
        require_options("chunks", self.chunks)
        require(min(self.width) >= 1, "width", f"must be at least 1, but got {list(self.width)}")
        require(min(self.chunks) >= 1, "chunks", f"must be at least 1, but got {list(self.chunks)}")

    def suggest(self, scope: Scope) -> RecurrentChoice:
        """Width, cell, chunks."""
        return RecurrentChoice(
            scope.categorical("width", self.width),
            scope.categorical("cell", self.cell),
            scope.categorical("chunks", self.chunks),
        )

    def extremes(self) -> tuple[RecurrentChoice, RecurrentChoice]:
        """Narrowest and widest; in as few calls as may be, as whoever decides nothing would run it."""
        light, heavy = (next(cell for cell in order if cell in self.cell) for order in (CELLS, CELLS[::-1]))
        chunks = min(self.chunks)
        return RecurrentChoice(min(self.width), light, chunks), RecurrentChoice(max(self.width), heavy, chunks)

    def size(self) -> int:
        """The product of the options."""
        return len(self.width) * len(self.cell) * len(self.chunks)

    @classmethod
    def build(cls, choice: RecurrentChoice, signature: Signature) -> Backbone:
        """A fresh network for texts or sequences."""
        require_kind(signature, cls.kinds, f"backbone {cls.name!r}")
        if signature.kind == "text":
            assert signature.vocabulary is not None
            encoder: AbstractEncoder = TextEncoder(signature.vocabulary, choice.width)
            size, width = choice.width, 1
        else:
            width = signature.input_shape[1]
            size = width - 1
            encoder = StepEncoder(size)
        reader = Reader(encoder, recurrent_cell(choice.cell, size, choice.width), choice.width)
        return reading(reader, signature.input_shape[0], choice.chunks, width=width, classes=signature.classes)

    @classmethod
    def describe(cls, choice: RecurrentChoice) -> str:
        """Such as `gru w32 c8`."""
        return f"{choice.cell} w{choice.width} c{choice.chunks}"


def recurrent_cell(name: str, size: int, hidden: int) -> nn.GRU | nn.LSTM:
    """A fresh cell of that name, from `size` numbers a step to a state of `hidden`."""
    return (nn.LSTM if name == "lstm" else nn.GRU)(size, hidden, batch_first=True)


def reading(reader: Reader, steps: int, chunks: int, *, width: int, classes: int) -> Backbone:
    """A backbone that reads its input chunk by chunk.

    Args:
        reader: shared by all chunks.
        steps: of the input.
        chunks: at most so many.
        width: numbers of a raw step.
        classes: number of classes.
    """
    sizes = chunk_sizes(steps, chunks)
    known = Known(reader.hidden)
    return Backbone(
        stem=Pack(reader.state),
        blocks=[ReadChunk(reader, size, width) for size in sizes],
        stages=(len(sizes),),
        head=nn.Sequential(known, nn.Linear(reader.hidden, classes)),
        view=known,
        peek=Ahead(reader, sizes[0], width),
    )
