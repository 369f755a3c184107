"""Sequences and clips of unequal length."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...spaces.errors import DataError
from .checks import labels, numbers, plain
from .data import Array, Data, checked, paired_test


def from_sequences(
    sequences: object,
    y: object,
    *,
    sequences_test: object | None = None,
    y_test: object | None = None,
    length: int | None = None,
    stride: int = 1,
    name: str = "sequences",
    path: str = "data",
) -> Data:
    """Checked data from sequences, padded at the end to one length; channel 0 says which steps are present.

    Args:
        sequences, sequences_test: `n` arrays `steps x channels`, or `steps` of one channel.
        y, y_test: `n` class indices.
        length: steps that are kept, from the start; None: as many as the longest has.
        stride: so many steps in a row become one, their mean; the last one is of what is left.

    Raises:
        DataError: for empty sequences, channels that differ, NaN, labels out of range, lengths that differ.
    """
    paired_test(sequences_test, y_test, path)
    _positive(length, f"{path}.length")
    _positive(stride, f"{path}.stride")
    found = [_pooled(each, stride) for each in _arrays(sequences, 2, f"{path}.x")]
    tests = None if sequences_test is None else _arrays(sequences_test, 2, f"{path}.x_test")
    pooled = None if tests is None else [_pooled(each, stride) for each in tests]
    _same_shape([each.shape[1:] for each in (*found, *(pooled or ()))], "channels", path)
    longest = max(len(each) for each in (*found, *(pooled or ())))
    length = longest if length is None else min(length, longest)
    return checked(
        padded(found, length),
        labels(y, f"{path}.y"),
        x_test=None if pooled is None else padded(pooled, length),
        y_test=None if y_test is None else labels(y_test, f"{path}.y_test"),
        name=name,
        path=path,
        kind="sequence",
    )


def from_clips(
    clips: object,
    y: object,
    *,
    clips_test: object | None = None,
    y_test: object | None = None,
    frames: int = 16,
    name: str = "clips",
    path: str = "data",
) -> Data:
    """Checked data from clips, each resampled to so many frames, spread evenly over it.

    Args:
        clips, clips_test: `n` arrays `frames x channels x height x width`, or `frames x height x width` of grey ones;
            bytes are scaled to `[0, 1]`.
        y, y_test: `n` class indices.
        frames: of every clip; shorter clips repeat some.

    Raises:
        DataError: for empty clips, frames that differ in shape, NaN, labels out of range, lengths that differ.
    """
    paired_test(clips_test, y_test, path)
    _positive(frames, f"{path}.frames")
    found = [_resampled(each, frames) for each in _arrays(clips, 4, f"{path}.x")]
    tests = None if clips_test is None else _arrays(clips_test, 4, f"{path}.x_test")
    resampled = None if tests is None else [_resampled(each, frames) for each in tests]
    _same_shape([each.shape[1:] for each in (*found, *(resampled or ()))], "frames", path)
    return checked(
        np.stack(found),
        labels(y, f"{path}.y"),
        x_test=None if resampled is None else np.stack(resampled),
        y_test=None if y_test is None else labels(y_test, f"{path}.y_test"),
        name=name,
        path=path,
        kind="clip",
    )


def padded(sequences: list[Array], length: int) -> Array:
    """`n x length x (1 + channels)`: presence and channels, zeros where a sequence has ended."""
    made = np.zeros((len(sequences), length, 1 + sequences[0].shape[1]), np.float32)
    for row, each in zip(made, sequences, strict=True):
        steps = min(length, len(each))
        row[:steps, 0] = 1
        row[:steps, 1:] = each[:steps]
    return made


def _arrays(value: object, dimensions: int, path: str) -> list[Array]:
    """Arrays of one input each; a missing channel dimension is added."""
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else []
    if not items:
        raise DataError(path, "must be a list of arrays, not empty")
    made = []
    for number, item in enumerate(items):
        place = f"{path}.{number}"
        array = _steps(item, place)
        if array.ndim == dimensions - 1:
            array = np.expand_dims(array, 1)
        if array.ndim != dimensions:
            raise DataError(place, f"must have {dimensions} dimensions, time first, but has the shape {array.shape}")
        made.append(array)
    return made


def _steps(item: object, path: str) -> Array:
    """Finite numbers, time first."""
    array = plain(item, path)
    return numbers(array[:, None], path)[:, 0] if array.ndim == 1 else numbers(array, path)


def _pooled(sequence: Array, stride: int) -> Array:
    if stride == 1:
        return sequence
    starts = np.arange(0, len(sequence), stride)
    sums = np.add.reduceat(sequence, starts)
    made: Array = sums / np.diff([*starts, len(sequence)])[:, None].astype(np.float32)
    return made


def _resampled(clip: Array, frames: int) -> Array:
    """Frames at the middles of so many equal stretches."""
    made: Array = clip[((np.arange(frames) + 0.5) * len(clip) / frames).astype(np.int64)]
    return made


def _same_shape(shapes: list[tuple[int, ...]], what: str, path: str) -> None:
    if len(set(shapes)) > 1:
        raise DataError(f"{path}.x", f"{what} must have one shape, but got {sorted(set(shapes))[:3]}")


def _positive(value: int | None, path: str) -> None:
    if value is not None and value < 1:
        raise DataError(path, f"must be at least 1, but got {value}")
