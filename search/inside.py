"""Paths that come from a store: they may not lead out of the folder that they belong to."""

from __future__ import annotations

from pathlib import Path

from ..spaces.errors import StoreError


def inside(root: Path, relative: str | Path) -> Path:
    """A path below a folder, links on the way followed.

    Raises:
        StoreError: if it is absolute, goes up, or a link leads elsewhere.
    """
    place = root / relative
    if Path(relative).is_absolute() or not place.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"{str(relative)!r} must lie inside {root}, but leads out of it; restore the storage")
    return place
