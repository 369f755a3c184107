"""nn-Meter: what its predictor builder keeps of its profiling, as JSON, times in milliseconds.

    {"conv-bn-relu": {"id_0": {"config": {"HW": 14, "CIN": 8}, "latency": "0.5 +- 0.1"}}}

`model` and `shapes` may stand there too. A latency of zero stands for a model that failed, and is refused: it would
make that kernel free.

Source: Zhang et al., "nn-Meter", MobiSys 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, final

from ...spaces.errors import DataError
from .format import AbstractFormat, ForeignEntry, ForeignTable, Unit, to_ms
from .reading import Fields, is_number, parse_json, shown

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LATENCY: Final = re.compile(rf"\s*({_NUMBER})\s*\+-\s*({_NUMBER})\s*")
_LONGEST: Final = 80  # characters of a latency
_FAILED: Final = "zero stands for a failed model: remove the entry"


@final
class NnMeterJson(AbstractFormat):
    """Reads what nn-Meter's builder profiled."""

    name: ClassVar[str] = "nn-meter-json"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    unit: ClassVar[Unit] = "ms"

    def recognises(self, opening: str) -> bool:
        """One object, which may be spread over lines."""
        return opening.startswith("{")

    def parse(self, text: str, path: Path) -> ForeignTable:
        """The table that the text of a file holds."""
        entries: dict[str, ForeignEntry] = {}
        for kernel, models in _mapping(parse_json(text, str(path)), str(path), "must map kernels to models").items():
            place = f"{path}: {kernel}"
            for name, model in _mapping(models, place, "must map ids to models").items():
                where = f"{place}.{name}"
                entries[f"{kernel}/{name}"] = self._entry(kernel, model, where)
        if not entries:
            raise DataError(str(path), "must hold entries, but has none; profile some models first")
        return ForeignTable(path.stem, self.unit, entries)

    def _entry(self, kernel: str, model: object, where: str) -> ForeignEntry:
        fields = Fields(model, where, remedy="correct or remove the entry")
        text = fields.text("latency")
        match = _LATENCY.fullmatch(text[:_LONGEST])
        if match is None:
            fields.refuse(f"field 'latency' must be 'MEAN +- DEVIATION' in ms, but is {shown(text)}")
        mean, deviation = (float(number) for number in match.groups())
        if not (is_number(mean) and mean > 0 and is_number(deviation) and deviation >= 0):
            fields.refuse(f"field 'latency' must be finite and above 0, but is {shown(text)}; {_FAILED}")
        config = _mapping(fields.take("config"), where, "field 'config' must map features to numbers")
        wrong = next((name for name, value in config.items() if not is_number(value)), None)
        if wrong is not None:
            fields.refuse(f"feature {wrong!r} must be a number, but is {shown(config[wrong])}")
        for name in ("model", "shapes"):
            fields.optional(name)  # a path and the inputs that the config already tells
        fields.end()
        features = {name: value for name, value in config.items() if isinstance(value, int | float)}
        return ForeignEntry(to_ms(mean, self.unit), to_ms(deviation, self.unit), None, {"op": kernel, **features})


def _mapping(value: object, where: str, rule: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(where, f"{rule}, but is {shown(value)}; correct or remove it")
    return value
