"""Catalogue: the README's table of families, made from the registry so that it cannot go stale."""

from __future__ import annotations

import sys

from .families import FAMILIES

HEADER = "| family | wing | one decision switches | decision schemes | source |\n|---|---|---|---|---|"


def families_table() -> str:
    """A Markdown table with one row a family."""
    rows = [
        f"| `{kind.name}` | {kind.wing} | {kind.switches} | {', '.join(kind().schemes())} | {kind.source} |"
        for kind in FAMILIES
    ]
    return "\n".join([HEADER, *rows])


if __name__ == "__main__":
    sys.stdout.write(families_table() + "\n")
