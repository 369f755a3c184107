"""Subject: what pictures are of: a finished search with everything that it left behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...evaluators.from_scratch import load_candidate
from ...evaluators.policy import leave_at
from ...evaluators.score_table import ScoreTables
from ...evaluators.splits import Part, visible_splits
from ...hardware.book import LatencyBook
from ...hardware.inventory import Costs
from ...spaces.network import DynamicNetwork
from ...spaces.policy import Policy
from ...spaces.trace import counts
from ..candidate import candidate_folder
from ..inside import inside
from ..ledger.entities import Evaluation, Point
from ..ledger.store import Ledger
from ..problem import Problem
from ..proposals import numbers
from ..storage import BOOK


@final
@dataclass(frozen=True)
class Member:
    """A member of the front, with what each input of the tune split does in it.

    Args:
        label: as in reports.
        point: as in the ledger.
        policy: of the point.
        taken: `n`, the exit that each input leaves at.
        right: `n`, whether it is answered right.
        work: `n`, multiply-accumulates.
        surety: `n`, score at the exit where it left; the final head's are those of the last early exit.
    """

    label: str
    point: Point
    policy: Policy
    taken: NDArray[np.int64]
    right: NDArray[np.bool_]
    work: NDArray[np.float64]
    surety: NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A finished search.

    Args:
        problem: what was searched.
        search_id: its row in the ledger.
        ledger: open.
        folder: the search's folder.
        study_url: database of the study.

    Nothing here reads the test split: inputs are those of the tune split, which the search has looked at all along.
    """

    problem: Problem
    search_id: str
    ledger: Ledger
    folder: Path
    study_url: str
    _loaded: dict[int, tuple[DynamicNetwork, Costs]] = field(default_factory=dict)

    @cached_property
    def tune(self) -> Part:
        """The tune split."""
        return visible_splits(self.problem.data, self.problem.splits, self.problem.strategy.seed).tune

    @cached_property
    def book(self) -> LatencyBook:
        """Latencies that the search predicted with."""
        return LatencyBook.from_mapping(json.loads((self.folder / BOOK).read_text(encoding="utf-8")))

    @cached_property
    def finished(self) -> tuple[Evaluation, ...]:
        """Candidates trained to the end."""
        return tuple(each for each in self.ledger.evaluations(self.search_id) if each.state == "finished")

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The front, fastest first."""
        device = next(iter(self.problem.devices))
        points = self.ledger.points(self.search_id, front_only=True)
        return tuple(self._member(p) for p in sorted(points, key=lambda p: numbers(p)[f"latency_ms@{device}"]))

    def candidate(self, number: int) -> tuple[DynamicNetwork, Costs]:
        """A trained network, on the CPU, and its costs."""
        if number not in self._loaded:
            self._loaded[number] = load_candidate(inside(self.folder, candidate_folder(number)))
        return self._loaded[number]

    def tables(self, number: int) -> ScoreTables:
        """What a candidate did with the tune split."""
        return ScoreTables.load(inside(self.folder, candidate_folder(number)) / "tune.npz")

    def telling(self, among: Sequence[Member] | None = None) -> Member | None:
        """The member whose inputs differ most in the work that they get; None if there is no member."""
        members = self.members if among is None else among
        return max(members, key=lambda each: float(np.std(each.work) / max(each.work.mean(), 1.0)), default=None)

    def _member(self, point: Point) -> Member:
        policy = Policy.from_dict(point.policy)
        table = self.tables(point.number).at(policy.setting)
        _, costs = self.candidate(point.number)
        taken = leave_at(table.scores, table.predictions, policy)
        rows = np.arange(len(taken))
        work = counts(costs.parts, policy, taken, table.usage) @ np.array(costs.macs, dtype=float)
        surety = np.zeros(len(taken))
        scores = table.scores.get(policy.decision)
        if scores is not None and scores.shape[1]:
            surety = scores[rows, np.minimum(taken, scores.shape[1] - 1)].astype(np.float64)
        right = table.predictions[rows, taken] == table.labels
        return Member(f"{point.number}.{point.index}", point, policy, taken, right, work, surety)
