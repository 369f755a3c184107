"""The end of a search: the front on unseen data, re-timed on the device, beside its static baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from ..evaluators.from_scratch import load_candidate
from ..evaluators.operating import OperatingPoint, score
from ..evaluators.pareto import non_dominated, thin
from ..evaluators.score_table import ScoreTables, Setting, record, score_tables
from ..evaluators.splits import Part
from ..hardware.book import LatencyBook
from ..hardware.device import AbstractDevice
from ..hardware.inventory import Costs
from ..hardware.session import Session
from ..hardware.streams import Streams
from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from ..spaces.trace import dearest_usage, usage_row
from .candidate import candidate_folder
from .inside import inside
from .ledger.entities import Point, PointKey
from .ledger.store import Ledger
from .problem import Problem
from .proposals import numbers

TIMED_INPUTS = 100
TIMED_ROUNDS = 10
QUANTILES = {"latency_p05_ms": 0.05, "latency_p25_ms": 0.25, "latency_p50_ms": 0.5, "latency_p75_ms": 0.75}  # also kept
Progress = Callable[[str, int, int], None]
Rows = Sequence[Mapping[str, float]]  # what `measure_routed` gives


def tune_front(problem: Problem, ledger: Ledger, search_id: str) -> list[Point]:
    """The non-dominated, feasible points of all finished candidates, on the tune split; thinned evenly."""
    points = [point for point in ledger.points(search_id) if problem.feasible(numbers(point))]
    if not points:
        return []
    values = np.array([problem.values(numbers(point)) for point in points], dtype=float)
    kept = np.flatnonzero(non_dominated(values, problem.directions))
    chosen = thin(values[kept], problem.directions, problem.strategy.front)
    return [points[kept[index]] for index in chosen]


@final
@dataclass(frozen=True, eq=False)
class Scored:
    """One policy of one candidate on the test split.

    Args:
        number: the candidate.
        point: metrics on the test split: predicted latency of the very inputs that accuracy is measured on.
        correct: inputs answered right; `total` inputs in all.
        exit_accuracy: of each exit on all inputs, the final head last.
        whole_macs: work of the same network run to its end without trying an exit.
        measured: device -> mean and p95 in milliseconds an input, and how they were taken.
        random_accuracy: of exits and gates that decide at random, at the same rates; None: there is no gate, so it
            follows from shares and accuracies of the exits.
    """

    number: int
    point: OperatingPoint
    correct: int
    total: int
    exit_accuracy: tuple[float, ...]
    whole_macs: float
    measured: Mapping[str, Mapping[str, float]]
    random_accuracy: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values for the ledger."""
        return {
            **self.point.to_mapping(),
            "correct": self.correct,
            "total": self.total,
            "exit_accuracy": list(self.exit_accuracy),
            "whole_macs": self.whole_macs,
            "random_accuracy": self.random_accuracy,
        }

    @classmethod
    def from_mapping(cls, number: int, mapping: Mapping[str, Any], measured: Mapping[str, Any] | None) -> Scored:
        """The inverse of `to_mapping`."""
        return cls(
            number,
            OperatingPoint.from_mapping(mapping),
            int(mapping["correct"]),
            int(mapping["total"]),
            tuple(mapping["exit_accuracy"]),
            float(mapping["whole_macs"]),
            measured or {},
            mapping.get("random_accuracy"),
        )


@final
class Examiner:
    """Loads each trained candidate once and scores and times policies of it on the test split.

    Args:
        problem: the search.
        folder: the search's folder.
        book: latencies.
        test: the opened test split.
    """

    def __init__(self, problem: Problem, folder: Path, book: LatencyBook, test: Part) -> None:
        self._problem = problem
        self._folder = folder
        self._book = book
        self._test = test
        self._loaded: dict[int, tuple[DynamicNetwork, Costs]] = {}
        self._tables: dict[tuple[int, Setting], ScoreTables] = {}

    def score(self, number: int, policy: Policy) -> Scored:
        """Accuracy and predicted latency on the test split."""
        _, costs = self._candidate(number)
        tables = self._table(number, policy.setting)
        point = score(tables, costs, self._book, policy, seed=self._problem.strategy.seed)
        right = round(point.metrics["accuracy"] * len(tables.labels))
        accuracy = tuple(float(value) for value in tables.at(policy.setting).correct.mean(0))
        drawn = self._shuffled(number, policy.setting)
        by_chance = None if drawn is None else float(np.dot(point.exit_share, drawn))
        return Scored(number, point, right, len(tables.labels), accuracy, whole_macs(costs), {}, by_chance)

    def _shuffled(self, number: int, setting: Setting) -> tuple[float, ...] | None:
        """Accuracy of each exit where the decisions of the gates are shuffled among the inputs; None without gates."""
        network, costs = self._candidate(number)
        if all(part.choice is None for part in costs.parts):
            return None
        shuffle = torch.Generator().manual_seed(self._problem.strategy.seed)
        logits = record(network, self._test.x, setting=setting, shuffle=shuffle).logits
        return tuple(float((each.argmax(1) == self._test.y).float().mean()) for each in logits)

    def exits(self, number: int) -> int:
        """How many early exits a candidate has."""
        return self._candidate(number)[0].exits

    @property
    def inputs(self) -> Tensor:
        """Those that networks are timed on, `n x ...`."""
        return self._test.x

    def folders(self, scored: Sequence[Scored]) -> list[tuple[Path, Policy]]:
        """Where the networks are, and how they are run."""
        return [(inside(self._folder, candidate_folder(each.number)), each.point.policy) for each in scored]

    def measure(
        self,
        scored: Sequence[Scored],
        progress: Progress | None = None,
        *,
        known: Mapping[str, Rows] | None = None,
        sessions: Mapping[str, Sequence[Session]] | None = None,
    ) -> list[Scored]:
        """The same, timed in routed mode on every device, on inputs of the test split.

        Args:
            progress: told of every round.
            known: what was timed already, by the name of the device.
            sessions: device -> those of the table that it was predicted from.
        """
        routed = [(self._candidate(each.number)[0], each.point.policy) for each in scored]
        x, seed, times = self._test.x, self._problem.strategy.seed, dict(known or {})
        for name, device in self._problem.devices.items():
            if name not in times:
                then = (sessions or {}).get(name, ())
                times[name] = measure_routed(routed, x, device, seed=seed, progress=progress, sessions=then)
        return [
            replace(each, measured={name: rows[index] for name, rows in times.items()})
            for index, each in enumerate(scored)
        ]

    def full(self, number: int) -> Scored:
        """A candidate run to its end."""
        return self.score(number, Policy.never(self.exits(number)))

    def _candidate(self, number: int) -> tuple[DynamicNetwork, Costs]:
        if number not in self._loaded:
            self._loaded[number] = load_candidate(inside(self._folder, candidate_folder(number)))
        return self._loaded[number]

    def _table(self, number: int, setting: Setting) -> ScoreTables:
        """One table at a time: the knobs of a front's members are all that the test split is scored at."""
        place = (number, setting)
        if place not in self._tables:
            self._tables[place] = score_tables(self._candidate(number)[0], self._test, (setting,))
        return self._tables[place]


