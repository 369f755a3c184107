"""The documentation: it builds without a warning, needs no network, and names all that is public."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import dynarch
from dynarch.docs.make.pictures import PICTURES
from dynarch.spaces.families import FAMILIES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# What a browser fetches by itself; a link that a reader may follow is none of it.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"|<link(?![^>]*canonical)[^>]*\shref="([^"]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("mkdocs") is None:
        pytest.skip("needs mkdocs (pip install 'dynarch[docs]'), and it is not installed")
    place = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    built = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return place


@pytest.mark.slow  # a quarter of a minute
def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    fetched = {address for page in pages for found in FETCHED.findall(page.read_text()) for address in found if address}
    assert any(address.endswith(".css") for address in fetched)
    assert [address for address in fetched if re.match(r"(https?:)?//", address)] == []
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?https?:[^)]*\)", styles) == []


@pytest.mark.slow
def test_reference_pages_are_made_from_the_code(site: Path) -> None:
    commands, specs, families = (
        (site / "reference" / f"{name}.html").read_text() for name in ("commands", "specs", "families")
    )
    assert "dynarch compare" in commands
    assert "--max-latency-ms" in commands
    assert "candidate_minutes" in specs
    assert [kind.name for kind in FAMILIES if f"[space.families.{kind.name}]" not in families] == []
    assert 'id="dynarch.SearchService.launch"' in (site / "reference" / "python.html").read_text()


def test_every_public_name_is_in_the_reference() -> None:
    told = re.findall(r"^::: dynarch\.(\w+)$", (DOCS / "reference" / "python.md").read_text(), re.M)
    assert sorted(told) == sorted(dynarch.__all__)


def test_every_picture_is_made_and_shown() -> None:
    shown = set(re.findall(r"\]\(pictures/([a-z-]+)\.svg\)", (DOCS / "concepts.md").read_text()))
    assert shown == set(PICTURES) == {file.stem for file in (DOCS / "pictures").glob("*.svg")}
