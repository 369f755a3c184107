"""Retarget: the front of a finished search on another device, without training anything.

Everything that depends on weights is in the score tables; everything that depends on the device is in its
latency table. So a new device needs its parts timed once, and then seconds of policy search.
"""

from __future__ import annotations

import json
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


def retarget(problem: Problem, ledger: Ledger, search_id: str, folder: Path, book: LatencyBook) -> list[Retargeted]:
    """The non-dominated points of all finished candidates on the devices of `book`.

    Objectives and constraints on a device are read on the first device of the book.

    Raises:
        DataError: if the artefacts of a candidate are gone.
        MissingEntryError: if the book lacks a part.
    """
    device, _ = book.first
    found = []
    for evaluation in ledger.evaluations(search_id):
        if evaluation.state == "finished":
            architecture = Architecture.from_mapping(evaluation.architecture)
            found += _points(problem, folder, evaluation.number, architecture, book)
    feasible = [each for each in found if _feasible(problem, each, device)]
    if not feasible:
        return []
    references = [metric_reference(text.partition("@")[0], (device,), "objectives") for text in problem.objectives]
    values = [[each.point.metrics[reference.key] for reference in references] for each in feasible]
    kept = np.flatnonzero(non_dominated(np.array(values, dtype=float), problem.directions))
    latency = f"latency_ms@{device}"
    return sorted((feasible[index] for index in kept), key=lambda each: each.point.metrics[latency])


def _points(
    problem: Problem, folder: Path, number: int, architecture: Architecture, book: LatencyBook
) -> list[Retargeted]:
    home, seed = inside(folder, candidate_folder(number)), problem.strategy.seed
    try:
        costs = Costs.from_mapping(json.loads((home / MANIFEST).read_text())["costs"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"candidate {number}", f"{home} cannot be read ({error}); restore the storage") from None
    tune, certify = ScoreTables.load(home / "tune.npz"), ScoreTables.load(home / "certify.npz")
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
            number,
            index,
            architecture,
            point,
            score(certify, costs, book, point.policy, seed=seed).metrics["accuracy"],
        )
        for index, point in enumerate(points)
    ]


def _feasible(problem: Problem, each: Retargeted, device: str) -> bool:
    hard = [constraint for constraint in problem.constraints if constraint.hard]
    keys = [metric_reference(c.metric.partition("@")[0], (device,), "constraints").key for c in hard]
    return all(c.excess(each.point.metrics, key) <= 0 for c, key in zip(hard, keys, strict=True))
