"""Folders of images: idx files, as MNIST and its relatives come, and pictures sorted into one folder a class."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...spaces.errors import DataError
from .arrays import from_arrays
from .data import Data

_UNSIGNED_BYTE: Final = 8  # type code of the format
_TRAIN: Final = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST: Final = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_PICTURES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TRAIN_FOLDERS: Final = ("train", "training")
_TEST_FOLDERS: Final = ("test", "val", "validation")


def from_folder(folder: str | Path, *, size: int | None = None, path: str = "data.file") -> Data:
    """Images of a folder, and its test set if there is one.

    Either the four idx files of MNIST and its relatives, plain or gzipped, or pictures (PNG, JPEG, BMP, WebP) at
    `train/CLASS/*` and perhaps `test/CLASS/*` (also `val`), or at `CLASS/*`. Classes are numbered in the order of
    their names.

    Args:
        folder: to read.
        size: pixels of a side that pictures are resized to; None: all have one size.
        path: of the folder in the spec.

    Raises:
        DataError: if a file cannot be read, or there are no images.
    """
    place = Path(folder)
    if _idx(place, _TRAIN[0]) is not None:
        if size is not None:
            raise DataError(f"{path}.size", "does not apply to idx files, whose images have one size; leave it out")
        return _from_idx(place, path)
    return _from_pictures(place, size, path)


def read_idx(file: Path, path: str) -> NDArray[np.uint8]:
    """The array of an idx file of bytes: two zeros, type code, rank, then sizes as big-endian integers.

    Raises:
        DataError: if it cannot be read or is no such file.
    """
    try:
        raw = file.read_bytes()
        raw = gzip.decompress(raw) if file.suffix == ".gz" else raw
        if raw[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
            raise ValueError("it is no idx file of unsigned bytes")
        sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4).tolist()
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(path, f"{file} cannot be read as idx ({error}); download it again") from None


def _from_idx(folder: Path, path: str) -> Data:
    arrays = []
    for name in (*_TRAIN, *(_TEST if _idx(folder, _TEST[0]) is not None else ())):
        file = _idx(folder, name)
        if file is None:
            raise DataError(path, f"{folder} lacks the file {name}.gz beside {_TRAIN[0]}; add it")
        arrays.append(read_idx(file, path))
    x, y, *test = arrays
    x_test, y_test = test or (None, None)
    return from_arrays(x, y, x_test=x_test, y_test=y_test, name=folder.resolve().name, path=path)


def _idx(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _from_pictures(folder: Path, size: int | None, path: str) -> Data:
    train = next((folder / name for name in _TRAIN_FOLDERS if (folder / name).is_dir()), None)
    test = next((folder / name for name in _TEST_FOLDERS if train and (folder / name).is_dir()), None)
    names = _classes(train or folder)
    if len(names) < 2:
        raise DataError(path, f"{folder} must hold idx files, or pictures in a folder for each of at least two classes")
    if test is not None and not set(_classes(test)) <= set(names):
        extra = sorted(set(_classes(test)) - set(names))
        raise DataError(path, f"{test} has classes that are not trained on: {', '.join(extra[:3])}; remove them")
    x, y = _pictures(train or folder, names, size, path)
    x_test, y_test = (None, None) if test is None else _pictures(test, names, size, path)
    return from_arrays(x, y, x_test=x_test, y_test=y_test, name=folder.resolve().name, path=path)


def _classes(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.is_dir() and _files(each))
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)


def _pictures(folder: Path, names: list[str], size: int | None, path: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels `n x 3 x height x width` and classes."""
    made: list[NDArray[np.uint8]] = []
    y: list[int] = []
    for label, name in enumerate(names):
        for file in _files(folder / name) if (folder / name).is_dir() else ():
            made.append(_pixels(file, size, path))
            y.append(label)
            if made[-1].shape != made[0].shape:
                shapes = f"{made[0].shape[1:]} and {made[-1].shape[1:]}"
                raise DataError(path, f"{file}: pictures must have one size, but these have {shapes}; set size")
    return np.stack(made), y


def _pixels(file: Path, size: int | None, path: str) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
            picture = picture if size is None else picture.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture, np.uint8).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(path, f"{file} cannot be read as a picture ({error}); repair or remove it") from None
