"""Pages from a table alone: what a device that is not at hand is known to cost, part by part, by the ladder.

A part that the table holds is what was measured; one that it lacks is told by the ladder with its doubt, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..spaces.errors import MissingEntryError, SpecError, StoreError
from ..spaces.trace import COMPACT
from .book import DevicePages
from .composition import PartCurve
from .correction import IDENTITY, Correction
from .device import Environment, Statistic
from .devices import DEVICES
from .estimate import Estimate
from .inventory import Costs, Inventory
from .keys import PartKey
from .profile import curve_batches
from .table import LatencyTable
from .unseen import UnseenParts

_SHOWN = 3  # refusals that a message spells out


def told_pages(
    found: Inventory, table: LatencyTable, environment_id: str, *, batch: int, version: str | None = None
) -> DevicePages:
    """The pages of an environment, nothing of which is measured now.

    Args:
        found: the parts that are asked for.
        table: where its measurements are, own or imported.
        environment_id: whose.
        batch: inputs at a time.
        version: a frozen version; the present state, which is frozen, if absent.

    Raises:
        SpecError: if the table knows no such environment.
        StoreError: if it holds nothing for it, or no such version.
        MissingEntryError: if nothing can be said of some part; says why, and names all of them.
    """
    environments = table.environments()
    if environment_id not in environments:
        known = ", ".join(sorted(environments)) or "none; import one with `dynarch table import`"
        raise SpecError(
            "table", f"must be the id of an environment in the latency table ({known}), got {environment_id!r}"
        )
    named = version or table.freeze(environment_id).version
    statistic = _statistic(environments[environment_id])
    measured = table.measured(environment_id, version=named, statistic=statistic)
    parts = UnseenParts(measured, table.part_keys(environment_id))
    asked = {
        key.hash: (key, batch * part.info.rows)
        for key, part in found.parts.values()
        if batch > 1 or part.info.kind != COMPACT
    }
    correction = _correction(table, environment_id, named, batch)
    return DevicePages(batch, environment_id, named, correction, told_curves(parts, asked))


def measured_pages(
    networks: Iterable[Costs], table: LatencyTable, environment_id: str, *, batch: int
) -> DevicePages | None:
    """The pages of these networks alone, if the table has measured all their parts; None if it has not.

    Nothing is built and nothing measured, so that finished candidates are read on a known device in no time.
    """
    environments = table.environments()
    if environment_id not in environments:
        return None
    asked: dict[str, int] = {}
    for costs in networks:
        for part, key in zip(costs.parts, costs.keys, strict=True):
            if batch > 1 or part.kind != COMPACT:
                asked[key] = max(asked.get(key, 0), part.rows)
    statistic = _statistic(environments[environment_id])
    curves: dict[str, PartCurve] = {}
    try:
        version = table.freeze(environment_id).version
        for rows in sorted(set(asked.values())):
            names, sizes = [key for key, most in asked.items() if most == rows], curve_batches(batch * rows)
            entries = table.entries(environment_id, names, sizes, version=version, statistic=statistic)
            curves |= {key: PartCurve(sizes, tuple(entries[key, size].ms for size in sizes), key) for key in names}
    except (MissingEntryError, StoreError):
        return None
    return DevicePages(batch, environment_id, version, _correction(table, environment_id, version, batch), curves)


def told_curves(parts: UnseenParts, asked: Mapping[str, tuple[PartKey, int]]) -> dict[str, PartCurve]:
    """The curve of every part that is asked for, by its hash; each goes with the most inputs, or rows, of a call.

    Raises:
        MissingEntryError: if nothing can be said of some of them.
    """
    curves: dict[str, PartCurve] = {}
    refused: dict[str, str] = {}
    for name, (key, most) in asked.items():
        sizes = curve_batches(most)
        try:
            curves[name] = _curve([parts.estimate(key, size) for size in sizes], sizes, name)
        except MissingEntryError as error:
            refused[name] = str(error)
    if refused:
        shown = "; ".join(list(refused.values())[:_SHOWN])
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise MissingEntryError(f"{len(refused)} of {len(asked)} parts cannot be told: {shown}{more}", list(refused))
    return curves


def _curve(estimates: list[Estimate], sizes: tuple[int, ...], name: str) -> PartCurve:
    times = tuple(each.ms for each in estimates)
    if all(each.how == "measured" for each in estimates):
        return PartCurve(sizes, times, name)
    # What measured ones are off by is in the correction.
    doubts = tuple((each.how, 0.0 if each.how == "measured" else each.relsd) for each in estimates)
    return PartCurve(sizes, times, name, doubts)


def _statistic(environment: Environment) -> Statistic:
    kind = environment.to_dict().get("kind")
    return next((device.statistic for device in DEVICES if device.kind == kind), "min")


def _correction(table: LatencyTable, environment_id: str, version: str, batch: int) -> Correction:
    """The last one that was fitted on this version at this batch; it travels with an exported table."""
    for stored in reversed(table.corrections(environment_id, version)):
        payload = dict(stored.payload)
        if payload.pop("batch", None) == batch:
            return Correction.from_dict(numbers(payload))
    return IDENTITY


def numbers(payload: Mapping[str, object]) -> dict[str, Any]:
    """What of a stored correction is a correction: its numbers, and those of kinds of backbones."""
    return {name: value for name, value in payload.items() if value is None or isinstance(value, int | float | Mapping)}
