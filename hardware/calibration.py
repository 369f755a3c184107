"""Calibration: whole networks timed along their paths, beside what their parts sum to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from .book import DevicePages
from .correction import Observation
from .device import AbstractDevice
from .inventory import Costs, costs_of
from .session import Session
from .streams import Run, Streams
from .timer import Clock
from .ways import Way, ways_of

ROUNDS: Final = 6
CALLS: Final = 12  # of each path in a round: a stream of calls that differ, as in use
FEWEST_CALLS: Final = 4  # of each path of a network that has many


def calls_of(ways: int, *, most: int = CALLS) -> int:
    """How many calls of each of its ways a visit to a network makes: some fifty in all."""
    return max(FEWEST_CALLS, min(most, 4 * CALLS // ways))


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
        calls: of each path in a visit, at most.
        clock: nanoseconds.
        sessions: that measured the parts, so that the networks wait for a machine as fast as it was then.

    Raises:
        MissingEntryError: if a part has no entry.
    """
    expected: list[list[tuple[float, float, float]]] = []
    kinds, taken, runs = [], [], []
    for number, network in enumerate(networks):
        ways = ways_of(network, batch=device.batch, seed=seed)
        costs = costs_of(network)
        kinds.append(costs.kind)
        expected.append([_expected(network, costs, way, pages, seed) for way in ways])
        each = np.repeat(np.arange(len(ways)), calls_of(len(ways), most=calls))
        order = np.random.default_rng([seed, number]).permutation(each)
        taken.append(order)
        runs.append(_bind(device.prepare(network), [(device.place(way.x), way.policy) for way in ways], order))
    streams = Streams(runs, [len(order) for order in taken], device=device, seed=seed, clock=clock, sessions=sessions)
    fastest = streams.fastest(rounds)
    return [
        Observation(total, parts, float(np.median(ms[order == path])), relsd, number, kinds[number])
        for number, (ms, order) in enumerate(zip(fastest, taken, strict=True))
        for path, (total, parts, relsd) in enumerate(expected[number])
    ]


def _expected(
    network: DynamicNetwork, costs: Costs, way: Way, pages: DevicePages, seed: int
) -> tuple[float, float, float]:
    """Sum of the parts on a way, how many run, and the sum's relative deviation."""
    with torch.no_grad():  # gates decide by the input, so what ran is read off the very ones that are timed
        usage = {
            part: used.numpy() for part, used in network.simulate(way.x, setting=dict(way.policy.setting)).usage.items()
        }
    found = pages.predict(costs, way.policy, way.exit_taken, seed=seed, usage=usage)
    return found.mean_ms * len(way.x), found.calls, found.relsd


def _bind(network: nn.Module, ways: Sequence[tuple[Tensor, Policy]], order: NDArray[np.int64]) -> Run:
    assert isinstance(network, DynamicNetwork)
    calls = [ways[way] for way in order]
    return lambda index: network.route(*calls[index])
