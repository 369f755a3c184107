"""The rounds of the held-out protocol: parts, operations, networks and canaries in turns, in several processes.

Every round visits everything once in a new order, and every second round belongs to the other half. Predictors see
the first half only and are tested on the second, so that no disturbance is in both.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dynarch as da
from dynarch.benchmarks.heldout.networks import Net, Sets, divided, draw, each_part, inputs, operations
from dynarch.hardware.calibration import CALLS
from dynarch.hardware.correction import MIN_FOR_CALLS
from dynarch.hardware.device import content_id
from dynarch.hardware.measurables import measurable
from dynarch.hardware.profile import curve_batches, time_network
from dynarch.hardware.session import canaries, check_canaries
from dynarch.hardware.steadiness import sentinel_of
from dynarch.hardware.timer import Lazy, Protocol, Ready, Task, time_task
from dynarch.hardware.ways import ways_of
from dynarch.spaces.network import DynamicNetwork

LARGE: Final = 32
_PARTS: Final = Protocol(rounds=1, warmup_calls=2, warmup_ms=1, min_samples=10, min_ms=5, cap_ms=200)
_CANARY_LIMIT: Final = 1.10  # a round in which the machine was slower than that, against the best one, is left out
_KEPT: Final = 2  # rounds that each half keeps at least
_TUNED: Final = 400  # inputs on which thresholds are chosen; other ones are timed

Floats = NDArray[np.float64]
Pass = Callable[[Ready | None], Floats]  # times all batches of a dynamic network once, in milliseconds a call
Member = tuple[str, Net]  # the beginning of the names of its tasks, and the network


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Args:
        calibration, test: networks.
        dynamic: networks whose inputs leave at different exits, at batch 1; `large` of these at batch 32 too.
        traced: inputs each of them is timed on at batch 1.
        calls: batches at batch 32.
        rounds: of a process, an even number.
        processes: one after the other.
        seed: of everything that is drawn.
        steady: whether sampling waits while a sentinel says that the machine is in a slow spell.
    """

    calibration: int
    test: int
    dynamic: int
    large: int
    traced: int
    calls: int
    rounds: int
    processes: int
    seed: int
    steady: bool


@dataclass(frozen=True, eq=False)
class Dynamic:
    """A network that is left at different exits, and the inputs it is timed on (`n x ...`)."""

    net: Net
    policy: da.Policy
    x: Tensor

    @cached_property
    def taken(self) -> NDArray[np.int64]:
        """Where each input leaves (`n`)."""
        parts = [self.net.network.route(x, self.policy).exit_taken for x in torch.split(self.x, 256)]
        return torch.cat(parts).numpy().astype(np.int64)


