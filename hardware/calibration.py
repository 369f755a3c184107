"""Calibration: whole networks timed along their paths, beside what their parts sum to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from .streams import Run, Streams
from .timer import Clock

ROUNDS: Final = 6
CALLS: Final = 12  # of each path in a round: a stream of calls that differ, as in use
_NEVER_REACHED: Final = 1e30  # scores of all decision schemes are far below


def paths(network: DynamicNetwork, *, batch: int = 1) -> tuple[tuple[Policy, int], ...]:
    """Ways through a network that do not depend on the input, each with the exit where it ends.

    Each exit used alone, the final head, and, for one input at a time, all exits tried in vain. A batch out of which
    nobody leaves is not compacted, which only the network itself can tell.
    """
    exits = network.exits
    found = [(Policy.single(exits, exit_index), exit_index) for exit_index in range(exits + 1)]
    if exits and batch == 1:
        scheme = network.exit_steps[0].decisions[0].name
        found.append((Policy(scheme, (_NEVER_REACHED,) * exits), exits))
    return tuple(found)


def observe(
    networks: Sequence[DynamicNetwork],
    device: AbstractDevice,
    pages: DevicePages,
    *,
    seed: int,
    rounds: int = ROUNDS,
    calls: int = CALLS,
    clock: Clock = time.perf_counter_ns,
) -> list[Observation]:
    """Every path of every network: streams of calls that take the paths in turns, as inputs do that differ.

    Args:
        networks: in evaluation mode.
        device: where.
        pages: entries of the networks' parts, with the identity for a correction.
        seed: order of the calls.
        rounds: visits to each network; of each call the fastest counts.
        calls: of each path in a visit.
        clock: nanoseconds.

    Raises:
        MissingEntryError: if a part has no entry.
    """
    expected: list[list[tuple[float, float, float]]] = []
    taken, runs = [], []
    for number, network in enumerate(networks):
        example = batched((network.parts()[0].inputs[0],), device.batch)[0]
        ways = paths(network, batch=device.batch)
        expected.append([_expected(network, example, way, pages, seed) for way in ways])
        order = np.random.default_rng([seed, number]).permutation(np.repeat(np.arange(len(ways)), calls))
        taken.append(order)
        runs.append(_bind(device.prepare(network), device.place(example), [ways[path][0] for path in order]))
    streams = Streams(runs, [len(order) for order in taken], device=device, seed=seed, clock=clock)
    fastest = streams.fastest(rounds)
    return [
        Observation(total, parts, float(np.median(ms[order == path])), relsd, number)
        for number, (ms, order) in enumerate(zip(fastest, taken, strict=True))
        for path, (total, parts, relsd) in enumerate(expected[number])
    ]


def _expected(
    network: DynamicNetwork, x: Tensor, way: tuple[Policy, int], pages: DevicePages, seed: int
) -> tuple[float, float, float]:
    """Sum of the parts on a path, how many they are, and the sum's relative deviation."""
    policy, exit_index = way
    costs = costs_of(network)
    with torch.no_grad():  # gates decide by the input, so what ran is read off the very one that is timed
        usage = {part: used.numpy() for part, used in network.simulate(x, setting=dict(policy.setting)).usage.items()}
    found = pages.predict(costs, policy, np.full(len(x), exit_index), seed=seed, usage=usage)
    return found.mean_ms * len(x), _calls(costs, policy, exit_index, usage), found.relsd


def _calls(costs: Costs, policy: Policy, exit_index: int, usage: Mapping[str, NDArray[np.floating[Any]]]) -> float:
    """How many parts run on a path where nothing is compacted, for inputs that are all alike."""
    row = counts(costs.parts, policy, np.array([exit_index]), {part: used[:1] for part, used in usage.items()})[0]
    return float(sum(row[index] for index, part in enumerate(costs.parts) if part.kind != COMPACT))


def _bind(network: nn.Module, x: Tensor, order: Sequence[Policy]) -> Run:
    assert isinstance(network, DynamicNetwork)
    return lambda index: network.route(x, order[index])
