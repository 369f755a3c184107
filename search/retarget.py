"""Retarget: the front of a finished search on another device, without training anything.

Everything that depends on weights is in the score tables; everything that depends on the device is in its
latency table. So a new device needs its parts timed once, and then seconds of policy search.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from ..evaluators.from_scratch import MANIFEST
from ..evaluators.metrics import metric_reference
from ..evaluators.operating import OperatingPoint, operating_points, score
from ..evaluators.pareto import non_dominated
from ..evaluators.score_table import ScoreTables
from ..hardware.book import LatencyBook
from ..hardware.inventory import Costs
from ..spaces.architecture import Architecture
from ..spaces.errors import DataError
from .candidate import candidate_folder
from .inside import inside
from .ledger.store import Ledger
from .problem import Problem

EVALUATIONS = 1000  # of the policy search for each candidate; a tenth of a point of hypervolume below 4000


@final
@dataclass(frozen=True)
class Retargeted:
    """A point of a front on another device.

    Args:
        number: the candidate.
        index: of the point among the candidate's new ones.
        architecture: what was built.
        point: policy and metrics on the tune split; latencies are those of the new device.
        certify_accuracy: accuracy on data that nothing was chosen on.
    """

    number: int
    index: int
    architecture: Architecture
    point: OperatingPoint
    certify_accuracy: float


@final
@dataclass(frozen=True)
class Finished:
    """A candidate that was trained to its end, without its weights.

    Args:
        number: the candidate.
        architecture: what was built.
        costs: its parts.
        home: where its score tables are.
    """

    number: int
    architecture: Architecture
    costs: Costs
    home: Path


def finished(ledger: Ledger, search_id: str, folder: Path) -> list[Finished]:
    """All candidates of a search that were trained to their end.

    Raises:
        DataError: if the artefacts of one are gone.
    """
    return [
        Finished(each.number, Architecture.from_mapping(each.architecture), *_costs(folder, each.number))
        for each in ledger.evaluations(search_id)
        if each.state == "finished"
    ]


def _costs(folder: Path, number: int) -> tuple[Costs, Path]:
    home = inside(folder, candidate_folder(number))
    try:
        return Costs.from_mapping(json.loads((home / MANIFEST).read_text())["costs"]), home
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"candidate {number}", f"{home} cannot be read ({error}); restore the storage") from None


def retarget(problem: Problem, candidates: Sequence[Finished], book: LatencyBook) -> list[Retargeted]:
    """The non-dominated points of candidates on the devices of `book`.

    Objectives and constraints on a device are read on the first device of the book.

    Raises:
        DataError: if the score tables of a candidate are gone.
        MissingEntryError: if the book lacks a part.
    """
    device, _ = book.first
    found = [point for candidate in candidates for point in _points(problem, candidate, book)]
    feasible = [each for each in found if _feasible(problem, each, device)]
    if not feasible:
        return []
    references = [metric_reference(text.partition("@")[0], (device,), "objectives") for text in problem.objectives]
    values = [[each.point.metrics[reference.key] for reference in references] for each in feasible]
    kept = np.flatnonzero(non_dominated(np.array(values, dtype=float), problem.directions))
    latency = f"latency_ms@{device}"
    return sorted((feasible[index] for index in kept), key=lambda each: each.point.metrics[latency])


def _points(problem: Problem, candidate: Finished, book: LatencyBook) -> list[Retargeted]:
    seed, costs = problem.strategy.seed, candidate.costs
    tune, certify = (ScoreTables.load(candidate.home / f"{name}.npz") for name in ("tune", "certify"))
    points = operating_points(
        tune,
        costs,
        book,
        decisions=problem.space.decisions(),
        seed=seed,
        max_points=problem.strategy.points,
        evaluations=EVALUATIONS,
    )
    return [
        Retargeted(
            candidate.number,
            index,
            candidate.architecture,
            point,
            score(certify, costs, book, point.policy, seed=seed).metrics["accuracy"],
        )
        for index, point in enumerate(points)
    ]


def _feasible(problem: Problem, each: Retargeted, device: str) -> bool:
    hard = [constraint for constraint in problem.constraints if constraint.hard]
    keys = [metric_reference(c.metric.partition("@")[0], (device,), "constraints").key for c in hard]
    return all(c.excess(each.point.metrics, key) <= 0 for c, key in zip(hard, keys, strict=True))
