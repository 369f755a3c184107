"""Evaluations in the ledger: proposed, started, judged at rungs, finished once and for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from ...hardware.database import plain_json, plain_text
from ...spaces.errors import StoreError
from .entities import TERMINAL_STATES, Counts, Evaluation, NewPoint, Point, Rung, TerminalState
from .records import AbstractRecords
from .rows import EvaluationRow, PointRow, RungRow


class AbstractEvaluationRecords(AbstractRecords):
    """The part of the ledger that keeps evaluations; every call but `start` may safely be made twice."""

    def propose(
        self,
        search_id: str,
        *,
        number: int,
        architecture_id: str,
        architecture: Mapping[str, object],
        params: Mapping[str, object],
        level: float,
        seed: int,
        fidelity: int,
        evaluator: str,
        created_at: float,
        optuna_trial: int | None = None,
        started: bool = False,
    ) -> Evaluation:
        """Record a candidate; the first writer of a key (architecture, seed, fidelity) wins.

        Args:
            started: record it as running already, as `start` would; one that is known is left as it is.

        Returns:
            The evaluation that holds the key. If its `number` is not the one asked for, the candidate is a
            known one, nothing was written, and it must not be evaluated again.

        Raises:
            StoreError: if the key is new but its number is taken by another candidate.
            SearchNotFoundError: if there is no such search.
        """
        key = {"architecture_id": architecture_id, "seed": seed, "fidelity": fidelity}
        new = {
            "search_id": search_id,
            "number": number,
            **key,
            "architecture": plain_json(architecture, "architecture"),
            "params": plain_json(params, "params"),
            "level": plain_json(level, "level"),
            "evaluator": evaluator,
            "created_at": created_at,
            "optuna_trial": optuna_trial,
        }

        def work(session: Session) -> Evaluation:
            self._search_row(session, search_id)
            held = select(EvaluationRow).filter_by(search_id=search_id)
            known = session.scalars(held.filter_by(**key)).one_or_none()
            if known is not None:
                return known.entity()
            taken = session.scalars(held.filter_by(number=number)).one_or_none()
            if taken is not None:
                raise StoreError(
                    f"evaluation {number} of search {search_id!r} is already architecture"
                    f" {taken.architecture_id!r} and cannot be {architecture_id!r} too; take a free number"
                )
            row = EvaluationRow(**new)
            if started:
                row.state, row.attempts = "running", 1
            session.add(row)
            session.flush()
            return row.entity()

        return self.database.write(work)

    def start(self, search_id: str, number: int) -> Evaluation:
        """Count one more attempt and mark the evaluation as running; a terminal one is returned unchanged."""

        def work(session: Session) -> Evaluation:
            row = self._evaluation_row(session, search_id, number)
            if row.state not in TERMINAL_STATES:
                row.state = "running"
                row.attempts += 1
            return row.entity()

        return self.database.write(work)

    def link_trial(self, search_id: str, number: int, optuna_trial: int) -> None:
        """Say which Optuna trial now stands for the evaluation; that one has been told nothing yet."""

        def work(session: Session) -> None:
            row = self._evaluation_row(session, search_id, number)
            row.optuna_trial = optuna_trial
            row.told = False

        self.database.write(work)

    def record_rung(self, search_id: str, number: int, epoch: int, *, points: Sequence[object], kept: bool) -> Rung:
        """Record the scheduler's verdict on a candidate at an epoch; the first writer wins.

        Returns:
            The verdict that stands, which may be an earlier one: act on it, not on the one passed in.

        Raises:
            StoreError: if the evaluation is unknown.
        """
        plain = plain_json(list(points), "points")

        def work(session: Session) -> Rung:
            self._evaluation_row(session, search_id, number)
            there = select(RungRow).filter_by(search_id=search_id, number=number, epoch=epoch)
            row = session.scalars(there).one_or_none()
            if row is None:
                row = RungRow(search_id=search_id, number=number, epoch=epoch, points=plain, kept=kept)
                session.add(row)
                session.flush()
            return row.entity()

        return self.database.write(work)

    def rungs(self, search_id: str) -> tuple[Rung, ...]:
        """All verdicts in the order of recording, from which the scheduler rebuilds its state."""

        def work(session: Session) -> tuple[Rung, ...]:
            rows = session.scalars(select(RungRow).filter_by(search_id=search_id).order_by(RungRow.id))
            return tuple(row.entity() for row in rows)

        return self.database.read(work)

    def finish(
        self,
        search_id: str,
        number: int,
        *,
        state: TerminalState,
        finished_at: float,
        epochs_done: int,
        seconds: float,
        cause: str | None = None,
        metrics: Mapping[str, object] | None = None,
        curve: Sequence[object] | None = None,
        points: Sequence[NewPoint] = (),
        artefacts: str | None = None,
    ) -> bool:
        """End an evaluation with all that came of it, in one transaction; the first writer wins.

        Args:
            search_id: the search.
            number: which of its evaluations.
            state: how it ended.
            finished_at: when, in epoch seconds.
            epochs_done: how much training it had.
            seconds: how long it took, all attempts together.
            cause: why it was stopped or failed.
            metrics: its figures.
            curve: one entry an epoch; NaN and infinities, which diverged training leaves, are kept as None.
            points: its operating points; their place in the sequence is their index.
            artefacts: folder of its weights and score tables, relative to the artefacts of the search.

        Returns:
            False if it was terminal already, in which case nothing changed.

        Raises:
            StoreError: if the evaluation is unknown or a value cannot be stored.
        """
        _check_ending(state, artefacts)
        plain_points = [_plain_point(index, point) for index, point in enumerate(points)]
        plain_metrics = None if metrics is None else plain_json(metrics, "metrics")
        plain_curve = None if curve is None else plain_json(list(curve), "curve", nan_as_none=True)

        def work(session: Session) -> bool:
            row = self._evaluation_row(session, search_id, number)
            if row.state in TERMINAL_STATES:
                return False
            row.state = state
            row.cause = None if cause is None else plain_text(cause)
            row.epochs_done = epochs_done
            row.seconds = plain_json(seconds, "seconds")
            row.metrics = plain_metrics
            row.curve = plain_curve
            row.artefacts = artefacts
            row.finished_at = finished_at
            session.add_all(PointRow(search_id=search_id, number=number, **point) for point in plain_points)
            return True

        return self.database.write(work)

    def mark_told(self, search_id: str, *numbers: int) -> None:
        """Record that the sampler knows these outcomes: all of them or, on any mistake, none.

        Raises:
            StoreError: if there is no outcome yet: the ledger commits first.
        """

        def work(session: Session) -> None:
            for number in numbers:
                self._ended_row(session, search_id, number).told = True

        self.database.write(work)

    def mark_logged(self, search_id: str, runs: Mapping[int, str], *, replace: bool = False) -> dict[int, str]:
        """Record which MLflow runs hold these outcomes; the first run of a number wins, unless it was lost.

        Args:
            runs: ids by number.
            replace: the earlier runs are no more.

        Returns:
            The ids of the runs that stand: a different one than passed in means that yours is a double.

        Raises:
            StoreError: if there is no outcome yet: the ledger commits first.
        """

        def work(session: Session) -> dict[int, str]:
            stand: dict[int, str] = {}
            for number, run_id in runs.items():
                row = self._ended_row(session, search_id, number)
                if replace or not row.logged or row.mlflow_run_id is None:
                    row.mlflow_run_id = run_id
                    row.logged = True
                stand[number] = row.mlflow_run_id
            return stand

        return self.database.write(work)

    def outcome(self, search_id: str, number: int) -> tuple[Evaluation, tuple[Point, ...]]:
        """An evaluation with its operating points, as of one moment.

        Raises:
            StoreError: if the evaluation is unknown.
        """
        points = select(PointRow).filter_by(search_id=search_id, number=number).order_by(PointRow.index)

        def work(session: Session) -> tuple[Evaluation, tuple[Point, ...]]:
            row = self._evaluation_row(session, search_id, number, lock=False)
            return row.entity(), tuple(each.entity() for each in session.scalars(points))

        return self.database.read(work)

    def evaluation(self, search_id: str, number: int) -> Evaluation | None:
        """The evaluation of that number, or None."""
        held = self._evaluations(search_id, EvaluationRow.number == number)
        return held[0] if held else None

    def evaluations(self, search_id: str) -> tuple[Evaluation, ...]:
        """All evaluations of the search by number."""
        return self._evaluations(search_id)

    def unfinished(self, search_id: str) -> tuple[Evaluation, ...]:
        """Those that were proposed or started and have not ended, by number."""
        return self._evaluations(search_id, EvaluationRow.state.not_in(TERMINAL_STATES))

    def counts(self, search_id: str) -> Counts:
        """How many evaluations are in each state."""
        by_state = select(EvaluationRow.state, func.count()).filter_by(search_id=search_id)

        def work(session: Session) -> dict[str, int]:
            rows = session.execute(by_state.group_by(EvaluationRow.state))
            return {row[0]: row[1] for row in rows}

        found = self.database.read(work)
        return Counts(
            done=found.get("finished", 0),
            stopped=found.get("stopped", 0),
            failed=found.get("failed", 0),
            running=found.get("running", 0),
            proposed=found.get("proposed", 0),
        )

    def _evaluations(self, search_id: str, *only: ColumnElement[bool]) -> tuple[Evaluation, ...]:
        wanted = select(EvaluationRow).filter_by(search_id=search_id).where(*only)

        def work(session: Session) -> tuple[Evaluation, ...]:
            return tuple(row.entity() for row in session.scalars(wanted.order_by(EvaluationRow.number)))

        return self.database.read(work)

    def _ended_row(self, session: Session, search_id: str, number: int) -> EvaluationRow:
        row = self._evaluation_row(session, search_id, number)
        if row.state not in TERMINAL_STATES:
            raise StoreError(
                f"evaluation {number} of search {search_id!r} is {row.state}, so there is no outcome yet;"
                " finish it first"
            )
        return row


def _check_ending(state: str, artefacts: str | None) -> None:
    if state not in TERMINAL_STATES:
        raise StoreError(f"an evaluation ends as one of {', '.join(TERMINAL_STATES)}, but got {state!r}")
    if artefacts is None:
        return
    folder = PurePosixPath(artefacts)
    if folder.is_absolute() or PureWindowsPath(artefacts).drive or ".." in folder.parts:
        raise StoreError(
            f"artefacts must lie inside the folder of the search, but got {artefacts!r}; give a relative path"
        )


def _plain_point(index: int, point: NewPoint) -> dict[str, Any]:
    return {
        "index": index,
        "policy": plain_json(point.policy, f"points[{index}].policy"),
        "metrics": plain_json(point.metrics, f"points[{index}].metrics"),
    }
