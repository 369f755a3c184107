"""The public names are few, sorted, real and documented, and one version is told everywhere."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import dynarch

ROOT = Path(__file__).resolve().parents[1]
PUBLIC: list[str] = list(getattr(dynarch, "__all__", []))


def sorting_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that the linter's RUF022 asks for."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_public_names_are_declared_once_and_sorted() -> None:
    assert PUBLIC, "dynarch has no __all__"
    assert sorted(set(PUBLIC), key=sorting_key) == PUBLIC


def test_public_names_are_what_can_be_imported() -> None:
    present = {
        name
        for name, value in vars(dynarch).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert present == set(PUBLIC) - {"__version__"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_real_and_documented(name: str) -> None:
    value = getattr(dynarch, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        assert text, f"{name} has no docstring"
        # A dataclass without a docstring is given its signature as one, which documents nothing.
        assert not text.startswith(f"{name}("), f"{name} has no docstring of its own"


def test_one_version_is_told_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings, "CHANGELOG.md has no release heading"
    assert getattr(dynarch, "__version__", None) == project["version"] == headings[0]
