"""Sources: data from whatever a user has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ...spaces.errors import SpecError
from ...spaces.spec import AbstractSpec, require
from .arrays import MapDataset, from_arrays, from_dataset
from .data import Data
from .embedded import EMBEDDED
from .files import from_npz, from_tsv
from .pictures import from_folder

_TABLES = (".tsv", ".tsv.gz")
FILES = (".npz", *_TABLES)


@final
@dataclass(frozen=True)
class Reading(AbstractSpec):
    """How a file is read; what does not concern its kind must be left out.

    Args:
        test: file of the test set, for tables of texts.
        length: words of a text, or steps of a sequence, that are kept from the start; None: all (64 words at most).
        stride: so many steps of a sequence become one, their mean.
        frames: of a clip.
        size: pixels of a side that pictures in a folder are resized to; None: they have one size.
    """

    test: str | None = None
    length: int | None = None
    stride: int = 1
    frames: int = 16
    size: int | None = None

    def check(self) -> None:
        """Positive numbers."""
        for name in ("length", "stride", "frames", "size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, f"must be at least 1, but got {value}")

    def only(self, names: tuple[str, ...], path: str, what: str) -> None:
        """Raise if anything but these options was set.

        Raises:
            SpecError: naming the option.
        """
        default = Reading()
        for name in self.to_mapping():
            changed = getattr(self, name) != getattr(default, name)
            require(name in names or not changed, f"{path}.{name}", f"does not apply to {what}; leave it out")


def load_data(source: object, *, reading: Reading | None = None, path: str = "data") -> Data:
    """Data from whatever a user has: a name, a file, arrays, a dataset, or `Data` itself.

    Args:
        source: what a user has.
        reading: how to read a file.
        path: of the source in the spec.

    Raises:
        SpecError: if it is none of these.
        DataError: if it cannot be trained on.
    """
    how = reading or Reading()
    if isinstance(source, str | Path) and str(source).endswith(_TABLES):
        how.only(("test", "length"), path, "texts")
        return from_tsv(source, test=how.test, length=how.length, path=path)
    if isinstance(source, str | Path) and Path(source).suffix == ".npz":
        how.only(("length", "stride", "frames"), path, "an .npz file")
        return from_npz(source, length=how.length, stride=how.stride, frames=how.frames, path=path)
    if isinstance(source, str | Path) and str(source) not in EMBEDDED and Path(source).is_dir():
        how.only(("size",), path, "a folder of images")
        return from_folder(source, size=how.size, path=path)
    how.only((), path, "data that is not read from a file")
    if isinstance(source, Data):
        return source
    if isinstance(source, str) and source in EMBEDDED:
        return EMBEDDED[source]()
    if isinstance(source, str | Path):
        names = ", ".join(map(repr, EMBEDDED))
        files = "an .npz or .tsv.gz file or a folder of images"
        raise SpecError(path, f"must be one of {names} or the path of {files}, but got {str(source)!r}")
    if isinstance(source, tuple) and len(source) in (2, 4):
        test = source[2:] if len(source) == 4 else (None, None)
        return from_arrays(source[0], source[1], x_test=test[0], y_test=test[1], path=path)
    if isinstance(source, MapDataset) and not isinstance(source, Mapping):
        return from_dataset(source, path=path)
    raise SpecError(
        path,
        "must be a name, an .npz or .tsv.gz file, a folder of images, (x, y) arrays or a torch Dataset with a length,"
        f" but got {type(source).__name__}",
    )
