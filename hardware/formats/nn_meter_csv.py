"""nn-Meter: the table of features of one kernel, as CSV, times in milliseconds.

    model_path,HW,CIN,COUT,KERNEL_SIZE,STRIDES,latency
    conv_0.onnx,14,8,16,3,1,0.25

`model_path` may be absent; the features depend on the kernel, whose name only the file's name can tell. A latency of
zero stands for a model that failed, and is refused: it would make that kernel free.

Source: Zhang et al., "nn-Meter", MobiSys 2021.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, final

from ...spaces.errors import DataError
from .format import AbstractFormat, Attribute, ForeignEntry, ForeignTable, Unit, to_ms
from .reading import is_number, shown

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_LONGEST: Final = 80  # characters of a number
_NAME, _TIME = "model_path", "latency"


@final
class NnMeterCsv(AbstractFormat):
    """Reads the table of features of one kernel."""

    name: ClassVar[str] = "nn-meter-csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    unit: ClassVar[Unit] = "ms"

    def recognises(self, opening: str) -> bool:
        """The header names the latency."""
        return _TIME in [name.strip() for name in opening.split(",")]

    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds."""
        entries: dict[str, ForeignEntry] = {}
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header: list[str] = []
        try:
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if not header:
                    header = _header([name.strip() for name in row], where)
                elif row:
                    name, entry = self._entry(header, row, where)
                    if name in entries:
                        raise DataError(where, f"rows must be unique, but {shown(name)} stands twice; remove one")
                    entries[name] = entry
        except csv.Error as error:
            message = f"must be CSV, but {error}; the file may be truncated: copy it again"
            raise DataError(f"{path}:{rows.line_num}", message) from None
        if not entries:
            raise DataError(str(path), "must hold rows, but has none below the header; export it again")
        return ForeignTable(path.stem, self.unit, entries)

    def _entry(self, header: Sequence[str], row: Sequence[str], where: str) -> tuple[str, ForeignEntry]:
        if len(row) != len(header):
            rule = f"a row must have {len(header)} cells as the header has, but has {len(row)}"
            raise DataError(where, f"{rule}; the file may be truncated: copy it again")
        features: dict[str, float] = {}
        for column, cell in zip(header, row, strict=True):
            if column == _NAME:
                continue
            value = _number(column, cell, where)
            # Adding two tensors has one feature twice, under one name.
            if features.setdefault(column, value) != value:
                raise DataError(where, f"columns called {column!r} must agree, but do not; rename one of them")
        ms = features.pop(_TIME)
        if ms <= 0:
            raise DataError(
                where, f"{_TIME} must be above 0, but is {ms:g}; zero stands for a failed model: remove the row"
            )
        named = dict(zip(header, row, strict=True)).get(_NAME)
        attributes: dict[str, Attribute] = {name: _plain(value) for name, value in features.items()}
        name = named or " ".join(f"{feature}={value}" for feature, value in attributes.items())
        return name, ForeignEntry(to_ms(ms, self.unit), None, None, attributes)


def _header(names: list[str], where: str) -> list[str]:
    if names.count(_TIME) != 1 or names.count(_NAME) > 1 or len(set(names)) < 2 or "" in names:
        rule = f"the header must name features and, once, {_TIME!r}"
        raise DataError(where, f"{rule}, but is {shown(','.join(names))}; export the table of one kernel")
    return names


def _number(column: str, cell: str, where: str) -> float:
    if len(cell) > _LONGEST or not _NUMBER.fullmatch(cell.strip()) or not is_number(float(cell)):
        raise DataError(where, f"{column!r} must be a finite number, but is {shown(cell)}; correct or remove the row")
    return float(cell)


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value
