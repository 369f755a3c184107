"""Packed features: input that is not read yet, and behind it what the network knows, in one flat row `b x f`.

A recurrent network becomes a plain chain of blocks that way: each takes its chunk of steps from the front of the row
and changes the state at its end. Dropping a chunk instead is a slice, which costs nothing. What exits see of the row is
the state alone, so that none sees the future; what gates see is the state and a cheap summary of the next chunk.

    [ unread steps ... | cell state (LSTM) | hidden state ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import AbstractChunk
from .encoders import AbstractEncoder

ABSENT = -1e4  # score of a chunk that holds nothing


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
        encoder = reader.encoder
        assert isinstance(encoder, AbstractEncoder)
        self.reader = reader
        self.steps = steps
        self.width = width
        self.taken = steps * width
        self.pads = encoder.pads

    def forward(self, x: Tensor) -> Tensor:
        """The rest of the row with the new state."""
        state = self.reader.state
        steps = x[:, : self.taken].reshape(-1, self.steps, self.width)
        return torch.cat([x[:, self.taken : -state], self.reader(steps, x[:, -state:])], 1)

    def presence(self) -> nn.Module:
        """Looks at the first step of the chunk: padding stands at the end of an input."""
        return Presence()

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
class Presence(nn.Module):
    """Whether there is anything to read: a row begins with its first word's id, or its first step's presence."""

    def forward(self, x: Tensor) -> Tensor:
        """`b x f` -> logits `b x 2`, that of reading above 0 where the first step is present."""
        ahead = x[:, :1] - 0.5
        return torch.cat([torch.zeros_like(ahead), ahead], 1)


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


@final
class Sampler(nn.Module):
    """Scores several chunks by glimpses of them, before any is read.

    Args:
        chunks: in order, all of one size but perhaps the last.
        start: where the first of them begins in the row.
        hidden: size of its hidden layer.
    """

    def __init__(self, chunks: Sequence[ReadChunk], start: int, hidden: int) -> None:
        super().__init__()
        encoder = chunks[0].reader.encoder
        assert isinstance(encoder, AbstractEncoder)
        self.encoder = encoder
        self.width = chunks[0].width
        self.pads = encoder.pads
        self.starts = tuple(start + sum(each.taken for each in chunks[:i]) for i in range(len(chunks)))
        self.equal = sum(each.taken == chunks[0].taken for each in chunks)
        self.taken, self.last = chunks[0].taken, chunks[-1].taken
        with torch.no_grad():
            size = encoder.summary(torch.zeros(1, chunks[0].steps, self.width)).shape[1]
        self.score = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`b x f` -> scores `b x chunks`; a chunk of padding is far behind."""
        first, batch = self.starts[0], x.shape[0]
        same = x[:, first : first + self.equal * self.taken].reshape(batch * self.equal, -1, self.width)
        glimpses = self.encoder.summary(same).view(batch, self.equal, -1)
        if self.equal < len(self.starts):
            rest = x[:, self.starts[-1] : self.starts[-1] + self.last].reshape(batch, -1, self.width)
            glimpses = torch.cat([glimpses, self.encoder.summary(rest).unsqueeze(1)], 1)
        scores: Tensor = self.score(glimpses).squeeze(2)
        return scores.masked_fill(x[:, list(self.starts)] <= 0, ABSENT) if self.pads else scores


def chunk_sizes(steps: int, chunks: int) -> tuple[int, ...]:
    """Sizes of at most so many chunks, all equal but a shorter last one."""
    size = -(-steps // chunks)
    return tuple(min(size, steps - start) for start in range(0, steps, size))
