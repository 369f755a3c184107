"""Calibration: whole networks timed along their paths, beside what their parts sum to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from ..spaces.signature import random_inputs
from .book import DevicePages
from .correction import Observation
from .device import AbstractDevice
from .inventory import costs_of
from .session import Session
from .streams import Run, Streams
from .timer import Clock

ROUNDS: Final = 6
CALLS: Final = 12  # of each path in a round: a stream of calls that differ, as in use
_NEVER_REACHED: Final = 1e30  # scores of all decision schemes are far below


@final
@dataclass(frozen=True)
class Way:
    """A way of a batch through a network.

    Args:
        policy: when to leave.
        exit_taken: where each input of the batch leaves (`b`).
    """

    policy: Policy
    exit_taken: NDArray[np.int64]


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


def ways_of(network: DynamicNetwork, x: Tensor) -> tuple[Way, ...]:
    """All `paths`, and for a batch `b x ...` one on which half of those who reach an exit leave there."""
    alike = [Way(policy, np.full(len(x), end)) for policy, end in paths(network, batch=len(x))]
    return (*alike, halving(network, x)) if network.exits and len(x) > 1 else tuple(alike)


@torch.no_grad()
def halving(network: DynamicNetwork, x: Tensor) -> Way:
    """Thresholds at the medians of the scores, so that the batch `b x ...` is compacted at every exit."""
    step = network.exit_steps[0]
    scheme, logits = step.decisions[0], network(x)
    taken, thresholds = np.full(len(x), network.exits), []
    state = None
    for index, each in enumerate(network.exit_steps):
        score, state = scheme.score(logits[index], state, each.learned_of(scheme.name))
        inside = taken == network.exits
        reached = score.double().numpy()[inside]
        thresholds.append(float(np.median(reached)) if len(reached) else 0.0)
        taken[inside] = np.where(reached > thresholds[-1], index, network.exits)
    return Way(Policy(scheme.name, tuple(thresholds)), taken)


def observe(
    networks: Sequence[DynamicNetwork],
    device: AbstractDevice,
    pages: DevicePages,
    *,
    seed: int,
    rounds: int = ROUNDS,
    calls: int = CALLS,
    clock: Clock = time.perf_counter_ns,
    sessions: Iterable[Session] = (),
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
        sessions: that measured the parts, so that the networks wait for a machine as fast as it was then.

    Raises:
        MissingEntryError: if a part has no entry.
    """
    expected: list[list[tuple[float, float, float]]] = []
    taken, runs = [], []
    for number, network in enumerate(networks):
        example = _example(network, device.batch, seed)
        ways = ways_of(network, example)
        expected.append([_expected(network, example, way, pages, seed) for way in ways])
        order = np.random.default_rng([seed, number]).permutation(np.repeat(np.arange(len(ways)), calls))
        taken.append(order)
        runs.append(_bind(device.prepare(network), device.place(example), [ways[path].policy for path in order]))
    streams = Streams(runs, [len(order) for order in taken], device=device, seed=seed, clock=clock, sessions=sessions)
    fastest = streams.fastest(rounds)
    return [
        Observation(total, parts, float(np.median(ms[order == path])), relsd, number)
        for number, (ms, order) in enumerate(zip(fastest, taken, strict=True))
        for path, (total, parts, relsd) in enumerate(expected[number])
    ]


def _example(network: DynamicNetwork, batch: int, seed: int) -> Tensor:
    """One ordinary input, or a batch of inputs that differ, so that some may leave before others."""
    if batch == 1:
        return network.parts()[0].inputs[0]
    return random_inputs(network.signature, batch, torch.Generator().manual_seed(seed))


def _expected(
    network: DynamicNetwork, x: Tensor, way: Way, pages: DevicePages, seed: int
) -> tuple[float, float, float]:
    """Sum of the parts on a way, how many run, and the sum's relative deviation."""
    setting = dict(way.policy.setting)
    with torch.no_grad():  # gates decide by the input, so what ran is read off the very ones that are timed
        usage = {part: used.numpy() for part, used in network.simulate(x, setting=setting).usage.items()}
    found = pages.predict(costs_of(network), way.policy, way.exit_taken, seed=seed, usage=usage)
    return found.mean_ms * len(x), found.calls, found.relsd


def _bind(network: nn.Module, x: Tensor, order: Sequence[Policy]) -> Run:
    assert isinstance(network, DynamicNetwork)
    return lambda index: network.route(x, order[index])
