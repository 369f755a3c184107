"""Profiling for a search: measure what its space can need, fit the correction, write the book."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import final

import numpy as np
import torch

from ..hardware.book import DevicePages, LatencyBook
from ..hardware.calibration import observe
from ..hardware.composition import PartCurve
from ..hardware.correction import IDENTITY, Correction, fit
from ..hardware.device import AbstractDevice, content_id
from ..hardware.drift import refresh
from ..hardware.elsewhere import Elsewhere
from ..hardware.fresh_process import FreshProcess
from ..hardware.inventory import Costs, Inventory, costs_of, inventory, inventory_of
from ..hardware.measurables import places
from ..hardware.pages import measured_pages, numbers, told_pages
from ..hardware.profile import curve_batches, profile
from ..hardware.table import LatencyTable
from ..hardware.timer import Protocol
from ..hardware.turn import turn
from ..spaces.architecture import Architecture
from ..spaces.backbone import Signature
from ..spaces.network import DynamicNetwork
from ..spaces.scope import Chance, Scope
from ..spaces.space import Space, build

CALIBRATION_NETWORKS = 16  # the fewest for which the correction has a term for calls
OF_A_KIND = 8  # networks of each kind of backbone, as kinds may have coefficients of their own
_DRAWS = 4  # for each network wanted, as some are the same to a stopwatch, in a small space most
LOG = logging.getLogger("dynarch")
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@final
class Profiler:
    """Fills the latency table for a space and reads the book from it.

    Args:
        space: what may be built.
        signature: inputs and classes.
        table: where measurements are kept.
        seed: order of the visits, choice of the calibration networks.
        protocol: how long to measure, in each of two processes.
        progress: told of every visit.
        there: measures a device that is on another node.
    """

    def __init__(
        self,
        space: Space,
        signature: Signature,
        table: LatencyTable,
        *,
        seed: int,
        protocol: Protocol | None = None,
        progress: Progress | None = None,
        there: Callable[[Elsewhere], DevicePages] | None = None,
    ) -> None:
        self._there = there
        self._space = space
        self._signature = signature
        self._table = table
        self._seed = seed
        # More rounds rather than longer ones: a slow spell of the machine must not cover all visits to a part.
        self._protocol = protocol or Protocol(rounds=3, warmup_ms=2, min_samples=10, min_ms=5, cap_ms=200)
        self._progress = progress

    def book(self, devices: Mapping[str, AbstractDevice]) -> tuple[LatencyBook, Inventory]:
        """Measure what is missing on each device; the book and what the space can ask of it."""
        compaction = any(device.batch > 1 for device in devices.values())
        found = inventory(self._space, self._signature, compaction=compaction, on_progress=self._note("listing parts"))
        return LatencyBook({name: self._pages(device, found) for name, device in devices.items()}), found

    def known(self, device: AbstractDevice, networks: Sequence[Costs]) -> LatencyBook | None:
        """A book of these networks alone, if all of it was measured here before; None if something must be measured."""
        if isinstance(device, Elsewhere):
            return None
        seen = str(refresh(self._table, device))
        if seen:
            LOG.warning("%s: %s", device.name, seen)
        environment = device.environment().environment_id
        pages = measured_pages(networks, self._table, environment, batch=device.batch)
        # Without a correction these were measured and never calibrated: the profile goes on where it ended.
        return None if pages is None or pages.correction.n == 0 else LatencyBook({"device": pages})

    def told(
        self, environment_id: str, networks: Sequence[Costs], members: Iterable[Architecture], *, batch: int
    ) -> LatencyBook:
        """A book of what the table says of some networks in an environment that is not at hand; nothing is measured.

        Args:
            environment_id: whose.
            networks: what is asked of.
            members: what they are made of; asked only if the table lacks some of their parts.
            batch: inputs at a time.

        Raises:
            SpecError: if the table does not know the environment.
            MissingEntryError: if nothing can be said of a part.
        """
        pages = measured_pages(networks, self._table, environment_id, batch=batch)
        if pages is None:
            found = inventory_of(members, self._signature, compaction=batch > 1)
            pages = told_pages(found, self._table, environment_id, batch=batch)
        return LatencyBook({"table": pages})

    def _pages(self, device: AbstractDevice, found: Inventory) -> DevicePages:
        if isinstance(device, Elsewhere) and self._there is not None:
            return self._there(device)
        with turn(on_wait=lambda holder: self._tell(f"waiting for process {holder}, which measures", 0, 0)):
            return self._measured(device, found)

    def _measured(self, device: AbstractDevice, found: Inventory) -> DevicePages:
        seen = str(refresh(self._table, device))
        if seen:
            LOG.warning("%s: %s", device.name, seen)
        where = places(found, device)
        groups = _by_rows(found, where)
        for most, names in groups.items():  # parts that take rows are measured at more sizes
            parts, there = {name: found.parts[name][0] for name in names}, {name: where[name] for name in names}
            profile(
                tuple(parts),
                FreshProcess(self._space, self._signature, parts, there, device),
                device=device,
                store=self._table,
                seed=self._seed,
                batches=curve_batches(device.batch * most),
                protocol=self._protocol,
                on_progress=lambda done, total: self._tell(f"measuring on {device.name}", done, total),
            )
        environment = device.environment().environment_id
        version = self._table.freeze(environment).version
        curves: dict[str, PartCurve] = {}
        for most, names in groups.items():
            curves |= self._curves(names, device, environment, version, sizes=curve_batches(device.batch * most))
        pages = DevicePages(device.batch, environment, version, IDENTITY, curves)
        correction = self._correction(device, pages)
        return DevicePages(device.batch, environment, version, correction, curves)

    def _curves(
        self, hashes: tuple[str, ...], device: AbstractDevice, environment: str, version: str, *, sizes: tuple[int, ...]
    ) -> dict[str, PartCurve]:
        entries = self._table.entries(environment, hashes, sizes, version=version, statistic=device.statistic)
        return {each: PartCurve(sizes, tuple(entries[each, size].ms for size in sizes), each) for each in hashes}

    def _correction(self, device: AbstractDevice, pages: DevicePages) -> Correction:
        """Fit on a few whole networks of the space, each run along every path; kept, so that the same entries
        always give the same predictions."""
        what = {"pages": pages.to_mapping(), "seed": self._seed, "networks": [CALIBRATION_NETWORKS, OF_A_KIND]}
        fitted_on = content_id({**what, "signature": self._signature.to_mapping()})
        stored = self._table.correction(fitted_on)
        if stored is not None:
            return Correction.from_dict(numbers({k: v for k, v in stored.payload.items() if k != "batch"}))
        kept = self._table.kept_sessions(pages.environment_id, version=pages.table_version)
        sessions = [session for session, _ in kept.values()]
        correction = fit(observe(self._networks(), device, pages, seed=self._seed, sessions=sessions))
        payload = {**correction.to_dict(), "batch": device.batch}
        self._table.put_correction(fitted_on, pages.environment_id, pages.table_version, payload)
        return correction

    def _networks(self) -> list[DynamicNetwork]:
        """The static baselines and members of the space drawn at random, no two of the same parts.

        A draw from a space of many families hardly ever is static, and calls tell most where there is a single one.
        """
        wanted = max(CALIBRATION_NETWORKS, OF_A_KIND * len(self._space.backbones))
        found: dict[tuple[str, ...], DynamicNetwork] = {}
        for architecture in chain(self._space.baselines(self._signature), self._draws(_DRAWS * wanted)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed)
                network = build(architecture, self._signature).eval()
            found.setdefault(costs_of(network).keys, network)
            if len(found) == wanted:
                break
        return list(found.values())

    def _draws(self, count: int) -> Iterator[Architecture]:
        for index in range(count):
            chance = Chance(np.random.default_rng([self._seed, 0xCA1, index]))
            yield self._space.sample(Scope(chance), self._signature)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)

    def _note(self, what: str) -> Callable[[int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done: progress(what, done, 0)


def _by_rows(found: Inventory, where: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Rows that an input may bring to one call -> the parts that take so many."""
    groups: dict[int, tuple[str, ...]] = {}
    for name in where:
        rows = found.parts[name][1].info.rows
        groups[rows] = (*groups.get(rows, ()), name)
    return groups
