"""Operating points: one trained candidate under many policies, each with all its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..hardware.book import DevicePages, LatencyBook
from ..hardware.inventory import Costs
from ..spaces.policy import Policy
from ..spaces.trace import PartInfo, counts, variant_usage
from .pareto import thin
from .policy import ExitProblem, leave_at
from .policy_search import search_policies
from .score_table import ScoreTable, ScoreTables


@final
@dataclass(frozen=True)
class OperatingPoint:
    """A policy on a trained candidate.

    Args:
        policy: when to leave.
        metrics: metric reference -> value; latency per device as `latency_ms@name`.
        exit_share: share of inputs that leave at each exit, the final head last.
        notes: what a reader must know, such as quantiles that are upper bounds.
        usage: part -> how often an input that gets there runs it, on average; of parts that not everybody runs.
            Of parts that take rows, the share of them.
    """

    policy: Policy
    metrics: Mapping[str, float]
    exit_share: tuple[float, ...]
    notes: tuple[str, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)

    @property
    def decides(self) -> bool:
        """Whether inputs take different paths."""
        return max(self.exit_share) < 1 or any(0 < value < 1 for value in self.usage.values())

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "policy": self.policy.to_dict(),
            "metrics": dict(self.metrics),
            "exit_share": list(self.exit_share),
            "notes": list(self.notes),
            "usage": dict(self.usage),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> OperatingPoint:
        """The inverse of `to_mapping`."""
        return cls(
            Policy.from_dict(mapping["policy"]),
            {str(key): float(value) for key, value in mapping["metrics"].items()},
            tuple(float(value) for value in mapping["exit_share"]),
            tuple(str(note) for note in mapping.get("notes", ())),
            {str(key): float(value) for key, value in mapping.get("usage", {}).items()},
        )


def score(tables: ScoreTables, costs: Costs, book: LatencyBook, policy: Policy, *, seed: int) -> OperatingPoint:
    """All metrics of a policy on the inputs of score tables.

    Raises:
        DataError: if nothing was recorded at the policy's setting.
    """
    table = tables.at(policy.setting)
    taken = leave_at(table.scores, table.predictions, policy)
    exits = table.predictions.shape[1]
    right = table.predictions[np.arange(len(taken)), taken] == table.labels
    matrix = counts(costs.parts, policy, taken, table.usage)
    metrics = {
        "accuracy": float(right.mean()),
        "macs": float((matrix @ np.array(costs.macs, dtype=float)).mean()),
        "parameters": float(costs.parameters),
    }
    notes = []
    for name, pages in book.devices.items():
        latency = pages.predict(costs, policy, taken, seed=seed, usage=table.usage)
        metrics[f"latency_ms@{name}"] = latency.mean_ms
        metrics[f"latency_p95_ms@{name}"] = latency.p95_ms
        metrics[f"latency_worst_ms@{name}"] = latency.worst_ms
        if "p95" in latency.quantile_is_bound:
            notes.append(f"p95 on {name} is an upper bound: {len(taken)} inputs are too few for the quantile")
    share = np.bincount(taken, minlength=exits) / len(taken)
    usage = {part.name: _mean_usage(table, part, taken) for part in costs.parts if part.name in table.usage}
    return OperatingPoint(policy, metrics, tuple(float(value) for value in share), tuple(notes), usage)


def _mean_usage(table: ScoreTable, part: PartInfo, taken: NDArray[np.int64]) -> float:
    here = taken >= part.depth
    return float(table.usage[part.name][here].mean()) / part.rows if here.any() else 0.0


def operating_points(
    tables: ScoreTables,
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
        tables: scores on the split that the policies are chosen on.
        costs: the candidate's parts.
        book: latencies.
        decisions: decision schemes that policies may use.
        seed: of the search for policies.
        max_points: most points for each device.
        evaluations: policies tried by the final, evolutionary step, over all settings of the knobs together.
    """
    policies: dict[Policy, None] = {}
    share = evaluations // len(tables.tables)
    for pages in book.devices.values():
        found: list[tuple[Policy, float, float]] = []
        for table in tables.tables:
            problem = exit_problem(table, costs, pages, decisions)
            points = search_policies(problem, seed=seed, max_points=max_points, evaluations=share)
            found += [(replace(p.policy, setting=table.setting), p.accuracy, p.mean_cost_ms) for p in points]
        values = np.array([[accuracy, ms] for _, accuracy, ms in found])
        chosen = thin(values, ("maximize", "minimize"), max_points)
        policies.update(dict.fromkeys(found[index][0] for index in sorted(chosen, key=lambda i: found[i][2])))
    scored = [score(tables, costs, book, policy, seed=seed) for policy in policies]
    first = f"latency_ms@{book.first[0]}"
    return tuple(sorted(scored, key=lambda point: (point.metrics[first], -point.metrics["accuracy"])))


def exit_problem(table: ScoreTable, costs: Costs, pages: DevicePages, decisions: Sequence[str]) -> ExitProblem:
    """What the policy search needs, from a score table and one device's latencies."""
    n, exits = table.predictions.shape[0], table.predictions.shape[1] - 1
    ms = pages.part_ms(costs)
    fixed, head, decide = np.zeros(exits + 1), np.zeros(exits), dict.fromkeys(decisions, 0.0)
    varying = np.zeros((n, exits + 1)) if table.usage else np.zeros((1, exits + 1))
    for part, value in zip(costs.parts, ms, strict=True):
        if part.exit is not None and part.name in table.usage:
            value *= float(table.usage[part.name].mean())  # a head under one variant: what it costs on average
        if part.exit is None and part.name in table.usage:
            varying[:, part.depth] += value * table.usage[part.name]
        elif part.exit is None:
            fixed[part.depth] += value
        elif part.decision is None:
            head[part.exit] += value
        elif part.decision in decide:
            decide[part.decision] += value / exits
    scores = {name: values for name, values in table.scores.items() if name in decisions}
    return ExitProblem(
        scores=scores,
        predictions=table.predictions,
        labels=table.labels,
        segment_ms=fixed + varying if table.usage else fixed,
        exit_ms=head,
        decide_ms=decide,
        patience="patience" in decisions,
    )


def cheapest_ms(costs: Costs, pages: DevicePages) -> float:
    """A lower bound on the mean latency of any policy: everybody leaves at the exit that is reached most cheaply.

    That is the first one, unless its head costs more than what follows it. Of parts that a gate may pass by, none runs;
    of the variants of a fork, the cheapest.
    """
    exits = max((part.exit + 1 for part in costs.parts if part.exit is not None), default=0)
    passed = {part.name: np.zeros(1) for part in costs.parts if part.choice is not None}
    paths = [(Policy.single(exits, k), np.full(1, k, dtype=np.int64)) for k in range(exits + 1)]
    ways = [passed | usage for usage in variant_usage(costs.parts).values()]
    found = (pages.predict(costs, policy, taken, seed=0, usage=way) for policy, taken in paths for way in ways)
    return min(each.mean_ms for each in found)
