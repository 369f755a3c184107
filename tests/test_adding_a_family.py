"""docs/adding-a-family.md, followed literally in a copy of the package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynarch.spaces.catalogue import families_table

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
FOLDERS = ("spaces", "tests")
FILES = ("pyproject.toml", "README.md")
QUICK = "not another_process and not inverted_residual"  # the rest of the contract tells nothing new about the page


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks with the last file that the text before each of them names."""
    found = []
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M):
        named = re.findall(r"`((?:spaces|tests)/\S+\.py)`", PAGE[: match.start()])
        found.append((named[-1] if named else "", match[1]))
    return found


def patched(text: str, hunk: str) -> str:
    """The text with the lines marked + put between the others, which must be there exactly once."""
    lines = hunk.splitlines(keepends=True)
    before = "\n" + "".join(line[1:] for line in lines if line.startswith(" "))
    after = "\n" + "".join(line[1:] for line in lines)
    assert ("\n" + text).count(before) == 1, f"the page shows what is not there: {before}"
    return ("\n" + text).replace(before, after)[1:]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lowest storey as it is after every step of the page but the last."""
    made = tmp_path_factory.mktemp("copy") / "dynarch"
    made.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, made / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, made / name)
    (made / "__init__.py").touch()  # the package's own loads every storey above, which takes seconds
    for file, text in blocks("python"):
        assert not (made / file).exists()
        (made / file).write_text(text, encoding="utf-8")
    for file, hunk in blocks("diff"):
        (made / file).write_text(patched((made / file).read_text(encoding="utf-8"), hunk), encoding="utf-8")
    return made


def test_the_page_has_all_its_steps() -> None:
    assert len(blocks("python")) == 2
    assert len(blocks("diff")) == 4
    assert len(blocks("sh")) == 1


def test_every_command_of_the_page_succeeds(copy: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    for line in blocks("sh")[0][1].splitlines():
        words = shlex.split(line)
        assert words[0] == "python"
        if "-k" in words:
            words[-1] = f"{words[-1]} and {QUICK}"
        ran = subprocess.run(
            [sys.executable, *words[1:]], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "| `channel_attention` | sample | channel scale | attention | Wang et al., CVPR 2020 |" in readme
    assert families_table().splitlines()[-1] in readme, "the others are still there"
