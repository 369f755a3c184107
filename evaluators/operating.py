"""Operating points: one trained candidate under many policies, each with all its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ..hardware.book import DevicePages, LatencyBook
from ..hardware.inventory import Costs
from ..spaces.policy import Policy
from ..spaces.trace import counts
from .policy import ExitProblem, leave_at
from .policy_search import search_policies
from .score_table import ScoreTable


@final
@dataclass(frozen=True)
class OperatingPoint:
    """A policy on a trained candidate.

    Args:
        policy: when to leave.
        metrics: metric reference -> value; latency per device as `latency_ms@name`.
        exit_share: share of inputs that leave at each exit, the final head last.
        notes: what a reader must know, such as quantiles that are upper bounds.
    """

    policy: Policy
    metrics: Mapping[str, float]
    exit_share: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "policy": self.policy.to_dict(),
            "metrics": dict(self.metrics),
            "exit_share": list(self.exit_share),
            "notes": list(self.notes),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> OperatingPoint:
        """The inverse of `to_mapping`."""
        return cls(
            Policy.from_dict(mapping["policy"]),
            {str(key): float(value) for key, value in mapping["metrics"].items()},
            tuple(float(value) for value in mapping["exit_share"]),
            tuple(str(note) for note in mapping.get("notes", ())),
        )


def score(table: ScoreTable, costs: Costs, book: LatencyBook, policy: Policy, *, seed: int) -> OperatingPoint:
    """All metrics of a policy on the inputs of a score table."""
    taken = leave_at(table.scores, table.predictions, policy)
    exits = table.predictions.shape[1]
    right = table.predictions[np.arange(len(taken)), taken] == table.labels
    matrix = counts(costs.parts, policy, taken)
    metrics = {
        "accuracy": float(right.mean()),
        "macs": float((matrix @ np.array(costs.macs, dtype=float)).mean()),
        "parameters": float(costs.parameters),
    }
    notes = []
    for name, pages in book.devices.items():
        latency = pages.predict(costs, policy, taken, seed=seed)
        metrics[f"latency_ms@{name}"] = latency.mean_ms
        metrics[f"latency_p95_ms@{name}"] = latency.p95_ms
        metrics[f"latency_worst_ms@{name}"] = latency.worst_ms
        if "p95" in latency.quantile_is_bound:
            notes.append(f"p95 on {name} is an upper bound: {len(taken)} inputs are too few for the quantile")
    share = np.bincount(taken, minlength=exits) / len(taken)
    return OperatingPoint(policy, metrics, tuple(float(value) for value in share), tuple(notes))


def operating_points(
    table: ScoreTable,
    costs: Costs,
    book: LatencyBook,
    *,
    decisions: Sequence[str],
    seed: int,
    max_points: int,
    evaluations: int = 4000,
) -> tuple[OperatingPoint, ...]:
    """The best policies for each device, each scored on every device; sorted by latency on the first.

    Args:
        table: scores on the split that the policies are chosen on.
        costs: the candidate's parts.
        book: latencies.
        decisions: decision schemes that policies may use.
        seed: of the search for policies.
        max_points: most points for each device.
        evaluations: policies tried by the final, evolutionary step.
    """
    policies: dict[Policy, None] = {}
    for pages in book.devices.values():
        problem = exit_problem(table, costs, pages, decisions)
        found = search_policies(problem, seed=seed, max_points=max_points, evaluations=evaluations)
        policies.update(dict.fromkeys(point.policy for point in found))
    points = [score(table, costs, book, policy, seed=seed) for policy in policies]
    first = f"latency_ms@{book.first[0]}"
    return tuple(sorted(points, key=lambda point: (point.metrics[first], -point.metrics["accuracy"])))


def exit_problem(table: ScoreTable, costs: Costs, pages: DevicePages, decisions: Sequence[str]) -> ExitProblem:
    """What the policy search needs, from a score table and one device's latencies."""
    exits = table.predictions.shape[1] - 1
    ms = pages.part_ms(costs)
    segment, head, decide = np.zeros(exits + 1), np.zeros(exits), dict.fromkeys(decisions, 0.0)
    for part, value in zip(costs.parts, ms, strict=True):
        if part.exit is None:
            segment[part.depth] += value
        elif part.decision is None:
            head[part.exit] += value
        elif part.decision in decide:
            decide[part.decision] += value / exits
    scores = {name: values for name, values in table.scores.items() if name in decisions}
    return ExitProblem(
        scores=scores,
        predictions=table.predictions,
        labels=table.labels,
        segment_ms=segment,
        exit_ms=head,
        decide_ms=decide,
        patience="patience" in decisions,
    )


def cheapest_ms(costs: Costs, pages: DevicePages) -> float:
    """A lower bound on the mean latency of any policy: everybody leaves at the exit that is reached most cheaply.

    That is the first one, unless its head costs more than what follows it.
    """
    exits = max((part.exit + 1 for part in costs.parts if part.exit is not None), default=0)
    paths = [(Policy.single(exits, k), np.full(1, k, dtype=np.int64)) for k in range(exits + 1)]
    return min(pages.predict(costs, policy, taken, seed=0).mean_ms for policy, taken in paths)
