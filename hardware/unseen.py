"""What parts cost that were not measured as they are asked for: a ladder that ends in a refusal.

measured -> another batch or density between measured ones -> a model of its group -> refused. Each step down
says so, and says how far it was off where that could be checked. Nothing is ever zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, final

import numpy as np

from ..spaces.errors import DataError, MissingEntryError
from .composition import PartCurve
from .device import check_count
from .estimate import Estimate
from .keys import PartKey
from .operations import dense_convolutions, dominant, features, operator
from .roofline import GroupModel, Sample, inside
from .table import FULL, Density, Entry, Visited

Measured = Mapping[Visited, Entry]

MIN_KEYS: Final = 8  # measured parts that a group's model needs
_MIN_CHECKED: Final = 5  # interpolations that were checked, before their error is believed


@final
class UnseenParts:
    """Estimates parts from the measured entries of one environment.

    Args:
        measured: the entries at full density, as `LatencyTable.measured` gives them.
        keys: what the measured parts execute, as `LatencyTable.part_keys` gives it.
        densities: entries at other densities, by density.
        seed: folds of the cross-validation.

    Raises:
        DataError: if a measured part is not among `keys`.
    """

    def __init__(
        self,
        measured: Measured,
        keys: Mapping[str, PartKey],
        *,
        densities: Mapping[Density, Measured] | None = None,
        seed: int = 0,
    ) -> None:
        self._tables: dict[Density, Measured] = {**(densities or {}), FULL: measured}
        lacking = {name for name, _ in measured if name not in keys}
        if lacking:
            raise DataError("keys", f"each measured part needs its key, but {', '.join(sorted(lacking)[:3])} has none")
        self._keys = keys
        self._seed = seed
        self._models: dict[tuple[str, str], GroupModel] = {}

    def estimate(self, key: PartKey, batch: int, *, density: Density = FULL) -> Estimate:
        """The best that can be said of a part at a batch size and density.

        Raises:
            SpecError: if `batch` is below 1.
            MissingEntryError: if nothing can be said; names the part and the operations that stand in the way.
        """
        check_count("batch", batch)
        near = self._near(key, batch, density)
        if near is not None:
            return near
        if density == FULL:
            return self._modelled(key, batch)
        between = self._between_densities(key, batch, density)
        if between is not None:
            return between
        raise MissingEntryError(
            f"part {_named(key)} at density {density[0]}/{density[1]} does not lie between densities that were"
            " measured; profile it there",
            (key.hash,),
        )

    def _near(self, key: PartKey, batch: int, density: Density) -> Estimate | None:
        """Measured, or between two measured batches."""
        table = self._tables.get(density, {})
        if (key.hash, batch) in table:
            entry = table[key.hash, batch]
            return Estimate(entry.ms, entry.relsd, "measured")
        sizes = self._sizes.get(density, {}).get(key.hash, ())
        if not sizes or not sizes[0] < batch < sizes[-1]:
            return None
        curve = PartCurve(sizes, tuple(table[key.hash, size].ms for size in sizes), key.hash)
        low = max(size for size in sizes if size < batch)
        high = min(size for size in sizes if size > batch)
        ends = [table[key.hash, size] for size in (low, high)]
        own = max(entry.relsd for entry in ends)
        return Estimate(curve.at(batch), math.hypot(own, self._interpolation_sd(ends)), "interpolated")

    def _interpolation_sd(self, ends: Sequence[Entry]) -> float:
        if len(self._checked) >= _MIN_CHECKED:
            return float(np.sqrt(np.mean(np.square(self._checked))))
        return _uniform_sd(ends[0].ms, ends[1].ms)

    @cached_property
    def _sizes(self) -> dict[Density, dict[str, tuple[int, ...]]]:
        found: dict[Density, dict[str, tuple[int, ...]]] = {}
        for density, table in self._tables.items():
            found[density] = {}
            for name, batch in sorted(table):
                found[density][name] = (*found[density].get(name, ()), batch)
        return found

    @cached_property
    def _checked(self) -> list[float]:
        """Log errors of measured batches that are interpolated from their neighbours instead."""
        return [error for density, sizes in self._sizes.items() for error in self._left_out(density, sizes)]

    def _left_out(self, density: Density, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[float]:
        table = self._tables[density]
        for name, batches in sizes.items():
            for low, middle, high in zip(batches, batches[1:], batches[2:], strict=False):
                curve = PartCurve((low, high), (table[name, low].ms, table[name, high].ms), name)
                yield math.log(table[name, middle].ms / curve.at(middle))

    def _between_densities(self, key: PartKey, batch: int, density: Density) -> Estimate | None:
        """Linear in the density: a part has a fixed share, and one for each unit that is switched on."""
        here = density[0] / density[1]
        found = [(num / den, self._near(key, batch, (num, den))) for num, den in self._tables]
        below = max(((at, e) for at, e in found if e is not None and at < here), default=None, key=lambda each: each[0])
        above = min(((at, e) for at, e in found if e is not None and at > here), default=None, key=lambda each: each[0])
        if below is None or above is None:
            return None
        share = (here - below[0]) / (above[0] - below[0])
        ends = (below[1], above[1])
        ms = (1 - share) * ends[0].ms + share * ends[1].ms
        return Estimate(
            ms, math.hypot(max(end.relsd for end in ends), _uniform_sd(ends[0].ms, ends[1].ms)), "interpolated"
        )

    def _modelled(self, key: PartKey, batch: int) -> Estimate:
        group = (key.kind, dominant(key))
        relatives = self._groups.get(group, [])
        self._refuse_unknown(key, group, relatives)
        if group not in self._models:
            self._models[group] = GroupModel(self._samples(relatives), seed=self._seed)
        model, asked = self._models[group], features(key, batch)
        factor = 1.0 if model.covers(asked) else 2.0
        return Estimate(model.predict(asked), factor * model.spread, "modelled")

    def _refuse_unknown(self, key: PartKey, group: tuple[str, str], relatives: Sequence[str]) -> None:
        known = {str(op["op"]) for name in relatives for op in self._keys[name].ops}
        strange = sorted({str(op["op"]) for op in key.ops} - known | set(key.uncounted))
        far = [shape.form for shape in dense_convolutions(key) if not self._surrounded(shape.form, shape.size)]
        if not key.ops or len(relatives) < MIN_KEYS:
            what = f"only {len(relatives)} parts like it ({' '.join(group).strip()}) are measured, {MIN_KEYS} needed"
        elif strange:
            what = f"neither a measured part like it nor a formula covers {', '.join(strange)}"
        elif far:
            what = f"its dense convolution {far[0]} does not lie between measured ones of that form"
        else:
            return
        raise MissingEntryError(f"nothing can be said of part {_named(key)}: {what}; profile it", (key.hash,))

    def _surrounded(self, form: tuple[int, ...], size: tuple[float, ...]) -> bool:
        """Dense convolutions jump with the kernel that the library picks: none is told beyond measured shapes."""
        cloud = self._convolutions.get(form)
        return cloud is not None and inside(np.array(size), np.array(sorted(cloud)))

    @cached_property
    def _convolutions(self) -> dict[tuple[int, ...], set[tuple[float, ...]]]:
        found: dict[tuple[int, ...], set[tuple[float, ...]]] = {}
        for name in self._sizes[FULL]:
            for shape in dense_convolutions(self._keys[name]):
                found.setdefault(shape.form, set()).add(shape.size)
        return found

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[str]]:
        """Hashes of the measured parts by kind and dominant family."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in sorted(self._sizes[FULL]):
            key = self._keys[name]
            if key.ops:
                found.setdefault((key.kind, dominant(key)), []).append(name)
        return found

    def _samples(self, relatives: Sequence[str]) -> list[Sample]:
        table = self._tables[FULL]
        return [
            Sample(name, features(self._keys[name], batch), table[name, batch].ms)
            for name in relatives
            for batch in self._sizes[FULL][name]
        ]


def _uniform_sd(low_ms: float, high_ms: float) -> float:
    """Of a value that may lie anywhere between the two, on a logarithmic scale."""
    return abs(math.log(high_ms / low_ms)) / math.sqrt(12)


def _named(key: PartKey) -> str:
    operators = sorted({operator(op) for op in key.ops})
    shown = ", ".join(operators[:6]) + (", ..." if len(operators) > 6 else "")
    return f"{key.kind} {key.hash} ({shown or 'no operations'})"
