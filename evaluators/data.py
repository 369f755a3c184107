"""Data: where inputs and labels come from, and the rules they must obey before anything trains."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..spaces.backbone import Signature
from ..spaces.errors import DataError, SpecError

Array = NDArray[Any]
_NPZ_KEYS = (("x", "y"), ("x_train", "y_train"), ("train_x", "train_y"))
_NPZ_TEST_KEYS = (("x_test", "y_test"), ("test_x", "test_y"))


@final
@dataclass(frozen=True, eq=False)
class Data:
    """Checked inputs and labels.

    Args:
        x: `n x ...` float32 inputs; images as `n x channels x height x width`.
        y: `n` int64 class indices.
        classes: number of classes.
        x_test, y_test: a test set that comes with the data; None: a test split is cut off.
        name: for reports.
    """

    x: Array
    y: Array
    classes: int
    x_test: Array | None = None
    y_test: Array | None = None
    name: str = "arrays"

    @property
    def signature(self) -> Signature:
        """What networks for this data take and give."""
        return Signature(tuple(self.x.shape[1:]), self.classes)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of content."""
        digest = hashlib.sha256()
        for array in (self.x, self.y, self.x_test, self.y_test):
            if array is not None:
                digest.update(str((array.shape, array.dtype)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


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
    inputs, labels = _inputs(x, f"{path}.x"), _labels(y, f"{path}.y")
    _same_length(inputs, labels, path)
    if (x_test is None) != (y_test is None):
        raise DataError(path, "x_test and y_test must be given together")
    inputs_test = None if x_test is None else _inputs(x_test, f"{path}.x_test")
    labels_test = None if y_test is None else _labels(y_test, f"{path}.y_test")
    classes = int(labels.max()) + 1
    if classes < 2:
        raise DataError(f"{path}.y", "must hold at least two classes, but every label is 0")
    missing = sorted(set(range(classes)) - set(np.unique(labels).tolist()))
    if missing:
        raise DataError(
            f"{path}.y",
            f"labels must be 0 .. {classes - 1}, each present, but {missing[:5]} never occur; renumber them",
        )
    if inputs_test is not None and labels_test is not None:
        _same_length(inputs_test, labels_test, f"{path}.x_test")
        if inputs_test.shape[1:] != inputs.shape[1:]:
            raise DataError(f"{path}.x_test", f"must have inputs of {inputs.shape[1:]}, got {inputs_test.shape[1:]}")
        if labels_test.max() >= classes:
            raise DataError(f"{path}.y_test", f"labels must be below {classes}, but got {labels_test.max()}")
    return Data(inputs, labels, classes, inputs_test, labels_test, name)


def digits() -> Data:
    """The embedded default: 1,797 handwritten digits of 8 x 8 pixels.

    Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository 1998,
        as it ships with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return from_arrays((bunch.images / 16).astype(np.float32), bunch.target, name="digits")


def from_npz(file: str | Path, *, path: str = "data.file") -> Data:
    """Arrays `x, y` (or `x_train, y_train`) and perhaps `x_test, y_test` of an `.npz` file; nothing is unpickled.

    Raises:
        DataError: if the file cannot be read or lacks these arrays.
    """
    try:
        # By its name numpy would take a single array or a pickle for what they are; an archive is asked for.
        with zipfile.ZipFile(file) as archive:
            present = {Path(name).stem for name in archive.namelist() if name.endswith(".npy")}
        pair = next((keys for keys in _NPZ_KEYS if set(keys) <= present), None)
        test = next((keys for keys in _NPZ_TEST_KEYS if set(keys) <= present), None)
        with np.load(file, allow_pickle=False) as archive:
            arrays = [archive[key] for key in (*(pair or ()), *(test or ()))]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{error or type(error).__name__}".splitlines()[0]
        raise DataError(path, f"{file} cannot be read as .npz without pickle ({reason})") from None
    if pair is None:
        raise DataError(path, f"{file} must hold arrays x and y (or x_train and y_train), but has {sorted(present)}")
    x_test, y_test = arrays[2:] if test else (None, None)
    return from_arrays(arrays[0], arrays[1], x_test=x_test, y_test=y_test, name=Path(file).stem, path=path)


def from_dataset(dataset: object, *, test: object | None = None, name: str = "dataset", path: str = "data") -> Data:
    """All items `(input, label)` of a `torch.utils.data.Dataset` that has a length.

    Raises:
        DataError: if it has no length, is empty, or its inputs differ in shape.
    """
    x, y = _items(dataset, path)
    x_test, y_test = (None, None) if test is None else _items(test, f"{path}.test")
    return from_arrays(x, y, x_test=x_test, y_test=y_test, name=name, path=path)


def load_data(source: object, *, path: str = "data") -> Data:
    """Data from whatever a user has: a name, a file, arrays, a dataset, or `Data` itself.

    Raises:
        SpecError: if it is none of these.
        DataError: if it cannot be trained on.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, str) and source == "digits":
        return digits()
    if isinstance(source, str | Path):
        if Path(source).suffix == ".npz":
            return from_npz(source, path=path)
        raise SpecError(path, f"must be 'digits' or the path of an .npz file, but got {str(source)!r}")
    if isinstance(source, tuple) and len(source) in (2, 4):
        test = source[2:] if len(source) == 4 else (None, None)
        return from_arrays(source[0], source[1], x_test=test[0], y_test=test[1], path=path)
    if isinstance(source, MapDataset) and not isinstance(source, Mapping):
        return from_dataset(source, path=path)
    raise SpecError(
        path,
        "must be a name, an .npz file, (x, y) arrays or a torch Dataset with a length,"
        f" but got {type(source).__name__}",
    )


def _items(dataset: object, path: str) -> tuple[Array, Array]:
    if not isinstance(dataset, Sized) or len(dataset) == 0:
        raise DataError(path, "must be a dataset with a length above 0; convert an iterable dataset to arrays")
    items = cast(MapDataset, dataset)
    pairs = [items[index] for index in range(len(dataset))]
    for index, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(path, f"items must be pairs (input, label), but number {index} is {type(pair).__name__}")
    inputs = [_plain(x, path) for x, _ in pairs]
    shapes = {x.shape for x in inputs}
    if len(shapes) > 1:
        raise DataError(path, f"inputs must have one shape, but got {sorted(map(str, shapes))[:3]}; resize or pad them")
    return np.stack(inputs), _plain([_plain(y, f"{path}.y") for _, y in pairs], f"{path}.y")


def _plain(value: object, path: str) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value  # numpy has no such type
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype == object:
        raise DataError(path, "must be a rectangular array of numbers, but its rows differ in shape or type")
    return array


def _inputs(value: object, path: str) -> Array:
    array = _plain(value, path)
    if array.ndim < 2 or array.shape[0] == 0:
        raise DataError(path, f"must be n x ... with n >= 1, but has shape {array.shape}")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(path, f"must hold numbers, but holds {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is found so
        array = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
    if bad.size:
        raise DataError(path, f"must be finite, but {bad.size} inputs are not (first: number {bad[0]}); clean them")
    return array.reshape(len(array), 1, *array.shape[1:]) if array.ndim == 3 else array


def _labels(value: object, path: str) -> Array:
    array = _plain(value, path)
    if array.ndim != 1 or array.shape[0] == 0:
        raise DataError(path, f"must be n class indices, but has shape {array.shape}")
    real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not real or not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise DataError(path, "must be whole numbers 0 .. classes - 1")
    if array.min() < 0:
        raise DataError(path, f"labels must be 0 .. classes - 1, but got {array.min()}")
    return array.astype(np.int64)


def _same_length(x: Array, y: Array, path: str) -> None:
    if len(x) != len(y):
        raise DataError(path, f"needs one label an input, but has {len(x)} inputs and {len(y)} labels")
