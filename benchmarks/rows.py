"""Rows in a file, one a line: what was done is not done again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

Row = dict[str, Any]


@final
class Rows:
    """The rows of one kind of settings; those of others stay in the file, unread.

    Args:
        file: one JSON object a line.
        settings: what every row depends on.
    """

    def __init__(self, file: Path, settings: Mapping[str, object]) -> None:
        self.file = file
        self.settings = dict(settings)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [row for row in map(_row, lines) if row.get("settings") == self.settings]

    def add(self, row: Mapping[str, Any]) -> Row:
        """Keep for good."""
        made = {**row, "settings": self.settings}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as stream:
            stream.write(json.dumps(made) + "\n")
        self.rows.append(made)
        return made

    def where(self, wanted: Mapping[str, object]) -> list[Row]:
        """Those that have these values."""
        return [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]


def _row(line: str) -> Row:
    """A line that was cut off when the program died is no row."""
    try:
        row: Row = json.loads(line)
    except ValueError:
        return {}
    return row
