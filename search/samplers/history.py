"""History: what a study has seen, kept in memory by its one writer, and how much of it a sampler is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, final

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from ...evaluators.pareto import rank

CANDIDATE: Final = "candidate"  # attributes of a trial: which one it stands for,
EXTRA: Final = "extra"  # and whether it is another point of a candidate that has a trial
SHOWN: Final = 600  # trials that a bounded sampler learns from at the most
BEST: Final = 200  # of them, the best of the whole history; more than the tenth that TPE calls good
STEP: Final = 100  # trials after which the best are looked for again; those since then are shown anyway


@final
class History:
    """The trials of a study by number.

    Args:
        directions: "maximize" or "minimize" for each objective.
    """

    def __init__(self, directions: Sequence[str]) -> None:
        self._directions = tuple(directions)
        self._trials: dict[int, FrozenTrial] = {}
        self._running: set[int] = set()
        self._best: tuple[int, tuple[FrozenTrial, ...]] | None = None
        self._extras: dict[int, int] = {}

    def replace(self, trials: Iterable[FrozenTrial]) -> None:
        """Forget everything, and take in these trials."""
        self._trials, self._running, self._best, self._extras = {}, set(), None, {}
        for trial in trials:
            self.put(trial)

    def put(self, trial: FrozenTrial) -> None:
        """Take in a new trial, or a new state of one."""
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        (self._running.add if trial.state == TrialState.RUNNING else self._running.discard)(trial.number)
        if self._best is not None and trial.number < self._best[0]:
            self._best = None
        if before is None and trial.user_attrs.get(EXTRA):
            candidate: Any = trial.user_attrs.get(CANDIDATE)
            self._extras[candidate] = self._extras.get(candidate, 0) + 1

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> FrozenTrial:
        return self._trials[number]

    def all(self) -> list[FrozenTrial]:
        """Every trial, by number; Optuna counts them from 0."""
        return [self._trials[number] for number in range(len(self._trials))]

    def extras(self, candidate: int) -> int:
        """How many extra points of a candidate there are."""
        return self._extras.get(candidate, 0)

    def shown(self) -> list[FrozenTrial]:
        """What a bounded sampler learns from, by number: everything, as long as that is little; then the best and the
        newest, and all that run.

        It follows from the trials alone, so that a resumed search shows what an undisturbed one would.
        """
        if len(self._trials) <= SHOWN:
            return self.all()
        chosen = {trial.number: trial for trial in self._of_the_best()}
        for number in range(len(self._trials) - 1, -1, -1):
            if len(chosen) >= SHOWN:
                break
            chosen[number] = self._trials[number]
        chosen |= {number: self._trials[number] for number in self._running}
        return [chosen[number] for number in sorted(chosen)]

    def _of_the_best(self) -> tuple[FrozenTrial, ...]:
        """The best of all trials but the newest ones; looked for now and then, as that takes milliseconds."""
        border = len(self._trials) // STEP * STEP
        if self._best is None or self._best[0] != border:
            old = [self._trials[number] for number in range(border)]
            self._best = border, tuple(_best(old, self._directions))
        return self._best[1]


def _best(trials: Sequence[FrozenTrial], directions: tuple[str, ...]) -> list[FrozenTrial]:
    """Those of the lowest rank, of equals the newest; behind them those that break constraints least."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    excess = np.array([sum(value for value in each.constraints.values() if value > 0) for each in complete])
    numbers = np.array([trial.number for trial in complete])
    ranks = np.zeros(len(complete))
    kept = np.flatnonzero(excess == 0)
    if len(kept):
        ranks[kept] = rank(np.array([complete[index].values for index in kept], dtype=float), directions)
    order = np.lexsort((-numbers, ranks, excess))
    return [complete[index] for index in order[:BEST]]
