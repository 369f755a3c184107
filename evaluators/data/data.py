"""Data: checked inputs and labels, whatever they came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import DataError
from ...spaces.signature import Signature

Array = NDArray[Any]


@final
@dataclass(frozen=True, eq=False)
class Data:
    """Checked inputs and labels.

    Args:
        x: `n x ...` float32 inputs, as `Signature` says for their kind; images as `n x channels x height x width`.
        y: `n` int64 class indices.
        classes: number of classes.
        x_test, y_test: a test set that comes with the data; None: a test split is cut off.
        name: for reports.
        kind: `image`, `text`, `sequence` or `clip`.
        words: of texts: the word of each id, from id 2 on; 0 is padding, 1 any word that is not among them.
    """

    x: Array
    y: Array
    classes: int
    x_test: Array | None = None
    y_test: Array | None = None
    name: str = "arrays"
    kind: str = "image"
    words: tuple[str, ...] | None = None

    @property
    def signature(self) -> Signature:
        """What networks for this data take and give."""
        vocabulary = None if self.words is None else len(self.words) + 2
        return Signature(tuple(self.x.shape[1:]), self.classes, self.kind, vocabulary)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of content."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.x_test, self.y_test):
            if array is not None:
                digest.update(str((array.shape, array.dtype)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        if self.kind != "image":  # images keep the id that they had before there were other kinds
            digest.update(json.dumps([self.kind, self.words]).encode())
        return digest.hexdigest()[:16]


def checked(
    x: Array,
    y: Array,
    *,
    x_test: Array | None,
    y_test: Array | None,
    name: str,
    path: str,
    kind: str = "image",
    words: tuple[str, ...] | None = None,
) -> Data:
    """Data whose labels suit the inputs and each other.

    Args:
        x, x_test: as `Data` has them.
        y, y_test: int64, none negative.

    Raises:
        DataError: for lengths or shapes that differ, labels that leave gaps, fewer than two classes.
    """
    _same_length(x, y, path)
    classes = int(y.max()) + 1
    if classes < 2:
        raise DataError(f"{path}.y", "must hold at least two classes, but every label is 0")
    missing = sorted(set(range(classes)) - set(np.unique(y).tolist()))
    if missing:
        raise DataError(
            f"{path}.y",
            f"labels must be 0 .. {classes - 1}, each present, but {missing[:5]} never occur; renumber them",
        )
    if x_test is not None and y_test is not None:
        _same_length(x_test, y_test, f"{path}.x_test")
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(f"{path}.x_test", f"must have inputs of {x.shape[1:]}, got {x_test.shape[1:]}")
        if y_test.max() >= classes:
            raise DataError(f"{path}.y_test", f"labels must be below {classes}, but got {y_test.max()}")
    return Data(x, y, classes, x_test, y_test, name, kind, words)


def paired_test(x_test: object | None, y_test: object | None, path: str) -> None:
    """Raise unless a test set is whole.

    Raises:
        DataError: if only inputs or only labels are given.
    """
    if (x_test is None) != (y_test is None):
        raise DataError(path, "x_test and y_test must be given together")


def _same_length(x: Array, y: Array, path: str) -> None:
    if len(x) != len(y):
        raise DataError(path, f"needs one label an input, but has {len(x)} inputs and {len(y)} labels")
