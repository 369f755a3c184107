"""The networks of the held-out protocol, their paths, and the operations that they execute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

import dynarch as da
from dynarch.hardware.inventory import Costs, KeyCache, keys_of
from dynarch.hardware.keys import PartKey
from dynarch.hardware.ways import paths
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.scope import Chance, Scope
from dynarch.spaces.trace import COMPACT, Part, counts

SIGNATURE = da.Signature((3, 32, 32), 10)
SLOWEST = 0.1  # this share of the networks, the largest by work, is kept wholly for testing
EXITS = da.EarlyExit(max_exits=3, heads=("linear", "mlp", "conv"), training=("equal",))
RECIPE = da.Recipe(learning_rate=(0.01,), batch_size=64)
RESIDUAL = da.Space((da.Residual(width=(8, 16, 24), depth=(1, 2)),), (EXITS,), RECIPE)
INVERTED = da.Space((da.InvertedResidual(width=(8, 16, 24), expansion=(2, 4), depth=(1, 2)),), (EXITS,), RECIPE)
BOTH = da.Space((*RESIDUAL.backbones, *INVERTED.backbones), (EXITS,), RECIPE)


@dataclass(frozen=True, eq=False)
class Net:
    """A network with fresh weights.

    Args:
        network: in evaluation mode.
        parts, keys: what routed mode may run, and what of it tells the cost.
        paths: ways through it, each with the exit where it ends.
        chosen: number of the path on which it is tested.
    """

    network: DynamicNetwork
    parts: tuple[Part, ...]
    keys: tuple[PartKey, ...]
    paths: tuple[tuple[da.Policy, int], ...]
    chosen: int

    @property
    def family(self) -> str:
        """Of its backbone."""
        return str(self.network.architecture.backbone["name"])

    @property
    def costs(self) -> Costs:
        """What the latency book asks for."""
        infos = tuple(part.info for part in self.parts)
        macs = tuple(key.macs for key in self.keys)
        return Costs(infos, tuple(key.hash for key in self.keys), macs, 0, self.family)

    def runs(self, path: int) -> NDArray[np.float64]:
        """How often one input runs each part on a path, compaction left out (`p`)."""
        policy, taken = self.paths[path]
        row: NDArray[np.float64] = counts(self.costs.parts, policy, np.array([taken]))[0]
        row[[part.info.kind == COMPACT for part in self.parts]] = 0
        return row

    def macs(self, path: int) -> float:
        """Multiply-accumulates of one input on a path."""
        return float(self.runs(path) @ np.array([key.macs for key in self.keys]))


@dataclass(frozen=True)
class Sets:
    """Who is used for what.

    Args:
        calibration: what corrections and lines are fitted on.
        test: what nothing was fitted on, the slowest among them.
        other: further networks of the family that is seen, to calibrate for the family that is not.
    """

    calibration: tuple[Net, ...]
    test: tuple[Net, ...]
    other: tuple[Net, ...]

    @property
    def all(self) -> tuple[Net, ...]:
        """Everybody once."""
        return (*self.calibration, *self.test, *self.other)


def draw(calibration: int, test: int, *, seed: int) -> Sets:
    """Networks of both families at random, spread evenly over the logarithm of their work, none twice.

    The unseen family is the inverted residual one: for it, corrections are fitted on as many residual networks.
    """
    cache: KeyCache = {}
    seen: set[tuple[str, ...]] = set()
    pool = _sample(BOTH, 2 * (calibration + test), seen, cache, seed=seed)
    nets = sorted(stratified(pool, calibration + test, seed=seed), key=lambda net: net.macs(0))
    kept = max(1, round(SLOWEST * len(nets)))
    rest = [nets[index] for index in np.random.default_rng(seed).permutation(len(nets) - kept)]
    fitted, tested = rest[:calibration], [*rest[calibration:], *nets[-kept:]]
    residual = sum(net.family == "residual" for net in fitted)
    other = _sample(RESIDUAL, calibration - residual, seen, cache, seed=seed + 1)
    return Sets(tuple(fitted), tuple(tested), tuple(other))


def stratified(nets: Sequence[Net], count: int, *, seed: int) -> list[Net]:
    """`count` networks, as evenly as there are some from eight bins of equal width in the logarithm of their work."""
    work = np.log([net.macs(0) for net in nets])
    order = np.random.default_rng(seed).permutation(len(nets))
    edges = np.linspace(work.min(), work.max(), 9)[1:-1]
    bins = [[nets[index] for index in order if np.digitize(work[index], edges) == number] for number in range(8)]
    found: list[Net] = []
    while len(found) < min(count, len(nets)):
        found += [members.pop() for members in bins if members][: count - len(found)]
    return found


def _sample(space: da.Space, count: int, seen: set[tuple[str, ...]], cache: KeyCache, *, seed: int) -> list[Net]:
    found: list[Net] = []
    for index in range(20 * count):
        if len(found) == count:
            break
        rng = np.random.default_rng([seed, index])
        architecture = space.sample(Scope(Chance(rng)), SIGNATURE)
        torch.manual_seed(seed + index)
        network = da.build(architecture, SIGNATURE).eval()
        parts = network.parts()
        keys = keys_of(parts, cache)
        named = tuple(key.hash for key in keys)
        if named not in seen:
            seen.add(named)
            ways = paths(network)
            found.append(Net(network, parts, keys, ways, int(rng.integers(len(ways)))))
    return found


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation that reaches a kernel, with an example of its arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, Callable[[], object]]] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        options = dict(kwargs or {})
        name = f"{func}({', '.join(map(_text, args))}; {', '.join(f'{k}={_text(v)}' for k, v in options.items())})"
        self.seen.append((name, lambda: func(*args, **options)))
        return func(*args, **options)


def operations(part: Part) -> list[tuple[str, Callable[[], object]]]:
    """The operations of a part on its example input, each under a name that equal work shares."""
    noted = Operations()
    with torch.no_grad(), noted:
        part.call(*part.inputs)
    return noted.seen


def _text(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return "." if isinstance(value, float) else str(value)


def divided(net: Net, x: Tensor, *, seed: int) -> da.Policy:
    """Thresholds that let between a fifth and a half of those who reach an exit leave there, as seen on `x`."""
    rng = np.random.default_rng(seed)
    steps = net.network.exit_steps
    scheme = steps[0].decisions[int(rng.integers(3))]  # not patience: it counts exits that agree
    with torch.no_grad():
        logits = net.network(x)
    thresholds, inside = [], np.ones(len(x), dtype=bool)
    for each in logits[:-1]:
        score = scheme.score(each, None)[0].numpy()
        thresholds.append(float(np.quantile(score[inside], 1 - rng.uniform(0.2, 0.5))))
        inside &= score <= thresholds[-1]
    return da.Policy(scheme.name, tuple(thresholds))


def inputs(count: int, *, seed: int) -> Tensor:
    """Images of noise whose contrast and brightness vary, so that networks are not equally sure of all of them."""
    rng = torch.Generator().manual_seed(seed)
    contrast, brightness = (torch.rand(count, 1, 1, 1, generator=rng) for _ in range(2))
    return brightness + 2 * contrast * torch.randn(count, *SIGNATURE.input_shape, generator=rng)


def each_part(nets: Sequence[Net]) -> Iterator[tuple[PartKey, Part]]:
    """Every part of some networks once."""
    known: set[str] = set()
    for net in nets:
        for key, part in zip(net.keys, net.parts, strict=True):
            if key.hash not in known:
                known.add(key.hash)
                yield key, part
