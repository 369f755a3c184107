"""Sequences and clips of unequal length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dynarch.evaluators.augmentation import augment
from dynarch.evaluators.data import from_clips, from_sequences
from dynarch.spaces.errors import DataError
from dynarch.spaces.signature import Signature

TWO = [np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([[7.0, 8]])]


def test_sequences_are_padded_and_say_where_they_end() -> None:
    data = from_sequences(TWO, [0, 1])
    assert data.x.tolist() == [[[1, 1, 2], [1, 3, 4], [1, 5, 6]], [[1, 7, 8], [0, 0, 0], [0, 0, 0]]]
    assert data.signature == Signature((3, 3), 2, "sequence")
    assert str(data.x.dtype) == "float32"
    one = from_sequences([[1.0, 2.0], torch.tensor([3.0])], [0, 1])  # one channel
    assert one.x.tolist() == [[[1, 1], [1, 2]], [[1, 3], [0, 0]]]


def test_sequences_are_cut_and_slowed_down() -> None:
    assert from_sequences(TWO, [0, 1], length=2).x[0].tolist() == [[1, 1, 2], [1, 3, 4]]
    assert from_sequences(TWO, [0, 1], length=99).x.shape == (2, 3, 3)
    # Means of steps 1 and 2, and of what is left; then cut.
    assert from_sequences(TWO, [0, 1], stride=2).x[0].tolist() == [[1, 2, 3], [1, 5, 6]]
    assert from_sequences(TWO, [0, 1], stride=2, length=1).x.tolist() == [[[1, 2, 3]], [[1, 7, 8]]]


def test_a_longer_test_set_sets_the_length() -> None:
    data = from_sequences([[1.0], [2.0]], [0, 1], sequences_test=[[1.0, 2, 3]], y_test=[0])
    assert data.x.shape == (2, 3, 2)
    assert data.x_test is not None
    assert data.x_test.tolist() == [[[1, 1], [1, 2], [1, 3]]]


def test_clips_are_resampled_evenly() -> None:
    long = np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((8, 2, 3, 3), np.float32)
    short = long[:2]
    data = from_clips([long, short], [0, 1], frames=4)
    # Middles of four quarters of 8 frames: 1, 3, 5, 7; of 2 frames: 0.25, 0.75, 1.25, 1.75, each frame twice.
    assert data.x[:, :, 0, 0, 0].tolist() == [[1, 3, 5, 7], [0, 0, 1, 1]]
    assert data.signature == Signature((4, 2, 3, 3), 2, "clip")
    grey = from_clips([np.full((5, 3, 3), 255, np.uint8), np.zeros((2, 3, 3), np.uint8)], [0, 1], frames=2)
    assert grey.x.shape == (2, 2, 1, 3, 3)
    assert (grey.x.min(), grey.x.max()) == (0, 1)


REFUSED: tuple[tuple[Callable[[], object], str, str], ...] = (
    (lambda: from_sequences([[1.0], []], [0, 1]), "data.x.1", "must be n x ... with n >= 1"),
    (lambda: from_sequences([[1.0], [np.nan]], [0, 1]), "data.x.1", "must be finite"),
    (lambda: from_sequences([TWO[0], TWO[0][:, :1]], [0, 1]), "data.x", "channels must have one shape, but got [(1,)"),
    (lambda: from_sequences([np.zeros((2, 2, 2))], [0]), "data.x.0", "must have 2 dimensions, time first"),
    (lambda: from_sequences([[[1.0], [1.0, 2.0]], [1.0]], [0, 1]), "data.x.0", "must be a rectangular array"),
    (lambda: from_sequences([], []), "data.x", "must be a list of arrays, not empty"),
    (lambda: from_sequences(3, [0]), "data.x", "must be a list of arrays, not empty"),
    (lambda: from_sequences(TWO, [0, 1], stride=0), "data.stride", "must be at least 1, but got 0"),
    (lambda: from_sequences(TWO, [0, 1], length=0), "data.length", "must be at least 1, but got 0"),
    (lambda: from_sequences(TWO, [0, 1], y_test=[0]), "data", "x_test and y_test must be given together"),
    (lambda: from_sequences(TWO, [0]), "data", "needs one label an input"),
    (lambda: from_clips([np.zeros((2, 1, 3, 3)), np.zeros((2, 1, 4, 3))], [0, 1]), "data.x", "frames must have one sh"),
    (lambda: from_clips([np.zeros((2, 3))], [0]), "data.x.0", "must have 4 dimensions, time first"),
    (lambda: from_clips([np.zeros((2, 3, 3))] * 2, [0, 1], frames=0), "data.frames", "must be at least 1"),
)


@pytest.mark.parametrize(("make", "path", "message"), REFUSED)
def test_bad_sequences_are_refused_with_place_and_rule(make: Callable[[], object], path: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.path == path
    assert caught.value.message.startswith(message)


def test_only_images_are_augmented() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 8), (3, 8, 4), (3, 4, 1, 8, 8)):  # texts, sequences, clips
        x = torch.rand(shape)
        assert torch.equal(augment(x, generator, shift=2, flip=True), x)
