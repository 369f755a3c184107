"""Spec file: a problem written down as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ..spaces.errors import SpecError
from .problem import Problem


def load_spec(file: Path) -> Problem:
    """The problem that a TOML file describes; relative files in it are looked up beside it.

    Raises:
        SpecError: on the first mistake, with its place.
    """
    try:
        mapping = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(str(file), f"cannot be read ({error.strerror}); give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(str(file), f"is not valid TOML ({error}); correct it there") from None
    return Problem.from_mapping(mapping, folder=file.parent)
