"""docs/tutorial.md, followed literally: its files, its commands, its session of Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dynarch import SearchService
from dynarch.tests.browser import free_port, wait_for
from dynarch.tests.tiny_searches import command, run_command

pytestmark = pytest.mark.slow  # two real searches
PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: title=\"(\S+)\")?\n(.*?)^```$", re.S | re.M)


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks in order: the file that each is, if it is one, and its text."""
    return [(match[2], match[3]) for match in BLOCK.finditer(PAGE) if match[1] == language]


def commands() -> list[list[str]]:
    """Arguments of `dynarch`, in order."""
    lines = [shlex.split(line) for _, text in blocks("sh") for line in text.splitlines()]
    assert {words[0] for words in lines} == {"dynarch"}
    return [words[1:] for words in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the commands of the page, one after the other; the file it shows takes the place of the one it writes."""
    place = tmp_path_factory.mktemp("tutorial")
    for words in commands():
        if words == ["ui"]:
            look_at_the_server(place)
            continue
        code, told, errors = run_command(place, *words)
        assert code == 0, f"{words}\n{told}{errors}"
        if words[0] == "init":
            ((name, text),) = blocks("toml")
            assert (place / name).is_file()
            (place / name).write_text(text, encoding="utf-8")
    return place


def look_at_the_server(place: Path) -> None:
    port = free_port()
    with command(place, "ui", "--port", port) as running:
        wait_for(f"http://127.0.0.1:{port}/health", running.process)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).status == 200


def test_the_commands_of_the_page_succeed(folder: Path) -> None:
    report = next((folder / "dynarch-results" / "searches").glob("*/report"))
    assert {"front.html", "pictures.html"} <= {file.name for file in report.iterdir()}


def test_the_session_of_the_page_runs_as_it_is_typed(folder: Path) -> None:
    session = "\n".join(text for _, text in blocks("python"))
    ran = subprocess.run(
        [sys.executable, "-"], input=session, cwd=folder, capture_output=True, text=True, timeout=3600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (folder / "latency.html").is_file()
    states = {status.name: status.state for status in SearchService(folder / "dynarch-results").list()}
    assert states == {"first": "finished", "second": "finished"}
