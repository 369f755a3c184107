"""Catalogue: the README's table of families, made from the registry so that it cannot go stale.

python -m dynarch.spaces.catalogue            # prints it
python -m dynarch.spaces.catalogue README.md  # writes it between the marks of that file
"""

from __future__ import annotations

import sys
from pathlib import Path

from .families import FAMILIES

HEADER = "| family | wing | one decision switches | decision schemes | source |\n|---|---|---|---|---|"
OPENING = "<!-- families: made by `python -m dynarch.spaces.catalogue README.md`; a test holds it -->\n"
CLOSING = "\n<!-- /families -->"


def families_table() -> str:
    """A Markdown table with one row a family."""
    rows = [
        f"| `{kind.name}` | {kind.wing} | {kind.switches} | {', '.join(kind().schemes())} | {kind.source} |"
        for kind in FAMILIES
    ]
    return "\n".join([HEADER, *rows])


def with_table(text: str) -> str:
    """A text with the table between its marks."""
    before, _, rest = text.partition(OPENING)
    after = rest.partition(CLOSING)[2]
    return before + OPENING + families_table() + CLOSING + after


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_table(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
    if not sys.argv[1:]:
        sys.stdout.write(families_table() + "\n")
