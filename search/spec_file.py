"""Spec file: a problem written down as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path

from ..spaces.errors import SpecError
from .problem import SECTIONS, Problem


def load_spec(file: str | Path, *, only: Collection[str] | None = None) -> Problem:
    """The problem that a TOML file describes; relative files in it are looked up beside it.

    Args:
        file: the spec.
        only: sections to read; of the others no more than their names is checked, so that a space can be profiled
            where the devices of its search are not.

    Raises:
        SpecError: on the first mistake, with its place.
    """
    file = Path(file)
    try:
        mapping = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(str(file), f"cannot be read ({error.strerror}); give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(str(file), f"is not valid TOML ({error}); correct it there") from None
    if only is not None:
        mapping = {name: section for name, section in mapping.items() if name in only or name not in SECTIONS}
    return Problem.from_mapping(mapping, folder=file.parent)