@dataclass(frozen=True, eq=False)
class Study:
    """The networks of a study, equal in every process."""

    sets: Sets
    dynamic: Mapping[int, Sequence[Dynamic]]  # by batch size

    @property
    def calibration(self) -> list[Member]:
        """Networks that corrections and lines are fitted on."""
        return [(f"net/calibration/{number}", net) for number, net in enumerate(self.sets.calibration)]

    @property
    def fitted_large(self) -> list[Member]:
        """Of these, the ones that are run at the large batch too: as many as a term for calls needs.

        On eight networks, without that term, means at batch 32 came out 13 % too low: a batch that is compacted at
        every exit makes four times as many calls as one that leaves as a whole.
        """
        members = self.calibration
        return [members[row] for row in sorted({n * len(members) // MIN_FOR_CALLS for n in range(MIN_FOR_CALLS)})]

    @property
    def test(self) -> list[Member]:
        """Networks that nothing is fitted on."""
        return [(f"net/test/{number}", net) for number, net in enumerate(self.sets.test)]

    @property
    def residual(self) -> list[Member]:
        """As many as `calibration`, all of one family."""
        own = [(name, net) for name, net in self.calibration if net.family == "residual"]
        return [*own, *((f"net/other/{number}", net) for number, net in enumerate(self.sets.other))]


@dataclass(frozen=True)
class Rounds:
    """What was measured: a row a round, in nanoseconds or (`calls`, a column a call) milliseconds."""

    ns: Mapping[str, Sequence[int]]
    calls: Mapping[str, Floats]
    canaries: Sequence[Mapping[str, int]]


@dataclass(frozen=True)
class Half:
    """One half of the rounds: the fastest of each, and how far its rounds lie apart.

    Args:
        ms: task -> milliseconds a call.
        relsd: task -> standard deviation of its rounds over their mean.
        calls: dynamic network -> milliseconds of each call.
    """

    ms: Mapping[str, float]
    relsd: Mapping[str, float]
    calls: Mapping[str, Floats]


def prepare(settings: Settings) -> Study:
    """Draw the networks and choose the thresholds."""
    sets = draw(settings.calibration, settings.test, seed=settings.seed)
    ready = sorted((net for net in sets.test if net.network.exits), key=lambda net: -net.network.exits)
    dynamic: dict[int, list[Dynamic]] = {1: [], LARGE: []}
    tuned = inputs(_TUNED, seed=settings.seed + 1)
    for batch, many, size in ((1, settings.dynamic, settings.traced), (LARGE, settings.large, LARGE * settings.calls)):
        x = inputs(size, seed=settings.seed + 2)
        for number, net in enumerate(ready[:many]):
            dynamic[batch].append(Dynamic(net, divided(net, tuned, seed=settings.seed + number), x))
    return Study(sets, dynamic)


def measure(settings: Settings, folder: Path, *, most: int | None = None) -> Rounds | None:
    """All rounds, each process fresh; a process whose rounds lie in the folder is not run again.

    Args:
        settings: what.
        folder: where rounds are kept, one file a process.
        most: processes to run now; None: all that are missing.

    Returns:
        None if some are still missing.
    """
    lacking = [process for process in range(settings.processes) if not kept_file(folder, settings, process).exists()]
    for process in lacking[:most]:
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            save(pool.submit(measure_here, settings, process).result(), kept_file(folder, settings, process))
    if len(lacking[:most]) < len(lacking):
        return None
    found = [load(kept_file(folder, settings, process)) for process in range(settings.processes)]
    return Rounds(
        {name: [value for each in found for value in each.ns[name]] for name in found[0].ns},
        {name: np.concatenate([each.calls[name] for each in found]) for name in found[0].calls},
        [check for each in found for check in each.canaries],
    )


def kept_file(folder: Path, settings: Settings, process: int) -> Path:
    """Where the rounds of a process are kept: other settings have other files, other numbers of processes the same."""
    named = {**asdict(settings), "processes": 0, "threads": 1, "version": 4}
    return folder / f"rounds-{content_id(named)}-{process}.npz"


def save(rounds: Rounds, file: Path) -> None:
    """Write the rounds of a process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"ns {name}": np.array(values) for name, values in rounds.ns.items()}
    arrays |= {f"calls {name}": values for name, values in rounds.calls.items()}
    checks = [json.dumps(dict(check)) for check in rounds.canaries]
    np.savez_compressed(file, canaries=np.array(checks), **arrays)  # type: ignore[arg-type]


def load(file: Path) -> Rounds:
    """The inverse of `save`."""
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    checks = [json.loads(str(text)) for text in arrays.pop("canaries")]
    ns = {name[3:]: values.tolist() for name, values in arrays.items() if name.startswith("ns ")}
    return Rounds(ns, {name[6:]: values for name, values in arrays.items() if name.startswith("calls ")}, checks)


def measure_here(settings: Settings, process: int) -> Rounds:
    """The rounds of one process."""
    torch.set_num_threads(1)
    study, device = prepare(settings), da.Cpu()
    tasks, timed = tasks_of(study), timed_of(study)
    fixed = canaries(device)
    check_canaries(fixed, device)  # thrown away: the first calls of a process are slow
    sentinel = sentinel_of(device) if settings.steady else None
    ready = None if sentinel is None else sentinel.wait
    ns: dict[str, list[int]] = {name: [] for name in tasks}
    calls: dict[str, list[Floats]] = {name: [] for name in timed}
    checks = []
    for number in range(settings.rounds):
        started = time.perf_counter()
        checks.append(check_canaries(fixed, device))
        order = [*tasks, *timed]
        random.Random(f"{settings.seed}/{process}/{number}").shuffle(order)
        for name in order:
            if name in timed:
                calls[name].append(timed[name](ready))
            else:
                ns[name].append(_visit(tasks[name], device, ready))
        said = f"process {process + 1}/{settings.processes}, round {number + 1}/{settings.rounds}"
        took, waited = time.perf_counter() - started, 0 if sentinel is None else sentinel.waited_ns / 1e9
        sys.stderr.write(f"{said}: {len(order)} visits in {took:.0f} s; {waited:.0f} s of waiting so far\n")
    return Rounds(ns, {name: np.stack(rows) for name, rows in calls.items()}, checks)


def _visit(task: Task | Lazy, device: da.Cpu, ready: Ready | None) -> int:
    with device.session():
        made = task.make() if isinstance(task, Lazy) else task
        timing = time_task(made, _PARTS, clock=time.perf_counter_ns, device=device, ready=ready)
        return timing.value_ns(device.statistic)


def tasks_of(study: Study) -> dict[str, Task | Lazy]:
    """Everything that is timed by repeating one call: `part/KEY/BATCH`, `op/NAME`."""
    sets, device = study.sets, da.Cpu()
    tasks: dict[str, Task | Lazy] = {}
    large = [net for _, net in study.fitted_large]
    for nets, batches in (
        (sets.all, (1,)),
        ([*large, *(each.net for each in study.dynamic[LARGE])], curve_batches(LARGE)),
    ):
        for key, part in each_part(nets):
            make = measurable(key, part, device).make
            tasks |= {f"part/{key.hash}/{batch}": Lazy(partial(make, batch)) for batch in batches}
    for _, part in each_part(sets.all):
        for name, call in operations(part):
            tasks.setdefault(f"op/{name}", call)
    return tasks


def timed_of(study: Study) -> dict[str, Pass]:
    """Networks: `net/SET/NUMBER/BATCH` on a stream of calls that take their paths in turns, `dynamic/BATCH/NUMBER` on
    inputs that leave where they leave; each times all calls once, in milliseconds."""
    found: dict[str, Pass] = {}
    for name, batch, net in streamed(study):
        device = da.Cpu(batch=batch)
        ways = [(device.place(way.x), way.policy) for way in ways_of(net.network, batch=batch)]
        inputs, policies = zip(*(ways[path] for path in stream(name, net, batch)), strict=True)
        found[f"{name}/{batch}"] = _passes(device.prepare(net.network), policies, inputs, device)
    for batch, members in study.dynamic.items():
        device = da.Cpu(batch=batch)
        for number, each in enumerate(members):
            prepared, batches = device.prepare(each.net.network), torch.split(each.x, batch)
            found[f"dynamic/{batch}/{number}"] = _passes(prepared, [each.policy] * len(batches), batches, device)
    return found


def streamed(study: Study) -> Iterator[tuple[str, int, Net]]:
    """Every network once, and some that corrections are fitted on at the large batch too."""
    everybody = {**dict(study.calibration), **dict(study.test), **dict(study.residual)}
    yield from ((name, 1, net) for name, net in everybody.items())
    yield from ((name, LARGE, net) for name, net in study.fitted_large)


def stream(name: str, net: Net, batch: int) -> NDArray[np.int64]:
    """The number of the way that each call takes."""
    ways = len(ways_of(net.network, batch=batch))
    calls = CALLS if batch == 1 else CALLS // 2
    order = np.random.default_rng(list(f"{name}/{batch}".encode())).permutation(np.repeat(np.arange(ways), calls))
    return order.astype(np.int64)


def _passes(network: nn.Module, policies: Sequence[da.Policy], batches: Sequence[Tensor], device: da.Cpu) -> Pass:
    assert isinstance(network, DynamicNetwork)

    def run(index: int) -> object:
        return network.route(batches[index], policies[index])

    return lambda ready: time_network(run, len(batches), rounds=1, device=device, ready=ready)


def halves(study: Study, rounds: Rounds) -> tuple[Half, Half, dict[str, float]]:
    """Two halves of the rounds, in the order A B B A A B, as a process gets slower from round to round; and what the
    canaries say: how far rounds drift, and how many were left out."""
    names = [*rounds.canaries[0]]
    table = np.array([[check[name] for name in names] for check in rounds.canaries], dtype=float)
    slowness = np.median(table / table.min(axis=0), axis=1)
    kept = [_kept(slowness, half) for half in (0, 1)]
    said = {"canary_median": float(np.median(slowness)), "canary_worst": float(slowness.max())}
    return (
        half_of(study, rounds, kept[0]),
        half_of(study, rounds, kept[1]),
        said | {"rounds_kept": float(sum(map(len, kept)))},
    )


def _kept(slowness: Floats, half: int) -> list[int]:
    """The rounds of a half in which the machine was not much slower than in the best round, and at least two."""
    mine = [index for index in range(len(slowness)) if (index + index // 2) % 2 == half]
    own = sorted(mine, key=lambda index: slowness[index])
    steady = [index for index in own if slowness[index] <= _CANARY_LIMIT * slowness.min()]
    return sorted(steady if len(steady) >= _KEPT else own[:_KEPT])


def half_of(study: Study, rounds: Rounds, kept: Sequence[int]) -> Half:
    """What some rounds say: the fastest of each task, and of a network's paths the median call."""
    ms, relsd = {}, {}
    for name, values in rounds.ns.items():
        own = np.array([values[index] for index in kept]) / 1e6
        ms[name] = float(own.min())
        relsd[name] = float(own.std(ddof=1) / own.mean()) if len(own) > 1 else 0.0
    calls = {name: values[kept].min(axis=0) for name, values in rounds.calls.items()}
    for name, batch, net in streamed(study):
        order = stream(name, net, batch)
        for path in np.unique(order):
            ms[f"{name}/{path}/{batch}"] = float(np.median(calls[f"{name}/{batch}"][order == path]))
    return Half(ms, relsd, calls)
