"""Calibration: whole networks timed along their paths, beside what their parts sum to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from ..spaces.trace import COMPACT, counts
from .book import DevicePages
from .correction import Observation
from .device import AbstractDevice
from .inventory import Costs, batched, costs_of
from .timer import Clock, Protocol, Task, measure

# Each visit calls a network several times: one that is called alone, between others, finds its weights out of the
# caches, which no network that serves one input after another does (12 % on small networks).
PROTOCOL: Final = Protocol(rounds=5, warmup_calls=2, warmup_ms=0, min_samples=8, min_ms=4, cap_ms=200)
_NEVER_REACHED: Final = 1e30  # scores of all decision schemes are far below


def paths(network: DynamicNetwork, *, batch: int = 1) -> tuple[tuple[Policy, int], ...]:
    """Ways through a network that do not depend on the input, each with the exit where it ends.

    Each exit used alone, the final head, and, for one input at a time, all exits tried in vain. A batch out of which
    nobody leaves is not compacted, which only the network itself can tell. All of these at every level of a knob that
    has such.
    """
    exits = network.exits
    found = [(Policy.single(exits, exit_index), exit_index) for exit_index in range(exits + 1)]
    if exits and batch == 1:
        scheme = network.exit_steps[0].decisions[0].name
        found.append((Policy(scheme, (_NEVER_REACHED,) * exits), exits))
    settings = product(*([(knob, level) for level in levels] for knob, levels in network.levels.items()))
    return tuple((replace(policy, setting=setting), end) for setting in settings for policy, end in found)


def observe(
    networks: Sequence[DynamicNetwork],
    device: AbstractDevice,
    pages: DevicePages,
    *,
    seed: int,
    protocol: Protocol = PROTOCOL,
    clock: Clock = time.perf_counter_ns,
) -> list[Observation]:
    """Every path of every network, in interleaved rounds.

    Args:
        networks: in evaluation mode.
        device: where.
        pages: entries of the networks' parts, with the identity for a correction.
        seed: order of the visits.
        protocol: how long.
        clock: nanoseconds.

    Raises:
        MissingEntryError: if a part has no entry.
    """
    tasks: dict[str, Task] = {}
    expected: dict[str, tuple[float, float, float, int]] = {}
    for number, network in enumerate(networks):
        costs = costs_of(network)
        ready = device.prepare(network)
        example = batched((network.parts()[0].inputs[0],), device.batch)[0]
        x = device.place(example)
        for index, (policy, exit_index) in enumerate(paths(network, batch=device.batch)):
            name = f"{number}/{index}"
            with torch.no_grad():  # gates decide by the input, so what ran is read off the very one that is timed
                run = network.simulate(example, setting=dict(policy.setting))
            usage = {part: used.numpy() for part, used in run.usage.items()}
            tasks[name] = _bind(ready, x, policy)
            found = pages.predict(costs, policy, np.full(device.batch, exit_index), seed=seed, usage=usage)
            calls = _calls(costs, policy, exit_index, usage)
            expected[name] = (found.mean_ms * device.batch, calls, found.relsd, number)
    timings = measure(tasks, protocol=protocol, seed=seed, clock=clock, device=device)
    return [
        Observation(total, calls, timings[name].value_ms, relsd, number)
        for name, (total, calls, relsd, number) in expected.items()
    ]


def _calls(costs: Costs, policy: Policy, exit_index: int, usage: Mapping[str, NDArray[np.floating[Any]]]) -> float:
    """How many parts run on a path where nothing is compacted, for inputs that are all alike."""
    row = counts(costs.parts, policy, np.array([exit_index]), {part: used[:1] for part, used in usage.items()})[0]
    each = [min(row[index], 1.0) if part.rows > 1 else row[index] for index, part in enumerate(costs.parts)]
    return float(sum(n for n, part in zip(each, costs.parts, strict=True) if part.kind != COMPACT))


def _bind(network: nn.Module, x: Tensor, policy: Policy) -> Task:
    assert isinstance(network, DynamicNetwork)
    return lambda: network.route(x, policy)
