"""FBNet (mobile-vision): JSON lines, one measured operator each, times in microseconds.

    {"op_type": "Conv", "op_args": ["kernel: 3"], "input_shapes": [[1, 8, 14, 14], [8, 8, 3, 3]],
     "input_dtypes": [1, 1], "runtime_us_p0": 40.0, "runtime_us_p10": 41.0, "runtime_us_p50": 42.0,
     "runtime_us_p90": 45.0, "runtime_us_p100": 60.0, "device": "phone"}

The median stands for the latency. The batch is the first size of the first shape.

Source: Wu et al., "FBNet", CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, final

from ...spaces.errors import DataError
from .format import AbstractFormat, Attribute, ForeignEntry, ForeignTable, Unit, to_ms
from .reading import Fields, is_shape, is_text, is_whole, parse_json, shown

_QUANTILES: Final = ("p0", "p10", "p50", "p90", "p100")
# Between the 10 % and the 90 % quantile of a normal distribution lie 2 * 1.2816 standard deviations.
_P10_TO_P90_IN_SD: Final = 2.5631


@final
class FBNetLines(AbstractFormat):
    """Reads the operator tables of FBNet."""

    name: ClassVar[str] = "fbnet-lines"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".txt", ".db")
    unit: ClassVar[Unit] = "us"

    def recognises(self, opening: str) -> bool:
        """Every line is an object with a field of this name."""
        return '"op_type"' in opening

    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds."""
        entries: dict[str, ForeignEntry] = {}
        devices: dict[str, int] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            fields = Fields(parse_json(line, str(path), number), where, remedy="correct or remove the line")
            devices.setdefault(fields.text("device"), number)
            if len(devices) > 1:
                raise DataError(where, f"all lines must be of one device, but got {shown([*devices])}; split the file")
            name, entry = self._entry(fields)
            if name in entries:
                raise DataError(where, f"entries must be unique, but {shown(name)} stands twice; remove one")
            entries[name] = entry
        return ForeignTable(next(iter(devices)), self.unit, entries)

    def _entry(self, fields: Fields) -> tuple[str, ForeignEntry]:
        kind = fields.text("op_type")
        arguments = [str(each) for each in fields.items("op_args", "texts", is_text)]
        shapes = fields.items("input_shapes", "shapes with sizes of at least 1", is_shape)
        dtypes = fields.items("input_dtypes", "whole numbers", is_whole)
        times = [fields.number(f"runtime_us_{name}", positive=True) for name in _QUANTILES]
        if times != sorted(times):
            fields.refuse(f"the quantiles must not fall from p0 to p100, but are {shown(times)}")
        if len(dtypes) != len(shapes):
            fields.refuse(f"there must be a dtype for each shape, but got {len(dtypes)} for {len(shapes)}")
        fields.end()
        sizes = tuple(tuple(shape) for shape in shapes if isinstance(shape, list))
        words = [kind, *("x".join(map(str, shape)) for shape in sizes), f"dtypes {dtypes}"]
        words += [" ".join(argument.split()) for argument in arguments]
        spread = (times[3] - times[1]) / _P10_TO_P90_IN_SD
        attributes: dict[str, Attribute] = {
            "op": kind,
            "args": tuple(arguments),
            "input_shapes": sizes,
            "input_dtypes": tuple(dtypes),
        }
        entry = ForeignEntry(to_ms(times[2], self.unit), to_ms(spread, self.unit), None, attributes)
        return " ".join(words), entry
