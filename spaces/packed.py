"""Packed features: input that is not read yet, and behind it what the network knows, in one flat row `b x f`.

A recurrent network becomes a plain chain of blocks that way: each takes its chunk of steps from the front of the row
and changes the state at its end. Dropping a chunk instead is a slice, which costs nothing. What exits see of the row is
the state alone, so that none sees the future; what gates see is the state and a cheap summary of the next chunk.

    [ unread steps ... | cell state (LSTM) | hidden state ]
"""

from __future__ import annotations

import abc
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import AbstractChunk

THUMBNAIL = 4  # side of what gates see of a frame


class AbstractEncoder(nn.Module, abc.ABC):
    """Turns raw steps into what the recurrent cell reads."""

    @abc.abstractmethod
    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw steps `b x k x w` -> `b x k x e`, and which are present (`b x k`; None: all)."""

    @abc.abstractmethod
    def summary(self, steps: Tensor) -> Tensor:
        """Raw steps `b x k x w` -> `b x m`: cheap, the same size for any number of steps."""

    @abc.abstractmethod
    def present(self, steps: Tensor) -> Tensor:
        """Raw steps `b x k x w` -> `b` booleans: whether any step is present."""

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

    def present(self, steps: Tensor) -> Tensor:
        """Whether the first word is: padding stands at the end."""
        return steps[:, 0, 0] > 0

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

    def present(self, steps: Tensor) -> Tensor:
        """Whether the first step is: padding stands at the end."""
        return steps[:, 0, 0] > 0

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

    def present(self, steps: Tensor) -> Tensor:
        """Always."""
        return torch.ones(steps.shape[0], dtype=torch.bool, device=steps.device)

    def coarse(self, share: float) -> tuple[nn.Module, int]:
        """Fewer channels, on frames of half the sides."""
        small = FrameEncoder(self.shape, max(1, round(share * self.width)), shrink=2)
        return small, small.size


def _mean_present(steps: Tensor, present: Tensor) -> Tensor:
    """Mean of the present ones of steps `b x k x e`, and their share; `present` is `b x k x 1`."""
    count = present.sum(1)
    return torch.cat([(steps * present).sum(1) / count.clamp_min(1), count / steps.shape[1]], 1)


@final
class Reader(nn.Module):
    """Encoder and recurrent cell: what reading a chunk does to the state.

    Args:
        encoder: of raw steps `b x k x w`.
        rnn: reads what it makes.
        hidden: size of the hidden state; if the cell is smaller, it changes the first numbers of it alone.
    """

    def __init__(self, encoder: nn.Module, rnn: nn.GRU | nn.LSTM, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.rnn = rnn
        self.hidden = hidden
        self.remembers = isinstance(rnn, nn.LSTM)

    @property
    def state(self) -> int:
        """Size of the state."""
        return self.hidden * (2 if self.remembers else 1)

    def forward(self, steps: Tensor, state: Tensor) -> Tensor:
        """Raw steps `b x k x w` and state `b x s` -> state; it stays where no step is present."""
        made, present = self.encoder(steps)
        size = self.rnn.hidden_size
        h = state[:, -self.hidden :]
        first = h[:, :size].unsqueeze(0).contiguous()
        if self.remembers:
            c = state[:, : self.hidden]
            out, (_, last) = self.rnn(made, (first, c[:, :size].unsqueeze(0).contiguous()))
        else:
            out, _ = self.rnn(made, first)
        # Padding stands at the end, so the state after the last present step is the one to keep. The cell state need
        # not be held there: behind a padded step nothing is read any more.
        if present is None:
            kept = out[:, -1]
        else:
            count = present.sum(1).view(-1, 1, 1).expand(-1, 1, size)
            kept = torch.cat([h[:, None, :size], out], 1).gather(1, count).squeeze(1)
        pieces = [c[:, size:], kept, h[:, size:]] if self.remembers else [kept, h[:, size:]]
        return torch.cat([last[0], *pieces] if self.remembers else pieces, 1)


@final
class Pack(nn.Module):
    """Inputs `b x ...` -> `b x (n + s)`: all of them unread, and a state of zeros.

    Args:
        state: `s`.
    """

    def __init__(self, state: int) -> None:
        super().__init__()
        self.state = state

    def forward(self, x: Tensor) -> Tensor:
        """The packed row."""
        return functional.pad(x.flatten(1), (0, self.state))


@final
class ReadChunk(AbstractChunk):
    """Reads the steps at the front of the row; `b x f` -> `b x (f - k w)`.

    Args:
        reader: shared by all chunks.
        steps: `k`.
        width: `w`, numbers of a raw step.
    """

    def __init__(self, reader: Reader, steps: int, width: int) -> None:
        super().__init__()
        self.reader = reader
        self.steps = steps
        self.width = width

    @property
    def taken(self) -> int:
        """Numbers taken from the front of the row."""
        return self.steps * self.width

    def forward(self, x: Tensor) -> Tensor:
        """The rest of the row with the new state."""
        state = self.reader.state
        steps = x[:, : self.taken].reshape(-1, self.steps, self.width)
        return torch.cat([x[:, self.taken : -state], self.reader(steps, x[:, -state:])], 1)

    def present(self, x: Tensor) -> Tensor:
        """`b` booleans: whether the chunk holds a present step."""
        encoder = self.reader.encoder
        assert isinstance(encoder, AbstractEncoder)
        return encoder.present(x[:, : self.taken].reshape(-1, self.steps, self.width))

    def dropped(self) -> nn.Module:
        """Leaves the chunk out."""
        return Drop(self.taken)

    def small(self, share: float) -> Reader:
        """A reader that is cheaper and changes the first `share` of the state; one for all chunks."""
        encoder, hidden = self.reader.encoder, self.reader.hidden
        assert isinstance(encoder, AbstractEncoder)
        made, size = encoder.coarse(share)
        kind = nn.LSTM if self.reader.remembers else nn.GRU
        return Reader(made, kind(size, max(1, round(share * hidden)), batch_first=True), hidden)

    def read_by(self, reader: nn.Module) -> nn.Module:
        """The same chunk, read by another."""
        assert isinstance(reader, Reader)
        return ReadChunk(reader, self.steps, self.width)


@final
class Drop(nn.Module):
    """Leaves out the front of the row: a view, no work.

    Args:
        taken: numbers.
    """

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken

    def forward(self, x: Tensor) -> Tensor:
        """`b x f` -> `b x (f - taken)`."""
        return x[:, self.taken :]


@final
class Known(nn.Module):
    """What exits see: the hidden state.

    Args:
        hidden: its size.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        """`b x f` -> `b x hidden`."""
        return x[:, -self.hidden :]


@final
class Ahead(nn.Module):
    """What gates see: the hidden state, and a summary of the chunk that comes next.

    Args:
        reader: whose encoder sums up.
        steps: of a chunk; the last one may be shorter.
        width: numbers of a raw step.
    """

    def __init__(self, reader: Reader, steps: int, width: int) -> None:
        super().__init__()
        self.reader = reader
        self.steps = steps
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """`b x f` -> `b x (hidden + m)`."""
        reader, encoder = self.reader, self.reader.encoder
        assert isinstance(encoder, AbstractEncoder)
        taken = min(self.steps * self.width, x.shape[1] - reader.state)
        steps = x[:, :taken].reshape(x.shape[0], -1, self.width)
        return torch.cat([x[:, -reader.hidden :], encoder.summary(steps)], 1)


def chunk_sizes(steps: int, chunks: int) -> tuple[int, ...]:
    """Sizes of at most so many chunks, all equal but a shorter last one."""
    size = -(-steps // chunks)
    return tuple(min(size, steps - start) for start in range(0, steps, size))
