"""Networks that read in chunks: padding, state, what exits and gates see, and work by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.backbone import Backbone, Signature, outline
from dynarch.spaces.backbones.frame_recurrent import FrameRecurrent, FrameRecurrentChoice
from dynarch.spaces.backbones.recurrent import CELLS, Recurrent, RecurrentChoice
from dynarch.spaces.encoders import AbstractEncoder, StepEncoder, TextEncoder
from dynarch.spaces.errors import ShapeError, SpecError
from dynarch.spaces.packed import ReadChunk, chunk_sizes
from dynarch.spaces.signature import random_inputs

SEQUENCE = Signature((7, 1 + 2), 3, "sequence")
TEXT = Signature((7,), 3, "text", 9)
CLIP = Signature((5, 1, 8, 8), 3, "clip")
HIDDEN = 4


def built(signature: Signature, *, cell: str = "gru", chunks: int = 3, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    if signature.kind == "clip":
        return FrameRecurrent.build(FrameRecurrentChoice(2, HIDDEN, chunks), signature).eval()
    return Recurrent.build(RecurrentChoice(HIDDEN, cell, chunks), signature).eval()


def chunk(backbone: Backbone, number: int) -> ReadChunk:
    made = backbone.blocks[number]
    assert isinstance(made, ReadChunk)
    return made


def test_chunks_are_equal_but_the_last() -> None:
    assert chunk_sizes(7, 3) == (3, 3, 1)
    assert chunk_sizes(6, 3) == (2, 2, 2)
    assert chunk_sizes(7, 1) == (7,)
    assert chunk_sizes(3, 8) == (1, 1, 1)
    assert chunk_sizes(28, 8) == (4,) * 7


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("signature", [SEQUENCE, TEXT], ids=["sequence", "text"])
def test_chunks_change_nothing(signature: Signature, cell: str) -> None:
    x = random_inputs(signature, 20, torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = [built(signature, cell=cell, chunks=chunks)(x) for chunks in (1, 2, 3, 7)]
    for each in answers[1:]:
        torch.testing.assert_close(each, answers[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_as_if_it_were_not_there(cell: str) -> None:
    """The reference is the cell run over the present steps alone."""
    network = built(SEQUENCE, cell=cell)
    reader, x = chunk(network, 0).reader, random_inputs(SEQUENCE, 12, torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = network(x)
        for row, alone in zip(x, logits, strict=True):
            steps = row[: int(row[:, 0].sum()), 1:].unsqueeze(0)
            last = reader.rnn(steps)[0][:, -1]
            torch.testing.assert_close(network.head[1](last)[0], alone, rtol=0, atol=1e-5)  # type: ignore[index]


def test_a_row_holds_what_is_unread_and_the_state() -> None:
    network = built(SEQUENCE, cell="lstm")
    x = random_inputs(SEQUENCE, 2)
    features: Tensor = network.stem(x)
    assert features.shape == (2, 7 * 3 + 2 * HIDDEN)
    assert torch.equal(features[:, :21], x.flatten(1))
    assert not features[:, 21:].any()
    with torch.no_grad():
        after = network.blocks[0](features)
    assert torch.equal(after[:, :12], x[:, 3:].flatten(1)), "the chunk is gone from the front"
    assert network.view(after).shape == (2, HIDDEN)
    assert bool(network.view(after).any())
    dropped = chunk(network, 0).dropped()(features)
    assert torch.equal(dropped, features[:, 9:])
    assert dropped.data_ptr() == features.data_ptr() + 9 * features.element_size(), "dropping is a view"


def test_exits_do_not_see_the_future_and_gates_see_one_chunk_of_it() -> None:
    network = built(SEQUENCE)
    x = random_inputs(SEQUENCE, 1)
    x[:, :, 0] = 1
    later = x.clone()
    later[:, 6, 1:] += 5  # the last of three chunks
    with torch.no_grad():
        one, other = (network.blocks[0](network.stem(each)) for each in (x, later))
        assert torch.equal(network.view(one), network.view(other))
        assert torch.equal(network.peek(one), network.peek(other))
        one, other = network.blocks[1](one), network.blocks[1](other)
    assert torch.equal(network.view(one), network.view(other))
    assert not torch.equal(network.peek(one), network.peek(other))


def test_summaries_by_hand() -> None:
    # Steps (1, 3) and (3, 5), one padded: their mean, and a share of two thirds.
    steps = torch.tensor([[[1.0, 1, 3], [1, 3, 5], [0, 0, 0]], [[0, 0, 0]] * 3])
    encoder: AbstractEncoder = StepEncoder(2)
    torch.testing.assert_close(encoder.summary(steps), torch.tensor([[2, 4, 2 / 3], [0, 0, 0]]))
    words = TextEncoder(4, 2)
    with torch.no_grad():
        words.embedding.weight.copy_(torch.tensor([[9.0, 9], [1, 1], [2, 0], [4, 2]]))
        summary = words.summary(torch.tensor([[[2.0], [3], [0], [0]]]))
    assert summary.tolist() == [[3, 1, 0.5]]


@pytest.mark.parametrize("signature", [SEQUENCE, TEXT, CLIP], ids=["sequence", "text", "clip"])
def test_a_small_reader_changes_the_first_numbers_of_the_state(signature: Signature) -> None:
    network = built(signature, cell="lstm")
    torch.manual_seed(1)
    first = chunk(network, 0)
    small = first.read_by(first.small(0.5)).eval()
    features = network.stem(random_inputs(signature, 3))
    features[:, -8:] = torch.arange(8.0) / 8
    with torch.no_grad():
        before, after = features[:, -8:], small(features)[:, -8:]
    size = first.reader.state
    changed = (before != after).any(0).view(-1, HIDDEN)[-(size // HIDDEN) :]
    assert changed.tolist() == [[True, True, False, False]] * (size // HIDDEN)


def test_work_by_hand() -> None:
    # A GRU has three gates, each of (2 + 4) x 4 weights, an LSTM four; 7 steps in chunks of 3, 3, 1.
    for cell, gates in (("gru", 3), ("lstm", 4)):
        made = outline(built(SEQUENCE, cell=cell), SEQUENCE)
        assert made.block_macs == tuple(steps * gates * (2 + 4) * 4 for steps in (3, 3, 1))
    assert made.chunks == (0, 1, 2)
    assert made.stages == (3,)
    # A frame of 8 x 8: convolutions of 3 x 3 on 1, 2, 4 channels to 2, 4, 8, with sides 4, 2, 1; then the GRU.
    frame = 16 * 9 * 1 * 2 + 4 * 9 * 2 * 4 + 1 * 9 * 4 * 8 + 3 * (8 + 4) * 4
    assert outline(built(CLIP), CLIP).block_macs == (2 * frame, 2 * frame, frame)


def test_one_chunk_is_one_call() -> None:
    calls: list[int] = []
    network = built(TEXT, chunks=1)
    for module in network.modules():
        if isinstance(module, nn.GRU):
            module.register_forward_hook(lambda *_: calls.append(1))
    network(random_inputs(TEXT, 2))
    assert calls == [1]


def test_chunks_share_their_weights() -> None:
    for signature in (SEQUENCE, TEXT, CLIP):
        one, many = built(signature, chunks=1), built(signature, chunks=3)
        assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in many.parameters())


def test_small_frames_are_refused_with_a_remedy() -> None:
    with pytest.raises(ShapeError, match="frames must be 8 x 8 or larger, but are 8 x 7"):
        FrameRecurrent.build(FrameRecurrentChoice(2, 4, 1), Signature((3, 1, 8, 7), 3, "clip"))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Recurrent(width=(0,)), "width"),
        (lambda: Recurrent(cell=("rnn",)), "cell.0"),
        (lambda: Recurrent(chunks=()), "chunks"),
        (lambda: Recurrent(chunks=(0, 2)), "chunks"),
        (lambda: RecurrentChoice(4, "elman", 2), "cell"),
        (lambda: RecurrentChoice(4, "gru", 0), "chunks"),
        (lambda: FrameRecurrent(state=(4, 4)), "state"),
        (lambda: FrameRecurrentChoice(4, 0, 2), "state"),
    ],
)
def test_impossible_ranges_name_the_field(make: object, path: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.path == path


def test_descriptions() -> None:
    assert Recurrent.describe(RecurrentChoice(32, "lstm", 8)) == "lstm w32 c8"
    assert FrameRecurrent.describe(FrameRecurrentChoice(8, 32, 4)) == "frames w8 s32 c4"
