"""Proposals: from a sampler's wishes to candidates that are new and worth a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from ..evaluators.evaluators import taken_for
from ..hardware.book import LatencyBook
from ..spaces.architecture import Architecture
from ..spaces.scope import Chance, Scalar, Scope, Suggester
from .candidate import Candidate
from .feasibility import hopeless
from .ledger.entities import Point
from .ledger.store import Ledger
from .problem import Problem
from .samplers import LEVEL, Asked, Study

REFUSALS = 25  # in a row, before a sampler that asks for known things is taken out of the loop
LOOKS = 2000  # at random, before a space counts as exhausted


def numbers(point: Point) -> dict[str, float]:
    """The metrics of a recorded point."""
    metrics = point.metrics["metrics"]
    assert isinstance(metrics, dict)
    return {str(name): float(value) for name, value in metrics.items()}


def at_level(level: float, count: int) -> int:
    """Which of `count` points, sorted by latency, belongs to an operating level in `[0, 1]`."""
    return round(level * (count - 1))


def answered(suggester: Suggester, problem: Problem, architecture: Architecture) -> float:
    """Ask what this architecture was asked, static ones the backbone's questions alone; the operating level."""
    scope, signature = Scope(suggester), problem.data.signature
    if architecture.families:
        problem.space.sample(scope, signature)
    else:
        problem.space.sample_static(scope, signature)
    return scope.number(LEVEL, 0.0, 1.0)


@final
class Proposer:
    """Proposes candidates and remembers which architectures are known.

    Args:
        problem: what is searched.
        search_id: its row in the ledger.
        ledger: where candidates are recorded before anything else happens to them.
        study: whom to ask.
        book: latencies, to refuse what cannot meet the constraints.
        clock: epoch seconds.
    """

    def __init__(
        self,
        problem: Problem,
        search_id: str,
        *,
        ledger: Ledger,
        study: Study,
        book: LatencyBook,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._problem = problem
        self._search_id = search_id
        self._ledger = ledger
        self._study = study
        self._book = book
        self._clock = clock
        evaluations = ledger.evaluations(search_id)
        self._known = {evaluation.architecture_id: evaluation.number for evaluation in evaluations}
        self._questions = sum(not trial.extra and not trial.orphan for trial in study.trials())
        self.asked = len(evaluations)
        static = problem.space.baselines(problem.data.signature)
        self._baselines = [architecture for architecture in static if architecture.id not in self._known]

    def propose(self) -> Candidate | None:
        """A new candidate, recorded; None if the space seems to hold no more."""
        while self._baselines:
            candidate = self._record(*self._ask_baseline(self._baselines.pop(0)))
            if candidate is not None:
                return candidate
        for _ in range(REFUSALS):
            candidate = self._record(*self._ask_space())
            if candidate is not None:
                return candidate
        # The sampler keeps returning to what is known: look elsewhere, and let it learn from that.
        fresh = self._look_around()
        return None if fresh is None else self._record(*self._ask_space(fresh))

    def _look_around(self) -> dict[str, Scalar] | None:
        """The answers of a random architecture that is new and not hopeless; without a trial for every look."""
        generator = np.random.default_rng([self._problem.strategy.seed, self._questions])
        seen = set(self._known)
        for _ in range(LOOKS):
            chance = Chance(generator)
            architecture = self._problem.space.sample(Scope(chance), self._problem.data.signature)
            if architecture.id not in seen and not hopeless(architecture, self._problem, self._book):
                return chance.params
            seen.add(architecture.id)
        return None

    def _ask_space(self, fixed: Mapping[str, Scalar] | None = None) -> tuple[Architecture, Asked, float]:
        self._questions += 1
        space, signature = self._problem.space, self._problem.data.signature
        asked = self._study.ask(self._questions, fixed=fixed)
        scope = Scope(asked.suggester)
        architecture = space.sample(scope, signature)
        level = scope.number(LEVEL, 0.0, 1.0)
        return architecture, asked, level

    def _ask_baseline(self, architecture: Architecture) -> tuple[Architecture, Asked, float]:
        """A static network, as a trial with the backbone's parameters alone."""
        self._questions += 1
        fixed = self._problem.space.static_params(architecture, self._problem.data.signature)
        asked = self._study.ask(self._questions, fixed={**fixed, LEVEL: 1.0})
        level = answered(asked.suggester, self._problem, architecture)
        return architecture, asked, level

    def _record(self, architecture: Architecture, asked: Asked, level: float) -> Candidate | None:
        """A new candidate, running, unless it is known or cannot be on any front."""
        if architecture.id in self._known:
            self._answer_known(self._known[architecture.id], self._study.begin(asked), level)
            return None
        if hopeless(architecture, self._problem, self._book):
            self._study.fail(self._study.begin(asked))
            return None
        number = self.asked
        trial = self._study.begin(asked, candidate=number)  # an orphan, if the ledger does not come to know of it
        strategy, budget = self._problem.strategy, self._problem.budget
        self._ledger.propose(
            self._search_id,
            number=number,
            architecture_id=architecture.id,
            architecture=architecture.to_mapping(),
            params=self._study.params(trial),
            level=level,
            seed=strategy.seed,
            fidelity=budget.epochs,
            evaluator=taken_for(architecture, strategy.evaluator),
            created_at=self._clock(),
            optuna_trial=trial,
            started=True,
        )
        self.asked += 1
        self._known[architecture.id] = number
        return Candidate(number, architecture, level, trial)

    def _answer_known(self, number: int, trial: int, level: float) -> None:
        """A known architecture costs nothing: the trial is told what the ledger already knows."""
        points = self._ledger.points(self._search_id, number=number)
        if not points:
            self._study.fail(trial)
            return
        chosen = numbers(points[at_level(level, len(points))])
        self._study.tell(trial, self._problem.values(chosen), self._problem.excesses(chosen))
