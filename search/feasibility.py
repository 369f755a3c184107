"""Feasibility: what no training can repair is refused before it costs a worker."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..evaluators.operating import cheapest_ms
from ..hardware.book import LatencyBook
from ..hardware.inventory import Costs, costs_of
from ..spaces.architecture import Architecture
from ..spaces.errors import InfeasibleError
from ..spaces.policy import Policy
from ..spaces.space import build
from .problem import Constraint, Problem


def least_metrics(costs: Costs, book: LatencyBook) -> dict[str, float]:
    """Lower bounds on the metrics of any policy of a network: everybody leaves by the cheapest way."""
    least = {"parameters": float(costs.parameters), "macs": float(_least_macs(costs))}
    for name, pages in book.devices.items():
        latency = cheapest_ms(costs, pages)
        least |= {f"{metric}@{name}": latency for metric in ("latency_ms", "latency_p95_ms", "latency_worst_ms")}
    return least


def hopeless(architecture: Architecture, problem: Problem, book: LatencyBook) -> bool:
    """Whether even the cheapest path of an architecture breaks a hard upper bound."""
    bounds = _hard_upper(problem)
    if not bounds:
        return False
    with torch.random.fork_rng(devices=[]):
        least = least_metrics(costs_of(build(architecture, problem.data.signature).eval()), book)
    return any(key in least and least[key] > (bound.maximum or 0.0) for _, bound, key in bounds)


def check_feasible(problem: Problem, candidates: Iterable[Costs], book: LatencyBook) -> None:
    """Refuse constraints that nothing in the space can meet.

    Args:
        problem: the search.
        candidates: costs of networks that together hold every part of the space.
        book: latencies.

    Raises:
        InfeasibleError: with the least value that can be reached.
    """
    bounds = _hard_upper(problem)
    if not bounds:
        return
    everyone = [least_metrics(costs, book) for costs in candidates]
    for index, constraint, key in bounds:
        reachable = min((least[key] for least in everyone if key in least), default=0.0)
        if reachable > (constraint.maximum or 0.0):
            raise InfeasibleError(
                f"constraints.{index}.maximum",
                f"{constraint.metric} <= {constraint.maximum:g} cannot be met: the cheapest network of the space "
                f"needs {reachable:.4g}; raise the bound or add smaller backbones",
            )


def _hard_upper(problem: Problem) -> list[tuple[int, Constraint, str]]:
    return [
        (index, constraint, problem.reference(constraint.metric, f"constraints.{index}.metric").key)
        for index, constraint in enumerate(problem.constraints)
        if constraint.hard and constraint.maximum is not None
    ]


def _least_macs(costs: Costs) -> int:
    """Work on the cheapest way out: every segment up to an exit and its head, or all segments.

    Of parts that a gate may pass by, none runs.
    """
    exits = max((part.exit + 1 for part in costs.parts if part.exit is not None), default=0)
    rows = list(zip(costs.parts, costs.macs, strict=True))
    return min(
        sum(
            macs
            for part, macs in rows
            if part.depth <= k and part.choice is None and part.active(Policy.single(exits, k))
        )
        for k in range(exits + 1)
    )
