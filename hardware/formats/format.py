"""What a file format of latency tables is, and what is read from one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal, final

from .reading import read_text

Unit = Literal["ns", "us", "ms"]
Attribute = str | int | float | bool | tuple[object, ...]

_MS: Final[Mapping[Unit, float]] = {"ns": 1e-6, "us": 1e-3, "ms": 1.0}


def to_ms(value: float, unit: Unit) -> float:
    """A time in milliseconds."""
    return value * _MS[unit]


@final
@dataclass(frozen=True)
class ForeignEntry:
    """One line of somebody's latency table.

    Args:
        ms: latency in milliseconds, whatever the unit of the file.
        spread_ms: standard deviation in milliseconds; None if the file does not tell.
        count: how many measurements it rests on; None if the file does not tell.
        attributes: what the file says of the operator.
    """

    ms: float
    spread_ms: float | None = None
    count: int | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class ForeignTable:
    """A latency table as read from a file: to be looked at and compared, never mixed with measurements.

    Args:
        device_name: what the file calls its device; the name of the file if it says nothing.
        unit: of the times in the file.
        entries: by a name that is unique in the file.
        environment: what the file tells of hardware and software; mostly nothing.
    """

    device_name: str
    unit: Unit
    entries: Mapping[str, ForeignEntry]
    environment: Mapping[str, str | int | bool] = field(default_factory=dict)


class AbstractFormat(ABC):
    """A file format. Adding one: a file here, a line in `FORMATS`, a row in the tests.

    `name` is how the command line calls it, `suffixes` what its files end in, `unit` what its times are in.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    unit: ClassVar[Unit]

    @abstractmethod
    def recognises(self, opening: str) -> bool:
        """Whether a file with one of the suffixes whose first line that says something is this can be of the format."""

    @abstractmethod
    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds.

        Raises:
            DataError: if the text is not of this format; names line or entry.
        """

    def read(self, path: Path) -> ForeignTable:
        """The table in a file.

        Raises:
            DataError: if the file cannot be read or is not of this format.
        """
        return self.parse(read_text(path), path)
