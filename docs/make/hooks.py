"""Hooks of MkDocs: pages that are made from the code, and files of the repository that pages link to.

Hand-written pages read well in the repository too, so they link to its files as `../examples/digits.toml`; on the site
such a file is a page that shows it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from dynarch.docs.make.reference import commands_page, families_page, specs_page
from dynarch.search.tune.package import stage

ROOT = Path(__file__).resolve().parents[2]
MADE = {
    "reference/commands.md": commands_page,
    "reference/specs.md": specs_page,
    "reference/families.md": families_page,
}
SHOWN = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}  # pages that lie beside this folder
LINK = re.compile(r"\]\(\.\./((?:examples|benchmarks|tests)/[^)#]+)\)")
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The reference reads the package under its import name, wherever the repository lies; a page that the navigation
    does not name is one of those on how to do something."""
    place = ROOT / "build" / "reference"  # not the repository: a virtual environment may lie in it
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    stage(place)
    named = set(_named(config.nav))
    (guides,) = (entry["How to"] for entry in config.nav or () if isinstance(entry, dict) and "How to" in entry)
    guides += sorted(file.name for file in Path(config.docs_dir).glob("*.md") if file.name not in named)
    return config


def _named(nav: Any) -> Iterator[str]:
    """All pages that a navigation names."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(entry)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made."""
    for place, page in MADE.items():
        files.append(File.generated(config, place, content=page()))
    for place, name in SHOWN.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, place, content=text))
    linked = {name for each in files.documentation_pages() for name in LINK.findall(each.content_string)}
    for name in sorted(linked):
        file = ROOT / name
        text = f"# {name}\n\n```{LANGUAGES[file.suffix]}\n{file.read_text(encoding='utf-8')}```\n"
        made = File.generated(config, f"{name}.md", content=text, inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files of the repository to the pages that show them."""
    up = "../" * page.file.src_uri.count("/")
    for place, name in SHOWN.items():
        markdown = markdown.replace(f"](../{name})", f"]({up}{place})")
    return LINK.sub(lambda match: f"]({up}{match[1]}.md)", markdown)
