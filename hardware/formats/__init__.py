"""Latency tables in files: our own, exported and imported whole, and those of others, to look at and compare.

Adding a format: a file here, a line in `FORMATS`, a row in the tests. The first that recognises a file reads it. No
format is a pickle: loading one runs whatever code its author put there.
"""

from __future__ import annotations

from pathlib import Path

from ...spaces.errors import DataError, UnknownNameError
from .dynarch_lines import DynarchLines, lines, parse_contents, read_contents, statistic_of, summary
from .fbnet_lines import FBNetLines
from .format import AbstractFormat, ForeignEntry, ForeignTable
from .nn_meter_csv import NnMeterCsv
from .nn_meter_json import NnMeterJson
from .proxyless_yaml import ProxylessYaml
from .reading import read_text

FORMATS: tuple[AbstractFormat, ...] = (
    DynarchLines(),
    FBNetLines(),
    NnMeterJson(),
    NnMeterCsv(),
    ProxylessYaml(),
)


def format_of(path: Path, name: str | None = None) -> AbstractFormat:
    """The format of that name, or the one that a file looks like.

    Raises:
        UnknownNameError: if there is no format of that name.
        DataError: if the file cannot be read or looks like none of them.
    """
    if name is not None:
        for member in FORMATS:
            if member.name == name:
                return member
        raise UnknownNameError("format", name, [member.name for member in FORMATS])
    found = recognised(path, read_text(path))
    if found is None:
        known = ", ".join(f"{member.name} ({' '.join(member.suffixes)})" for member in FORMATS)
        message = f"must be a latency table in a known format, but looks like none of {known}"
        raise DataError(str(path), f"{message}; name one, or rename the file")
    return found


def recognised(path: Path, text: str) -> AbstractFormat | None:
    """The first format that a file with this text looks like, or None."""
    opening = next((line.strip() for line in text.split("\n") if line.strip()), "")
    fitting = (m for m in FORMATS if path.suffix.lower() in m.suffixes and m.recognises(opening))
    return next(fitting, None)


__all__ = [
    "FORMATS",
    "AbstractFormat",
    "DynarchLines",
    "FBNetLines",
    "ForeignEntry",
    "ForeignTable",
    "NnMeterCsv",
    "NnMeterJson",
    "ProxylessYaml",
    "format_of",
    "lines",
    "parse_contents",
    "read_contents",
    "recognised",
    "statistic_of",
    "summary",
]