def whole_macs(costs: Costs) -> float:
    """Work of the same network run whole: no exit is tried, no gate asked, of every choice the dearest branch runs."""
    macs = np.array(
        [
            float(work) if part.exit is None and part.kind != "gate" else 0.0
            for part, work in zip(costs.parts, costs.macs, strict=True)
        ]
    )
    return float(macs @ usage_row(costs.parts, dearest_usage(costs.parts, macs)))


def measure_routed(
    routed: Sequence[tuple[DynamicNetwork, Policy]],
    x: Tensor,
    device: AbstractDevice,
    *,
    seed: int,
    progress: Progress | None = None,
    sessions: Sequence[Session] = (),
) -> list[dict[str, float]]:
    """Mean and 95th percentile of routed mode in milliseconds an input, for each network and policy.

    All take the same batches of inputs `n x ...`, of the device's size. The networks take turns, round after
    round, so that a busy minute of the machine hits all alike; of each call the fastest round counts, as
    neighbours only ever add time.
    """
    generator = np.random.default_rng(seed)
    calls = max(TIMED_INPUTS // device.batch, 8)
    rows = generator.permutation(np.arange(calls * device.batch) % len(x)).reshape(calls, device.batch)
    batches = [device.place(x[torch.from_numpy(row)]) for row in rows]
    runs = [_bind(device.prepare(network), policy, batches) for network, policy in routed]
    streams = Streams(runs, [calls] * len(runs), device=device, seed=seed, sessions=sessions)
    note = None if progress is None else partial(progress, f"timing on {device.name}")
    fastest = streams.fastest(TIMED_ROUNDS, on_progress=note)
    return [
        {
            "latency_ms": float(each.mean()),
            "latency_p95_ms": float(np.quantile(each, 0.95)),
            **{name: float(np.quantile(each, level)) for name, level in QUANTILES.items()},
            "calls": float(calls),
            "rounds": float(TIMED_ROUNDS),
        }
        for each in (best / device.batch for best in fastest)
    ]


def _bind(network: nn.Module, policy: Policy, batches: Sequence[Tensor]) -> Callable[[int], object]:
    assert isinstance(network, DynamicNetwork)
    return lambda index: network.route(batches[index], policy)


def score_front(ledger: Ledger, search_id: str, front: Sequence[Point], examiner: Examiner) -> dict[PointKey, Scored]:
    """What the test split says of the front, and what was timed of it before; fresh scores go to the ledger."""
    fresh = {(p.number, p.index): p for p in front if p.test is None}
    scores = {key: examiner.score(p.number, Policy.from_dict(p.policy)).to_mapping() for key, p in fresh.items()}
    ledger.score_points(search_id, scores)
    keys = {(point.number, point.index) for point in front}
    return {
        (p.number, p.index): Scored.from_mapping(p.number, p.test or {}, p.measured)
        for p in ledger.points(search_id)
        if (p.number, p.index) in keys
    }


def still_front(problem: Problem, scored: Mapping[PointKey, Scored]) -> set[PointKey]:
    """Members that no other member dominates on unseen data; nothing new is chosen in their place."""
    keys = list(scored)
    if not keys:
        return set()
    values = np.array([problem.values(scored[key].point.metrics) for key in keys], dtype=float)
    return {keys[index] for index in np.flatnonzero(non_dominated(values, problem.directions))}


def static_numbers(ledger: Ledger, search_id: str) -> tuple[int, ...]:
    """Finished candidates without any dynamic family."""
    return tuple(
        evaluation.number
        for evaluation in ledger.evaluations(search_id)
        if evaluation.state == "finished" and not evaluation.architecture.get("families")
    )


def single_exits(problem: Problem, examiner: Examiner, numbers_: Iterable[int]) -> list[Scored]:
    """The feasible, non-dominated ones among all early exits of these candidates used alone, as static networks."""
    scored = [
        examiner.score(number, Policy.single(examiner.exits(number), k))
        for number in numbers_
        for k in range(examiner.exits(number))
    ]
    # A network with gates decides even where it leaves at one exit, and so is no static one.
    scored = [each for each in scored if problem.feasible(each.point.metrics) and not each.point.decides]
    if not scored:
        return []
    values = np.array([problem.values(each.point.metrics) for each in scored], dtype=float)
    return [scored[index] for index in np.flatnonzero(non_dominated(values, problem.directions))]
