"""Data from arrays, tensors and datasets of inputs of one shape."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol, cast, runtime_checkable

import numpy as np

from ...spaces.errors import DataError
from .checks import labels, numbers, plain
from .data import Array, Data, checked, paired_test


@runtime_checkable
class MapDataset(Protocol):
    """A `torch.utils.data.Dataset` with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[object, object]: ...


def from_arrays(
    x: object,
    y: object,
    *,
    x_test: object | None = None,
    y_test: object | None = None,
    name: str = "arrays",
    path: str = "data",
) -> Data:
    """Checked data from arrays or tensors.

    Grey images `n x height x width` get a channel dimension; bytes are scaled to `[0, 1]`.

    Raises:
        DataError: for labels out of range, NaN or infinite inputs, lengths that differ, fewer than two classes.
    """
    paired_test(x_test, y_test, path)
    return checked(
        _images(x, f"{path}.x"),
        labels(y, f"{path}.y"),
        x_test=None if x_test is None else _images(x_test, f"{path}.x_test"),
        y_test=None if y_test is None else labels(y_test, f"{path}.y_test"),
        name=name,
        path=path,
    )


def from_dataset(dataset: object, *, test: object | None = None, name: str = "dataset", path: str = "data") -> Data:
    """All items `(input, label)` of a `torch.utils.data.Dataset` that has a length.

    Raises:
        DataError: if it has no length, is empty, or its inputs differ in shape.
    """
    x, y = _items(dataset, path)
    x_test, y_test = (None, None) if test is None else _items(test, f"{path}.test")
    return from_arrays(x, y, x_test=x_test, y_test=y_test, name=name, path=path)


def _images(value: object, path: str) -> Array:
    array = numbers(value, path)
    return array.reshape(len(array), 1, *array.shape[1:]) if array.ndim == 3 else array


def _items(dataset: object, path: str) -> tuple[Array, Array]:
    if not isinstance(dataset, Sized) or len(dataset) == 0:
        raise DataError(path, "must be a dataset with a length above 0; convert an iterable dataset to arrays")
    items = cast(MapDataset, dataset)
    pairs = [items[index] for index in range(len(dataset))]
    for index, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(path, f"items must be pairs (input, label), but number {index} is {type(pair).__name__}")
    inputs = [plain(x, path) for x, _ in pairs]
    shapes = {x.shape for x in inputs}
    if len(shapes) > 1:
        raise DataError(path, f"inputs must have one shape, but got {sorted(map(str, shapes))[:3]}; resize or pad them")
    return np.stack(inputs), plain([plain(y, f"{path}.y") for _, y in pairs], f"{path}.y")
