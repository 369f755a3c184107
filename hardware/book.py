"""Latency book: the part of a latency table that one search needs, small enough to travel to workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import MissingEntryError
from ..spaces.policy import Policy
from ..spaces.trace import PartInfo, counts, dearest_usage, present
from .composition import LatencyDistribution, PartCurve, compose
from .correction import Correction
from .inventory import Costs


@final
@dataclass(frozen=True)
class DevicePages:
    """What is known of one device.

    Args:
        batch: inputs at a time.
        environment_id, table_version: where the entries come from.
        correction: from sums of parts to whole networks.
        curves: key of a part -> its cost.
    """

    batch: int
    environment_id: str
    table_version: str
    correction: Correction
    curves: Mapping[str, PartCurve]

    def lookup(self, costs: Costs) -> tuple[PartCurve, ...]:
        """The curves of a network's parts.

        Raises:
            MissingEntryError: if a part was never measured; nothing is guessed, nothing is zero.
        """
        # One input is never compacted; that part cannot run, so it needs no entry.
        idle = PartCurve((1,), (1e-9,), "compact")
        needed = list(zip(costs.parts, costs.keys, strict=True))
        lacking = [(p.name, k) for p, k in needed if k not in self.curves and not self._unused(p.kind)]
        if lacking:
            names = ", ".join(f"{name} ({key[:8]})" for name, key in lacking[:4])
            raise MissingEntryError(
                f"the latency table {self.table_version} has no entry for {names}; profile the space again",
                [key for _, key in lacking],
            )
        return tuple(idle if self._unused(part.kind) else self.curves[key] for part, key in needed)

    def _unused(self, kind: str) -> bool:
        return self.batch == 1 and kind == "compact"

    def predict(
        self,
        costs: Costs,
        policy: Policy,
        exit_taken: NDArray[np.int64],
        *,
        seed: int,
        usage: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    ) -> LatencyDistribution:
        """The latency of a network under a policy, for inputs that leave at these exits.

        Args:
            costs: the network's parts.
            policy: when to leave.
            exit_taken: `n`.
            seed: of the shuffling into batches.
            usage: part -> `n`, how often an input that gets there runs it.
        """
        matrix = counts(costs.parts, policy, exit_taken, usage)
        curves = self.lookup(costs)
        price = np.array([self._full(part, curve) / part.rows for part, curve in zip(costs.parts, curves, strict=True)])
        deepest = np.array([_deepest(policy)])
        reached = counts(costs.parts, policy, deepest)[0] > 0
        dearest = dearest_usage(costs.parts, price * reached)
        worst = counts(costs.parts, policy, deepest, dearest)[0]
        if self.batch == 1:
            compacting = [part.kind == "compact" for part in costs.parts]
            matrix[:, compacting] = 0
            worst[compacting] = 0
        return compose(
            matrix,
            curves,
            batch=self.batch,
            correction=self.correction.of(costs.kind),
            seed=seed,
            worst=worst,
            present=present(costs.parts, exit_taken) if self.batch > 1 else None,
            together=[part.rows > 1 for part in costs.parts],
        )

    def _full(self, part: PartInfo, curve: PartCurve) -> float:
        """Milliseconds of one call with everything that a whole batch may bring."""
        return curve.at(min(self.batch * part.rows, curve.batches[-1]))

    def part_ms(self, costs: Costs) -> NDArray[np.float64]:
        """Milliseconds each part adds for one input (or one of its rows) at this batch, for the policy search (`p`)."""
        correction = self.correction.of(costs.kind)
        scale, call = correction.a, correction.c_ms
        each = [
            0.0 if self._unused(part.kind) else (scale * self._full(part, curve) + call) / (self.batch * part.rows)
            for part, curve in zip(costs.parts, self.lookup(costs), strict=True)
        ]
        return np.array(each, dtype=np.float64)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "batch": self.batch,
            "environment_id": self.environment_id,
            "table_version": self.table_version,
            "correction": self.correction.to_dict(),
            "curves": {key: curve.to_list() for key, curve in self.curves.items()},
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> DevicePages:
        """The inverse of `to_mapping`."""
        curves = {key: PartCurve.from_list(values, key) for key, values in mapping["curves"].items()}
        return cls(
            int(mapping["batch"]),
            str(mapping["environment_id"]),
            str(mapping["table_version"]),
            Correction.from_dict(mapping["correction"]),
            curves,
        )


@final
@dataclass(frozen=True)
class LatencyBook:
    """One chapter a device, the first being the one that policies are tuned for."""

    devices: Mapping[str, DevicePages]

    @property
    def first(self) -> tuple[str, DevicePages]:
        """Name and pages of the first device."""
        return next(iter(self.devices.items()))

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: pages.to_mapping() for name, pages in self.devices.items()}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LatencyBook:
        """The inverse of `to_mapping`."""
        return cls({name: DevicePages.from_mapping(pages) for name, pages in mapping.items()})


def _deepest(policy: Policy) -> int:
    """The last exit that an input can leave at: nobody passes an exit where everybody leaves."""
    walls = [index for index, threshold in enumerate(policy.thresholds) if threshold == -np.inf]
    return walls[0] if walls else len(policy.thresholds)
