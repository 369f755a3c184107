"""Records: what a search writes to MLflow, and when; a tracking server that is away stops no search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from ..spaces.errors import StoreError
from .candidate_run import candidate_run
from .ledger.entities import Evaluation, Point
from .ledger.store import Ledger
from .problem import Problem
from .report import FrontReport, front_markdown
from .summary import Progress, Standing, ended_in_order
from .tracking_records import DRIFT, State, Step

if TYPE_CHECKING:
    from .tracking import MLflowTracker

RETRY_SECONDS = 30.0  # until MLflow is asked again once it was away, as every question may take seconds
FLUSH_SECONDS = 5.0  # between two writings of what may wait: the steps of the search, and who has a run
FLUSH_STEPS = 100  # that wait at the most


@final
class Records:
    """Writes one search to MLflow.

    Args:
        make_tracker: opens MLflow; called when first needed, and again after it was away.
        ledger: remembers what was written.
        problem: the search.
        search_id: its id.
        warn: told once whenever MLflow goes away.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        make_tracker: Callable[[], MLflowTracker],
        ledger: Ledger,
        problem: Problem,
        search_id: str,
        *,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make_tracker
        self._ledger = ledger
        self._problem = problem
        self._search_id = search_id
        self._warn = warn
        self._tracker: MLflowTracker | None = None
        self._parent: str | None = None
        self._clock = clock
        self._away = self._missed = self._catching_up = False
        self._ask_again_at = 0.0
        self._steps: list[Step] = []
        self._runs: dict[int, str] = {}  # written, but the ledger does not know it yet
        self._flushed_at = float("-inf")

    def start(self) -> None:
        """Open the parent run, or the one that an earlier driver opened."""
        self._guarded(self._open)

    def candidate(self, evaluation: Evaluation, points: Sequence[Point], *, fresh: bool = False) -> None:
        """Write how a candidate ended, once; and what was missed before, if MLflow answers again.

        Args:
            fresh: it has ended just now. Of others the run may be there although the ledger does not know.
        """
        if evaluation.logged or evaluation.number in self._runs:
            return
        self._write(evaluation, points, maybe_exists=evaluation.attempts > 1 or not fresh)
        if self._missed and not self._away and not self._catching_up:
            self.catch_up()

    def _write(
        self, evaluation: Evaluation, points: Sequence[Point], *, maybe_exists: bool, replace: bool = False
    ) -> None:
        run = candidate_run(self._problem, evaluation, points)

        def write(tracker: MLflowTracker, parent: str) -> None:
            run_id = tracker.log_candidate(parent, run, maybe_exists=maybe_exists)
            if replace:
                self._ledger.mark_logged(self._search_id, {evaluation.number: run_id}, replace=True)
            else:
                self._runs[evaluation.number] = run_id

        self._with_parent(write)

    def progress(self, standing: Standing, *, at: float) -> None:
        """Stepped metrics of the parent run, some at a time; the same again changes nothing.

        Args:
            standing: how the search stood when a candidate had ended.
            at: when that was, in epoch seconds.
        """
        counts = standing.counts
        metrics = {
            "hypervolume": standing.hypervolume,
            "front_size": float(standing.front_size),
            "done": float(counts.done),
            "stopped": float(counts.stopped),
            "failed": float(counts.failed),
        }
        self._steps.append(Step(counts.total, metrics, round(1000 * at)))
        if len(self._steps) >= FLUSH_STEPS or self._clock() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Who dies before has it written by the next driver, from the ledger."""
        self._flushed_at = self._clock()
        steps, self._steps = self._steps, []
        if steps:
            self._with_parent(lambda tracker, parent: tracker.log_progress(parent, steps))
        if self._runs:
            self._ledger.mark_logged(self._search_id, self._runs)
            self._runs = {}

    def catch_up(self) -> int:
        """Write every candidate that has ended and every step of the search; how many were not there yet."""
        self._ask_again_at = 0.0
        self.flush()
        reference = self._ledger.search(self._search_id).hypervolume_reference
        waited = 0
        if reference is None:  # nothing can have ended before it was known
            return waited
        progress = Progress(self._problem, reference)
        self._missed, self._catching_up = False, True
        try:
            for evaluation, points in ended_in_order(self._ledger, self._search_id):
                waited += not evaluation.logged
                self.candidate(evaluation, points)
                self.progress(progress.end(evaluation, points), at=evaluation.finished_at or evaluation.created_at)
        finally:
            self._catching_up = False
        self.flush()
        return waited

    def reconcile(self) -> None:
        """Leave one run for each candidate that ended, and none open: what is missing or was cut short is written."""
        ended = {each.number: (each, points) for each, points in ended_in_order(self._ledger, self._search_id)}
        states = {number: evaluation.state for number, (evaluation, _) in ended.items()}
        wanting: list[int] = []

        def compare(tracker: MLflowTracker, parent: str) -> None:
            found = tracker.reconcile(self._search_id, states)  # type: ignore[arg-type]
            wanting.extend(found.missing + found.ended)

        self._with_parent(compare)
        for number in wanting:
            self._write(*ended[number], maybe_exists=True, replace=True)

    def report(self, report: FrontReport, files: Mapping[str, Path]) -> None:
        """The front: pictures, tables, tags of its members; and whatever could not be written before."""
        self.flush()
        if self._missed:
            self.catch_up()
        self.reconcile()
        members = {row.number for row in report.rows if row.front}
        metrics = {"front_points": float(sum(row.front for row in report.rows))}
        if report.latency_error is not None:
            metrics["latency_error"] = report.latency_error
        tags = {}
        if report.machine is not None:
            metrics["machine_change"] = report.machine.change
            tags[DRIFT] = "true" if report.machine.drifted else "false"

        def write(tracker: MLflowTracker, parent: str) -> None:
            tracker.log_report(parent, files, front_markdown(report), metrics, tags)
            tracker.tag_front(parent, members)

        self._with_parent(write)

    def finish(self, status: State) -> None:
        """End the parent run, if there is one."""
        self._ask_again_at = 0.0
        self.flush()
        if self._parent is not None:
            self._with_parent(lambda tracker, parent: tracker.finish(parent, status))

    def _with_parent(self, action: Callable[[MLflowTracker, str], None]) -> None:
        def both() -> None:
            if self._parent is None:
                self._open()
            assert self._tracker is not None
            assert self._parent is not None
            action(self._tracker, self._parent)

        self._guarded(both)

    def _open(self) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        spec = self._problem.to_mapping()
        params = {key: str(value) for key, value in spec["budget"].items()} | {
            key: str(value) for key, value in spec["search"].items()
        }
        self._parent = self._tracker.start(
            self._search_id,
            self._problem.strategy.name,
            json.dumps(spec, indent=2),
            params,
            known=self._ledger.search(self._search_id).mlflow_run_id,
        )
        self._ledger.set_tracking(self._search_id, self._parent)

    def _guarded(self, action: Callable[[], None]) -> None:
        """The ledger has everything already: what MLflow misses now is written when it is back."""
        if self._away and self._clock() < self._ask_again_at:
            return
        try:
            action()
            self._away = False
        except StoreError as error:
            gone, self._away, self._missed = not self._away, True, True
            self._ask_again_at = self._clock() + RETRY_SECONDS
            if gone:
                self._warn(f"MLflow is away, results wait in the ledger for `dynarch resume`: {error}")
