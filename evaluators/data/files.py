"""Files of data: `.npz` archives of arrays and `.tsv` tables of texts; nothing in them is unpickled."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from ...spaces.errors import DataError
from .arrays import from_arrays
from .checks import labels, plain
from .data import Array, Data
from .sequences import from_clips, from_sequences
from .texts import from_texts

_PAIRS = (("x", "y"), ("x_train", "y_train"), ("train_x", "train_y"), ("frames", "y"))
_TEST_PAIRS = (("x_test", "y_test"), ("test_x", "test_y"))
ABOUT = "about"  # of an archive that we wrote: kind and words, as JSON in bytes


@final
class _Archive:
    """An `.npz` file; members are read when they are asked for.

    Args:
        file: to read.
        path: of the file in the spec.
    """

    def __init__(self, file: str | Path, path: str) -> None:
        self._file, self._path = file, path
        try:
            # By its name numpy would take a single array or a pickle for what they are; an archive is asked for.
            with zipfile.ZipFile(file) as archive:
                self.present = {Path(name).stem for name in archive.namelist() if name.endswith(".npy")}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._unreadable(error) from None

    def read(self, name: str) -> Array:
        """One array."""
        try:
            with np.load(self._file, allow_pickle=False) as archive:
                array: Array = archive[name]
                return array
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        reason = f"{error or type(error).__name__}".splitlines()[0]
        return DataError(self._path, f"{self._file} cannot be read as .npz without pickle ({reason})")

    def pair(self, options: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
        """The first of these pairs of names that is there."""
        return next((names for names in options if set(names) <= self.present), None)

    def pieces(self, name: str) -> list[Array] | None:
        """The inputs of an array that was packed end to end with their lengths beside it; None if it was not."""
        lengths_name = name.replace("frames", "len").replace("x", "len")
        if lengths_name not in self.present:
            return None
        packed, place = self.read(name), f"{self._path}.{lengths_name}"
        lengths = labels(self.read(lengths_name), place)
        if lengths.min() < 1:
            raise DataError(place, "every input needs a step, but some have a length of 0; remove them")
        if lengths.sum() != len(packed):
            raise DataError(place, f"lengths must add up to the {len(packed)} steps packed, got {lengths.sum()}")
        return np.split(packed, np.cumsum(lengths)[:-1])


def from_npz(
    file: str | Path,
    *,
    length: int | None = None,
    stride: int = 1,
    frames: int = 16,
    path: str = "data.file",
) -> Data:
    """Arrays `x, y` (or `x_train, y_train`) and perhaps `x_test, y_test` of an `.npz` file; nothing is unpickled.

    With `len` (or `train_len`, `test_len`) beside them, `x` holds sequences packed end to end; `frames` in the place of
    `x` holds clips packed so, or `n` clips of one length.

    Args:
        file: to read.
        length, stride: as for `from_sequences`.
        frames: as for `from_clips`.
        path: of the file in the spec.

    Raises:
        DataError: if the file cannot be read or lacks these arrays.
    """
    archive = _Archive(file, path)
    pair, test = archive.pair(_PAIRS), archive.pair(_TEST_PAIRS)
    if pair is None:
        present = sorted(archive.present)
        raise DataError(path, f"{file} must hold arrays x and y (or x_train and y_train), but has {present}")
    name = Path(file).stem
    y, y_test = archive.read(pair[1]), None if test is None else archive.read(test[1])
    pieces = archive.pieces(pair[0])
    if pieces is None and pair[0] != "frames":
        if length is not None or stride != 1:
            raise DataError(path, f"{file} holds inputs of one shape, not sequences; leave out length and stride")
        x_test = None if test is None else archive.read(test[0])
        return from_arrays(archive.read(pair[0]), y, x_test=x_test, y_test=y_test, name=name, path=path)
    tests = None if test is None else archive.pieces(test[0])
    if test is not None and tests is None:
        raise DataError(path, f"{file} must hold test lengths beside {test[0]}, as it holds lengths of the others")
    if pair[0] == "frames":
        clips = list(plain(archive.read("frames"), path)) if pieces is None else pieces
        return from_clips(clips, y, clips_test=tests, y_test=y_test, frames=frames, name=name, path=path)
    return from_sequences(
        pieces, y, sequences_test=tests, y_test=y_test, length=length, stride=stride, name=name, path=path
    )


def from_tsv(
    file: str | Path, *, test: str | Path | None = None, length: int | None = None, path: str = "data.file"
) -> Data:
    """Texts of a table with the columns `label` and `text`, plain or compressed (`.tsv`, `.tsv.gz`).

    Args:
        file: to read.
        test: a table of the test set.
        length: words of a text that are kept.
        path: of the file in the spec.

    Raises:
        DataError: if a file cannot be read, or has no such columns.
    """
    texts, y = _table(file, path)
    texts_test, y_test = (None, None) if test is None else _table(test, f"{path}.test")
    name = Path(file).name.partition(".")[0]
    return from_texts(texts, y, texts_test=texts_test, y_test=y_test, length=length, name=name, path=path)


def _table(file: str | Path, path: str) -> tuple[list[str], list[int]]:
    opened = gzip.open if Path(file).suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", newline="\n") as stream:
            header, *lines = stream.read().removesuffix("\n").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(path, f"{file} cannot be read as a table of texts ({str(error).splitlines()[0]})") from None
    if header.strip() != "label\ttext":
        raise DataError(path, f"{file} must begin with the line label<tab>text, but begins with {header[:40]!r}")
    texts, y = [], []
    for number, line in enumerate(lines, start=2):
        label, tab, text = line.rstrip("\r").partition("\t")
        if not tab or not label.isdecimal():
            raise DataError(path, f"{file} line {number} must be a class index, a tab and a text, not {line[:40]!r}")
        texts.append(text)
        y.append(int(label))
    return texts, y


def save_data(file: Path, data: Data) -> None:
    """Write data whole, whatever its kind, as an archive that `restore_data` reads."""
    arrays = {"x": data.x, "y": data.y}
    if data.x_test is not None and data.y_test is not None:
        arrays |= {"x_test": data.x_test, "y_test": data.y_test}
    if data.kind != "image":
        about = json.dumps({"kind": data.kind, "words": data.words, "classes": data.classes})
        arrays[ABOUT] = np.frombuffer(about.encode(), np.uint8)
    with file.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def restore_data(file: Path, name: str) -> Data:
    """What `save_data` wrote.

    Raises:
        DataError: if the file holds something else.
    """
    archive = _Archive(file, "data")
    if ABOUT not in archive.present:
        read = from_npz(file, path="data")
        return Data(read.x, read.y, read.classes, read.x_test, read.y_test, name)
    try:
        about = json.loads(archive.read(ABOUT).tobytes())
        arrays = [archive.read(key) if key in archive.present else None for key in ("x", "y", "x_test", "y_test")]
        words = None if about["words"] is None else tuple(map(str, about["words"]))
        x, y, x_test, y_test = arrays
        assert x is not None
        assert y is not None
        return Data(x, y, int(about["classes"]), x_test, y_test, name, str(about["kind"]), words)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError("data", f"{file} does not hold data of a search ({error!r})") from None
