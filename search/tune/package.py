"""The package as it travels to other nodes: exactly the files that its wheel holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
NAME: Final = "dynarch"
_MIGRATIONS: Final = "migrations"  # scripts that Alembic loads by their path: no packages


def stage(folder: Path) -> Path:
    """Copy the package into a folder; where it is.

    A checkout holds tests, data and a virtual environment besides; an installed package is copied as it is.
    """
    place = folder / NAME
    for file in shipped(ROOT):
        target = place / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return place


def shipped(root: Path) -> Iterator[Path]:
    """The files of a package and of the packages inside it."""
    yield from root.glob("*.py")
    yield from root.glob("py.typed")
    yield from root.glob(f"{_MIGRATIONS}/**/*.py")
    for inner in root.iterdir():
        if (inner / "__init__.py").is_file():
            yield from shipped(inner)
