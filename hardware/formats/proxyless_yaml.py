"""ProxylessNAS and Once-for-All: flat YAML, one operator an entry, times in milliseconds.

    expanded_conv-input:56x56x24-output:56x56x24-expand:96-kernel:3-stride:1-idskip:1: {count: 20, mean: 0.5, std: 0.1}

The inner mapping may also stand on indented lines of its own, or wrap. Nothing else of YAML is understood:
tags, anchors and documents can do more than hold numbers. ProxylessNAS keeps a variance (`var`), Once-for-All a
standard deviation (`std`). What `expand` means differs between their tables (a ratio, or a number of channels), so
attributes are handed on as they stand.

Source: Cai et al., "ProxylessNAS", ICLR 2019; Cai et al., "Once-for-All", ICLR 2020.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, final

from ...spaces.errors import DataError
from .format import AbstractFormat, Attribute, ForeignEntry, ForeignTable, Unit, to_ms
from .reading import LARGEST_WHOLE, shown

_ENTRY: Final = re.compile(r"""(?P<quote>['"]?)(?P<name>[A-Za-z_][^\s'"{}\[\],#]*)(?P=quote):(?:\s+(?P<rest>.*))?""")
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_LONGEST_NUMBER: Final = 40
_KNOWN: Final = ("count", "mean", "std", "var")
_REMEDY: Final = "correct or remove the entry"

Lines = list[tuple[int, str]]  # number and text of each line of an entry, its name taken off


@final
class ProxylessYaml(AbstractFormat):
    """Reads the tables of ProxylessNAS and Once-for-All."""

    name: ClassVar[str] = "proxyless-yaml"
    suffixes: ClassVar[tuple[str, ...]] = (".yaml", ".yml")
    unit: ClassVar[Unit] = "ms"

    def recognises(self, opening: str) -> bool:
        """YAML tables of nobody else are known."""
        return True

    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds."""
        entries: dict[str, ForeignEntry] = {}
        for name, lines in _entries(text, str(path)):
            where = f"{path}:{lines[0][0]}"
            if name in entries:
                raise DataError(where, f"entries must be unique, but {shown(name)} stands twice; remove one")
            entries[name] = self._entry(name, _numbers(lines, str(path)), where)
        if not entries:
            raise DataError(str(path), "must hold entries, but has none; export the table again")
        return ForeignTable(path.stem, self.unit, entries)

    def _entry(self, name: str, numbers: dict[str, float], where: str) -> ForeignEntry:
        for needed in ("count", "mean"):
            if needed not in numbers:
                raise DataError(where, f"field {needed!r} is missing; {_REMEDY}")
        if ("std" in numbers) == ("var" in numbers):
            raise DataError(where, f"an entry must have one of 'std' and 'var'; {_REMEDY}")
        count, mean = numbers["count"], numbers["mean"]
        if not (count >= 1 and count == int(count)):
            raise DataError(where, f"field 'count' must be a whole number of at least 1, but is {count:g}; {_REMEDY}")
        if mean <= 0:
            raise DataError(where, f"field 'mean' must be above 0, but is {mean:g}; {_REMEDY}")
        deviation = numbers["std"] if "std" in numbers else math.sqrt(numbers["var"])  # of ms squared
        attributes = _attributes(name, where)
        return ForeignEntry(to_ms(mean, self.unit), to_ms(deviation, self.unit), int(count), attributes)


def _entries(text: str, path: str) -> Iterator[tuple[str, Lines]]:
    """Name and lines of each entry."""
    name, lines = "", Lines()
    for number, raw in enumerate(text.split("\n"), start=1):
        line, where = raw.rstrip(), f"{path}:{number}"
        if not line or line.lstrip().startswith("#") or (line == "---" and not name):
            continue
        if "\t" in line:
            raise DataError(where, "must be indented with spaces, but has a tab; replace it")
        if line[0] == " ":
            if not name:
                raise DataError(where, f"must begin with the name of an entry, but is {shown(line)}; {_REMEDY}")
            lines.append((number, line.strip()))
            continue
        if name:
            yield name, lines
        match = _ENTRY.fullmatch(line)
        if match is None:
            rule = "must be 'NAME: {count: ..., mean: ..., std: ...}'"
            raise DataError(where, f"{rule}, but is {shown(line)}; {_REMEDY}")
        name, lines = match["name"], [(number, match["rest"] or "")]
    if name:
        yield name, lines


def _numbers(lines: Lines, path: str) -> dict[str, float]:
    """The numbers of an entry, whose mapping stands in braces or on lines of its own."""
    found: dict[str, float] = {}
    for line, text in _in_braces(lines, path) if lines[0][1].startswith("{") else lines:
        if not text:
            continue
        name, colon, value = text.partition(": ")
        where, value = f"{path}:{line}", value.strip()
        if not colon or name not in _KNOWN:
            raise DataError(where, f"must be one of {', '.join(_KNOWN)} with a number, but is {shown(text)}; {_REMEDY}")
        if name in found:
            raise DataError(where, f"field {name!r} stands twice; remove one")
        if len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value) or not 0 <= float(value) <= LARGEST_WHOLE:
            rule = "must be a finite number of at least 0"
            raise DataError(where, f"field {name!r} {rule}, but is {shown(value)}; {_REMEDY}")
        found[name] = float(value)
    return found


def _in_braces(lines: Lines, path: str) -> Lines:
    began, (last, _) = lines[0][0], lines[-1]
    inner, brace, after = " ".join(text for _, text in lines)[1:].partition("}")
    if not brace:
        raise DataError(f"{path}:{last}", "an entry must end in '}'; the file may be truncated: copy it again")
    if after.strip() and not after.lstrip().startswith("#"):
        raise DataError(f"{path}:{last}", f"nothing may follow '}}', but got {shown(after.strip())}; {_REMEDY}")
    return [(began, piece.strip()) for piece in inner.split(",")]


def _attributes(name: str, where: str) -> dict[str, Attribute]:
    kind, *pieces = name.split("-")
    found: dict[str, Attribute] = {"op": kind}
    for piece in pieces:
        key, colon, value = piece.partition(":")
        if not (key and colon and value) or key in found:
            raise DataError(where, f"a name must be OP-KEY:VALUE-KEY:VALUE, but is {shown(name)}; {_REMEDY}")
        found[key] = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
    return found
