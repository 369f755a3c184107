"""Engine: ask, evaluate, tell. It knows no transport: Ray Tune drives it through four methods.

Order of every ending: the ledger commits, then the study is told, then MLflow is written. Whatever dies,
the ledger is right, and `reconcile` brings the others to what it says.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

import numpy as np

from .candidate import Candidate, Message, candidate_folder
from .fidelity import ParetoRungs
from .ledger.entities import Evaluation, NewPoint, Point, TerminalState
from .ledger.store import Ledger
from .problem import Problem
from .proposals import Proposer, at_level, numbers
from .samplers import Study

EXTRA_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
TOLD_AT_ONCE = 10  # endings that the ledger hears of as told in one transaction; telling is safe to repeat


@final
class Engine:
    """Drives one search.

    Args:
        problem: what is searched.
        search_id: its row in the ledger.
        ledger, study: where things are kept.
        proposer: whom to ask for candidates.
        pending: candidates that an earlier driver left unfinished; they come first.
        on_end: called after a candidate's end is committed and told; MLflow hangs here.
        clock: epoch seconds.
        began_at: from when the budget's minutes count; None: from now.
    """

    def __init__(
        self,
        problem: Problem,
        search_id: str,
        *,
        ledger: Ledger,
        study: Study,
        proposer: Proposer,
        pending: Iterable[Candidate] = (),
        on_end: Callable[[Evaluation, Sequence[Point]], None],
        clock: Callable[[], float] = time.time,
        began_at: float | None = None,
    ) -> None:
        self.problem = problem
        self.search_id = search_id
        self.stop_reason: str | None = None
        self.blocked: str | None = None
        self._halted = False
        self._ledger = ledger
        self._study = study
        self._proposer = proposer
        self._on_end = on_end
        self._clock = clock
        self._lock = threading.RLock()
        self._pending = deque(pending)
        self._live: dict[int, Candidate] = {}
        self._stopped: set[int] = set()
        self._told: list[int] = []
        self._curves: dict[int, list[dict[str, float]]] = {}
        self._seconds: dict[int, float] = {}
        # Static baselines stand on every report, so they are always trained to the end.
        self._protected = {each.id for each in problem.space.baselines(problem.data.signature)}
        self._rungs = rebuilt_rungs(problem, ledger, search_id)
        minutes = problem.budget.minutes
        began_at = clock() if began_at is None else began_at
        self._deadline = None if minutes is None else began_at + 60 * minutes

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """Epochs at which workers report."""
        return self._rungs.rungs if self.problem.strategy.rungs else ()

    def stop(self, reason: str) -> None:
        """Propose nothing more; the transport ends what runs, and a resume continues it."""
        self._close(reason)
        self._halted = True

    def _close(self, reason: str) -> None:
        """Propose nothing new; what was begun comes to its end, or a finished search would leave it open."""
        self.stop_reason = self.stop_reason or reason

    @property
    def stopped(self) -> bool:
        """Whether everything should end now."""
        return self._halted

    @property
    def exhausted(self) -> bool:
        """Whether no candidate is left to propose."""
        if self._halted or self._pending:
            return self._halted
        if self._proposer.asked >= self.problem.budget.trials:
            return True
        if self._deadline is not None and self._clock() > self._deadline:
            self._close(f"the budget of {self.problem.budget.minutes:g} minutes is spent")
        return self.stop_reason is not None

    @property
    def live(self) -> int:
        """Candidates under evaluation."""
        return len(self._live)

    def propose(self) -> Candidate | None:
        """The next candidate, recorded as running; None if there is none now."""
        with self._lock:
            if self.exhausted:
                return None
            if self._pending:
                candidate: Candidate | None = self._pending.popleft()
                assert candidate is not None
                self._ledger.start(self.search_id, candidate.number)
            else:
                candidate = self._proposer.propose()
            if candidate is None:
                self._close("every architecture that the space and its constraints admit has been evaluated")
                return None
            self._live[candidate.number] = candidate
            return candidate

    # -- reporting ------------------------------------------------------------------------------------

    def report(self, message: Message) -> bool:
        """Take in a step that is no ending; False stops the candidate."""
        with self._lock:
            number = message.number
            self._curves.setdefault(number, []).extend(dict(row) for row in message.curve)
            self._seconds[number] = self._seconds.get(number, 0.0) + message.seconds
            if message.state != "reading":
                return True
            points = [self.problem.values(point.metrics) for point in message.points]
            verdict = self._rungs.report(number, message.epoch, np.array(points, dtype=float))
            verdict = verdict or self._live[number].architecture.id in self._protected
            kept = self._ledger.record_rung(
                self.search_id, number, message.epoch, points=[list(row) for row in points], kept=verdict
            ).kept
            if not kept:
                self._stopped.add(number)
            return kept

    def finish(self, message: Message) -> None:
        """Take in the last message of a candidate: finished, failed, or the reading it was stopped at."""
        with self._lock:
            number = message.number
            if number in self._stopped:
                cause = f"stopped at epoch {message.epoch}: others were better at every operating point"
                self._end(number, "stopped", epochs=message.epoch, cause=cause)
            elif message.state == "finished":
                self._collect(message)
                self._end(number, "finished", epochs=message.epoch, message=message)
            elif message.state == "failed":
                self._collect(message)
                self._end(number, "failed", epochs=message.epoch, cause=message.cause or "unknown")
            elif message.state == "blocked":
                self.blocked = message.cause or "the search's folder cannot be written"
                self.stop(self.blocked)
            # Anything else was interrupted: it stays open in the ledger, and a resume continues it.
            self._live.pop(number, None)

    def lost(self, number: int, cause: str) -> None:
        """A candidate whose worker died too often."""
        with self._lock:
            self._end(number, "failed", epochs=0, cause=cause)
            self._live.pop(number, None)

    def _collect(self, message: Message) -> None:
        self._curves.setdefault(message.number, []).extend(dict(row) for row in message.curve)
        self._seconds[message.number] = self._seconds.get(message.number, 0.0) + message.seconds

    def _end(
        self,
        number: int,
        state: TerminalState,
        *,
        epochs: int,
        cause: str | None = None,
        message: Message | None = None,
    ) -> None:
        points = () if message is None else _new_points(message)
        self._ledger.finish(
            self.search_id,
            number,
            state=state,
            finished_at=self._clock(),
            epochs_done=epochs,
            seconds=self._seconds.pop(number, 0.0),
            cause=cause,
            metrics=None if message is None else message.summary,
            curve=_by_epoch(self._curves.pop(number, [])),
            points=points,
            artefacts=None if message is None else candidate_folder(number),
        )
        evaluation, recorded = self._ledger.outcome(self.search_id, number)
        self.tell(evaluation, recorded)
        self._on_end(evaluation, recorded)

    def tell(self, evaluation: Evaluation, points: Sequence[Point]) -> None:
        """Let the study know how a candidate ended; safe to repeat."""
        if evaluation.told or evaluation.optuna_trial is None:
            return
        trial = evaluation.optuna_trial
        if evaluation.state == "finished":
            self._tell_points(evaluation, trial, points)
        elif evaluation.state == "stopped":
            self._study.prune(trial)
        else:
            self._study.fail(trial)
        self._told.append(evaluation.number)
        if len(self._told) >= TOLD_AT_ONCE:
            self.note_told()

    def note_told(self) -> None:
        """Have the ledger know what the study was told; who dies before tells it again, which changes nothing."""
        with self._lock:
            if self._told:
                self._ledger.mark_told(self.search_id, *self._told)
                self._told.clear()

    def _tell_points(self, evaluation: Evaluation, trial: int, points: Sequence[Point]) -> None:
        metrics = [numbers(point) for point in points]
        own = at_level(evaluation.level, len(metrics))
        self._study.tell(trial, self.problem.values(metrics[own]), self.problem.excesses(metrics[own]))
        # A crash may have come between the extras, which are always added in this order.
        there = self._study.extras(evaluation.number)
        levels = {at_level(level, len(metrics)): level for level in reversed(EXTRA_LEVELS)}
        extras = [(level, index) for index, level in sorted(levels.items()) if index != own]
        for level, index in extras[there:]:
            self._study.add_extra(
                trial,
                level=level,
                values=self.problem.values(metrics[index]),
                constraints=self.problem.excesses(metrics[index]),
            )


def rebuilt_rungs(problem: Problem, ledger: Ledger, search_id: str) -> ParetoRungs:
    """The rungs as they stand after every report in the ledger."""
    strategy = problem.strategy
    rungs = ParetoRungs(
        problem.budget.epochs,
        first=strategy.first_rung,
        eta=strategy.reduction,
        directions=problem.directions,
    )
    for row in ledger.rungs(search_id):
        rungs.report(row.number, row.epoch, np.array(row.points, dtype=float))
    return rungs


def _by_epoch(rows: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row an epoch; a worker that was retried tells its history again."""
    merged: dict[float, dict[str, float]] = {}
    for row in rows:
        merged.setdefault(row["epoch"], {}).update(row)
    return [merged[epoch] for epoch in sorted(merged)]


def _new_points(message: Message) -> tuple[NewPoint, ...]:
    return tuple(
        NewPoint(
            point.policy.to_dict(),
            {
                "metrics": dict(point.metrics),
                "certify_accuracy": certified,
                "exit_share": list(point.exit_share),
                "notes": list(point.notes),
                "usage": dict(point.usage),
            },
        )
        for point, certified in zip(message.points, message.certified, strict=True)
    )
