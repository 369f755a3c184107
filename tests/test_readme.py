"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from dynarch import SearchService
from dynarch.service import app
from dynarch.spaces.catalogue import families_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_families_is_that_of_the_registry() -> None:
    table = README.split("a test holds it -->\n")[1].split("\n<!-- /families -->")[0]
    assert table == families_table()


def test_the_ten_lines_are_the_quickstart() -> None:
    shown = re.search(r"```python\n(.*?)```", README, re.S)
    assert shown is not None
    example = (ROOT / "examples" / "quickstart.py").read_text()
    lines = [line.strip() for line in example.splitlines()]
    missing = [line for line in shown[1].splitlines() if line.strip() and line.strip() not in lines]
    assert missing == []
    assert len([line for line in shown[1].splitlines() if line.strip()]) <= 10


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"`dynarch ([a-z]+)", README))
    told = CliRunner().invoke(app, ["--help"]).output
    assert named
    assert {name for name in named if name not in told} == set()


def test_every_file_of_the_readme_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_quickstart_runs_anywhere(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "examples" / "quickstart.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    points = [line for line in ran.stdout.splitlines() if re.search(r": residual w8 .* accuracy 0\.\d{3} .* ms$", line)]
    assert len(points) == len(SearchService(tmp_path / "dynarch-results").get().front()) > 0
