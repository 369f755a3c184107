"""Profiling for a search: measure what its space can need, fit the correction, write the book."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from ..hardware.book import DevicePages, LatencyBook
from ..hardware.composition import PartCurve
from ..hardware.correction import IDENTITY, Correction, Observation, fit
from ..hardware.device import AbstractDevice, content_id
from ..hardware.inventory import Inventory, batched, costs_of, inventory
from ..hardware.keys import PartKey
from ..hardware.profile import Measurable, curve_batches, profile, time_network
from ..hardware.table import LatencyTable
from ..hardware.timer import Protocol, Task
from ..spaces.backbone import Signature
from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from ..spaces.scope import Chance, Scope
from ..spaces.space import Space, build
from ..spaces.trace import Part, counts

CALIBRATION_NETWORKS = 12
CALIBRATION_ROUNDS = 20
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@final
class Profiler:
    """Fills the latency table for a space and reads the book from it.

    Args:
        space: what may be built.
        signature: inputs and classes.
        table: where measurements are kept.
        seed: order of the visits, choice of the calibration networks.
        protocol: how long to measure.
        progress: told of every visit.
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
    ) -> None:
        self._space = space
        self._signature = signature
        self._table = table
        self._seed = seed
        # More rounds rather than longer ones: a slow spell of the machine must not cover all visits to a part.
        self._protocol = protocol or Protocol(rounds=5, warmup_ms=2, min_samples=10, min_ms=5, cap_ms=200)
        self._progress = progress

    def book(self, devices: Mapping[str, AbstractDevice]) -> tuple[LatencyBook, Inventory]:
        """Measure what is missing on each device; the book and what the space can ask of it."""
        compaction = any(device.batch > 1 for device in devices.values())
        found = inventory(self._space, self._signature, compaction=compaction, on_progress=self._note("listing parts"))
        return LatencyBook({name: self._pages(device, found) for name, device in devices.items()}), found

    def _pages(self, device: AbstractDevice, found: Inventory) -> DevicePages:
        parts = {h: kp for h, kp in found.parts.items() if kp[1].info.kind != "compact" or device.batch > 1}
        measurables = [_measurable(key, part, device) for key, part in parts.values()]
        note = self._note(f"measuring on {device.name}")
        profile(
            measurables,
            device=device,
            store=self._table,
            seed=self._seed,
            protocol=self._protocol,
            on_progress=None if note is None else lambda done, total: self._tell(device, done, total),
        )
        environment = device.environment().environment_id
        version = self._table.freeze(environment).version
        curves = self._curves(tuple(parts), device, environment, version)
        pages = DevicePages(device.batch, environment, version, IDENTITY, curves)
        correction = self._correction(device, pages)
        return DevicePages(device.batch, environment, version, correction, curves)

    def _curves(
        self, hashes: tuple[str, ...], device: AbstractDevice, environment: str, version: str
    ) -> dict[str, PartCurve]:
        sizes = curve_batches(device.batch)
        entries = self._table.entries(environment, hashes, sizes, version=version, statistic=device.statistic)
        return {each: PartCurve(sizes, tuple(entries[each, size].ms for size in sizes), each) for each in hashes}

    def _correction(self, device: AbstractDevice, pages: DevicePages) -> Correction:
        """Fit on a few whole networks of the space, each run along every path; kept, so that the same entries
        always give the same predictions."""
        what = {"pages": pages.to_mapping(), "seed": self._seed, "networks": CALIBRATION_NETWORKS}
        fitted_on = content_id({**what, "signature": self._signature.to_mapping()})
        stored = self._table.correction(fitted_on)
        if stored is not None:
            return Correction.from_dict(_numbers(stored.payload))
        correction = fit(calibration_observations(self._networks(), device, pages, seed=self._seed))
        payload = dict(correction.to_dict())
        self._table.put_correction(fitted_on, pages.environment_id, pages.table_version, payload)
        return correction

    def _networks(self) -> list[DynamicNetwork]:
        networks = []
        for index in range(CALIBRATION_NETWORKS):
            chance = Chance(np.random.default_rng([self._seed, 0xCA1, index]))
            architecture = self._space.sample(Scope(chance), self._signature)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed)
                networks.append(build(architecture, self._signature).eval())
        return networks

    def _tell(self, device: AbstractDevice, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(f"measuring on {device.name}", done, total)

    def _note(self, what: str) -> Callable[[int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done: progress(what, done, 0)


def calibration_observations(
    networks: Sequence[DynamicNetwork], device: AbstractDevice, pages: DevicePages, *, seed: int
) -> list[Observation]:
    """Whole networks timed along each of their paths, in interleaved rounds, beside what their parts sum to."""
    runs, sums = [], []
    for network in networks:
        costs = costs_of(network)
        ready = device.prepare(network)
        example = batched((network.parts()[0].inputs[0],), device.batch)[0]
        x = device.place(example)
        with torch.no_grad():
            run = network.simulate(example)
        usage = {name: values.numpy() for name, values in run.usage.items()}
        for exit_index in range(network.exits + 1):
            policy = Policy.single(network.exits, exit_index)
            taken = np.full(device.batch, exit_index)
            total = pages.predict(costs, policy, taken, seed=seed, usage=usage).mean_ms * device.batch
            calls = int(counts(costs.parts, policy, taken[:1], usage)[0].sum())
            runs.append(_bind(ready, x, policy))
            sums.append((total, calls))
    times = time_network(lambda index: runs[index](), len(runs), rounds=CALIBRATION_ROUNDS, device=device, seed=seed)
    return [Observation(total, calls, float(ms)) for (total, calls), ms in zip(sums, times, strict=True)]


def _bind(network: nn.Module, x: Tensor, policy: Policy) -> Callable[[], object]:
    assert isinstance(network, DynamicNetwork)
    return lambda: network.route(x, policy)


def _measurable(key: PartKey, part: Part, device: AbstractDevice) -> Measurable:
    def make(batch: int) -> Task:
        call = _prepared(part.call, device)
        inputs = tuple(device.place(x) for x in batched(part.inputs, batch))
        return lambda: call(*inputs)

    return Measurable(key, make)


def _prepared(call: Callable[..., object], device: AbstractDevice) -> Callable[..., object]:
    """The part on the device: a module, a method of one, or a function without weights."""
    if isinstance(call, nn.Module):
        return device.prepare(call)
    owner = getattr(call, "__self__", None)
    if isinstance(owner, nn.Module):
        method: Callable[..., object] = getattr(device.prepare(owner), call.__name__)
        return method
    return call


def _numbers(payload: Mapping[str, object]) -> dict[str, float | int | None]:
    return {name: value for name, value in payload.items() if value is None or isinstance(value, int | float)}
