"""What is compared: the corrected table, and the baselines that it has to beat. All see the first half only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dynarch.benchmarks.heldout.networks import Net, each_part, operations
from dynarch.benchmarks.heldout.rounds import LARGE, Dynamic, Half, Member
from dynarch.hardware.book import DevicePages
from dynarch.hardware.composition import LatencyDistribution, PartCurve
from dynarch.hardware.correction import IDENTITY, Correction, Observation, fit
from dynarch.hardware.estimate import Estimate
from dynarch.hardware.interval import MIN_RELSD, NORMAL_SCALE, network_relsd
from dynarch.hardware.keys import PartKey
from dynarch.hardware.operations import features
from dynarch.hardware.profile import curve_batches
from dynarch.hardware.table import Entry
from dynarch.hardware.unseen import UnseenParts
from dynarch.hardware.ways import ways_of
from dynarch.spaces.errors import MissingEntryError

Floats = NDArray[np.float64]
Predict = Callable[[Net, int], float]
_FAINT: Final = 1e-3  # ridge, relative to the columns


@dataclass(frozen=True)
class Predicted:
    """A prediction with its interval; `relsd` is what parts that were not measured bring."""

    ms: float
    low: float
    high: float
    relsd: float


@dataclass(frozen=True)
class Table:
    """What one half says about parts, and where it says nothing, the ladder.

    Args:
        half: measured parts.
        hidden: keys that are treated as never measured.
        ladder: estimates for these.
    """

    half: Half
    hidden: frozenset[str] = frozenset()
    ladder: UnseenParts | None = None

    def part(self, key: PartKey, batch: int = 1) -> Estimate:
        """One part; measured ones are in no doubt, as what they are off by is in the correction.

        Raises:
            MissingEntryError: if nothing can be said.
        """
        if key.hash in self.hidden:
            assert self.ladder is not None
            return self.ladder.estimate(key, batch)
        return Estimate(self.half.ms[f"part/{key.hash}/{batch}"], 0.0, "measured")

    def path(self, net: Net, path: int, batch: int = 1) -> tuple[float, float, float]:
        """Sum of the parts on a path, how many they are, and the relative deviation of the sum."""
        runs = net.runs(path)
        found = [(float(n), self.part(key, batch)) for n, key in zip(runs, net.keys, strict=True) if n > 0]
        return sum(n * each.ms for n, each in found), float(runs.sum()), network_relsd(found)


def ladder(half: Half, nets: Iterable[Net], *, hidden: frozenset[str], seed: int) -> UnseenParts:
    """Estimates from the parts of some networks at batch 1, without the hidden ones."""
    keys = {key.hash: key for key, _ in each_part([*nets]) if key.hash not in hidden}
    return UnseenParts({(name, 1): entry(half, name, 1) for name in keys}, keys, seed=seed)


def entry(half: Half, key: str, batch: int) -> Entry:
    """As a latency table would hand it out."""
    name = f"part/{key}/{batch}"
    return Entry(half.ms[name], half.relsd[name], 2)


def corrected(table: Table, members: Sequence[Member], *, batch: int = 1) -> Correction:
    """Fitted on every way of some networks that was measured in the half of the table."""
    found = []
    for number, (name, net) in enumerate(members):
        for path, way in enumerate(ways_of(net.network, batch=batch)):
            measured = table.half.ms.get(f"{name}/{path}/{batch}")
            if measured is not None:
                curves = {key.hash: _curve(table.half, key.hash, batch) for key in net.keys}
                pages = DevicePages(batch, "half", "half", IDENTITY, curves)
                told = pages.predict(net.costs, way.policy, way.exit_taken, seed=0)
                found.append(Observation(told.mean_ms * batch, told.calls, measured, told.relsd, number, net.family))
    return fit(found)


def predict(table: Table, correction: Correction, net: Net, path: int) -> Predicted | None:
    """`T = b + a * sum + c * calls` with its interval; None where the table refuses."""
    try:
        total, calls, relsd = table.path(net, path)
    except MissingEntryError:
        return None
    own = correction.of(net.family)
    ms = own.apply(total, calls)
    share = relsd * own.a * total / ms
    return Predicted(ms, *own.interval(ms, share), share)


def line(rows: Floats, measured_ms: Floats) -> Callable[[Floats], float]:
    """Least squares on relative errors: a constant and a coefficient for each column of `n x k` features."""
    design = np.column_stack([np.ones(len(rows)), rows]) / measured_ms[:, None]
    scale = np.linalg.norm(design, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    faint = _FAINT * np.eye(design.shape[1])
    target = np.concatenate([np.ones(len(rows)), np.zeros(design.shape[1])])
    found = np.linalg.lstsq(np.concatenate([design / scale, faint]), target, rcond=None)[0] / scale
    least = float(measured_ms.min()) / 2  # no network comes out as free
    return lambda row: max(float(found[0] + row @ found[1:]), least)


def operator_counts(net: Net, path: int) -> Floats:
    """How many operations of each family run on a path."""
    runs = net.runs(path)
    counted: Floats = runs @ np.stack([features(key, 1)[:, 0] for key in net.keys])
    return counted


def operator_sums(nets: Iterable[Net], half: Half) -> Mapping[str, float]:
    """Of each part, the sum of its operations timed one by one."""
    sums = {}
    for key, part in each_part([*nets]):
        counted = Counter(name for name, _ in operations(part))
        sums[key.hash] = sum(many * half.ms[f"op/{name}"] for name, many in counted.items())
    return sums


def baselines(half: Half, members: Sequence[Member], nets: Iterable[Net]) -> dict[str, Predict]:
    """Predictors of `nets` beside the corrected table; lines are fitted on the same paths as the correction."""
    table, sums = Table(half), operator_sums(nets, half)
    fitted = [(net, path, half.ms[f"{name}/{path}/1"]) for name, net in members for path in range(len(net.paths))]
    measured = np.array([ms for _, _, ms in fitted])
    by_macs = line(np.array([[net.macs(path)] for net, path, _ in fitted]), measured)
    by_count = line(np.stack([operator_counts(net, path) for net, path, _ in fitted]), measured)
    return {
        "raw segment sum": lambda net, path: table.path(net, path)[0],
        "raw operator sum": lambda net, path: float(net.runs(path) @ np.array([sums[k.hash] for k in net.keys])),
        "operator-count line": lambda net, path: by_count(operator_counts(net, path)),
        "FLOPs line": lambda net, path: by_macs(np.array([net.macs(path)])),
    }


def part_interval(estimate: Estimate) -> tuple[float, float]:
    """Where nine in ten measurements of a part are expected, if its deviation is that of a normal distribution."""
    radius = NORMAL_SCALE * max(estimate.relsd, MIN_RELSD)
    return estimate.ms * float(np.exp(-radius)), estimate.ms * float(np.exp(radius))


def distribution(each: Dynamic, half: Half, correction: Correction, *, batch: int, seed: int) -> LatencyDistribution:
    """Of a dynamic network, from the trace of the very inputs that it is timed on."""
    curves = {key.hash: _curve(half, key.hash, batch) for key in each.net.keys}
    pages = DevicePages(batch, "half", "half", correction, curves)
    return pages.predict(each.net.costs, each.policy, each.taken, seed=seed)


def _curve(half: Half, key: str, batch: int) -> PartCurve:
    sizes = [size for size in curve_batches(LARGE) if size <= batch and f"part/{key}/{size}" in half.ms]
    return PartCurve(tuple(sizes), tuple(half.ms[f"part/{key}/{size}"] for size in sizes), key)
