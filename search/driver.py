"""Driver: the life of one search, from profile to report; dies and is resumed at any point of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import final

from ..evaluators.atomic import cannot_be_written, replacing
from ..evaluators.evaluators import evaluator
from ..evaluators.from_scratch import CHECKPOINT, MANIFEST
from ..evaluators.splits import visible_splits
from ..hardware.book import LatencyBook
from ..hardware.device import one_thread
from ..hardware.elsewhere import Elsewhere
from ..hardware.table import LatencyTable
from ..spaces.errors import SearchBusyError, StoreError
from . import tune
from .artefacts import Artefacts
from .candidate import candidate_folder
from .engine import Engine
from .events import Event, Watcher
from .faraway import Faraway
from .feasibility import check_feasible
from .finale import Finale
from .lease import Lease
from .ledger.entities import Evaluation, Point
from .ledger.store import Ledger
from .open_study import open_study
from .outage import PATIENCE_SECONDS, Outage
from .problem import Problem
from .profiling import Profiler
from .proposals import Proposer
from .records import Records
from .recovery import NOTES, reconcile_study, sweep, unfinished_candidates
from .report import FrontReport, write_report
from .shown_front import show_front
from .storage import BOOK, REPORT
from .summary import Progress, ended_in_order, reference_of
from .worker import Assignment, arrays_of


@final
class Driver:
    """Runs one search to its end, or continues it.

    Args:
        problem: what is searched.
        search_id: its row in the ledger.
        ledger, table: open stores.
        study_url: database of the study.
        records: MLflow.
        folder: the search's folder, on storage that workers share.
        table_url: of the table, for nodes that have a device.
        ray_address: of a cluster; None starts one here.
        watcher: told what goes on.
        clock: epoch seconds.
        patience_seconds: how long a database that went away is waited for.
    """

    def __init__(
        self,
        problem: Problem,
        search_id: str,
        *,
        ledger: Ledger,
        table: LatencyTable,
        study_url: str,
        records: Records,
        folder: Path,
        table_url: str,
        ray_address: str | None = None,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.time,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.problem = problem
        self.search_id = search_id
        self.folder = folder
        self._ledger = ledger
        self._table = table
        self._study_url = study_url
        self._records = records
        self._ray_address = ray_address or problem.cluster.ray
        self._far = any(isinstance(each, Elsewhere) for each in problem.devices.values())
        base = problem.cluster.artefacts
        self._artefacts_url = None if base is None else f"{base.rstrip('/')}/{search_id}"
        self._artefacts = Artefacts(folder, self._artefacts_url)
        self._faraway = Faraway(table_url, on_wait=lambda: self._note("measuring on another node", 0, 0))
        self._watch = watcher or (lambda event: None)
        self._clock = clock
        self._engine: Engine | None = None
        self._began_at: float | None = None
        self._stopping = threading.Event()
        self._lease = Lease(ledger, search_id, on_stop=self._stop, clock=clock)
        self._outage = Outage(
            self._lease.beat, self._progress_made, stopping=self._stopping, patience_seconds=patience_seconds
        )

    def interrupt(self) -> None:
        """End soon, with everything saved; a resume continues."""
        self._stop("interrupted")

    def _stop(self, reason: str) -> None:
        self._stopping.set()
        if self._engine is not None:
            self._engine.stop(reason)

    def run(self) -> FrontReport | None:
        """From wherever the search is to its report; None if it was interrupted or cancelled.

        A store that fails on the way is waited for, and then all is begun again from what the ledger says.

        Raises:
            SearchBusyError: if another live driver holds the search.
            InfeasibleError: if nothing in the space can meet the constraints.
            StoreError: if a store goes on failing; everything recorded is kept, and a resume continues.
        """
        with self._lease, one_thread():
            try:
                while True:
                    try:
                        return self._run()
                    except OSError as error:
                        if not cannot_be_written(error):
                            raise
                        self._wait(StoreError(f"{self.folder} cannot be written ({error.strerror}); make room for it"))
                    except StoreError as error:
                        self._wait(error)
            except _Stopped:
                self._ended()
                return None
            except SearchBusyError:
                raise
            except BaseException as error:
                self._failed(error)
                raise

    def _wait(self, error: StoreError) -> None:
        """Until the ledger can be written again; raises the error if that is in vain."""
        self._watch(Event(f"waiting, as a store failed: {error}"))
        self._outage.wait(error)
        if self._lease.lost is not None:
            raise self._lease.lost

    def _progress_made(self) -> object:
        """Changes whenever the search gets on."""
        record = self._ledger.search(self.search_id)
        ended = [(each.state, each.attempts) for each in self._ledger.evaluations(self.search_id) if each.terminal]
        return record.status, record.test_opened_at, len(ended)

    def _failed(self, error: BaseException) -> None:
        """Write down why it ended, where that can be written."""
        reason = str(error) or type(error).__name__
        with suppress(StoreError):
            if isinstance(error, StoreError):
                reason = f"{reason}; resume continues it"
                self._ledger.set_status(self.search_id, "interrupted", reason=reason)
                self._records.finish("stopped")
            else:
                self._ledger.set_status(self.search_id, "failed", reason=reason)
                self._records.finish("failed")

    def _run(self) -> FrontReport | None:
        with tune.cluster(self._ray_address, cpus=self._cpus()) if self._far else nullcontext():
            return self._from_profile_to_report()

    def _from_profile_to_report(self) -> FrontReport | None:
        book, reference = self._profiled()
        if self._ended():
            return None
        self._ledger.set_status(self.search_id, "running")
        self._records.start()
        reason = self._search(book, Progress(self.problem, reference))
        if self._ended():
            return None
        if not evaluator(self.problem.strategy.evaluator).leaves_networks:
            self._ledger.set_status(self.search_id, "finished", reason=reason)
            self._records.finish("finished")
            return None
        self._ledger.set_status(self.search_id, "scoring")
        report = self._examined(book, reason)
        files = write_report(report, self.folder / REPORT) | show_front(
            self.problem, self.search_id, ledger=self._ledger, folder=self.folder, study_url=self._study_url
        )
        self._ledger.set_status(self.search_id, "finished", reason=reason)
        self._records.report(report, files)
        self._records.finish("finished")
        return report

    def _ended(self) -> bool:
        """Whether somebody asked for an end; if so, it is written down."""
        if self._lease.lost is not None:
            raise self._lease.lost
        if self._ledger.cancel_requested(self.search_id):
            self._ledger.set_status(self.search_id, "cancelled", reason="cancelled on request")
        elif self._stopping.is_set():
            self._ledger.set_status(self.search_id, "interrupted", reason="interrupted; resume continues it")
        else:
            return False
        self._records.finish("stopped")
        return True

    # -- profile ----------------------------------------------------------------------------------------

    def _profiled(self) -> tuple[LatencyBook, tuple[float, ...]]:
        """The book of this search: measured once, then read again, so that a resume predicts the same."""
        file = self.folder / BOOK
        if file.exists():
            record = self._ledger.search(self.search_id)
            book = LatencyBook.from_mapping(json.loads(file.read_text()))
            return book, tuple(record.hypervolume_reference or ())
        self._ledger.set_status(self.search_id, "profiling")
        space, signature, seed = self.problem.space, self.problem.data.signature, self.problem.strategy.seed
        profiler = Profiler(
            space,
            signature,
            self._table,
            seed=seed,
            progress=self._note,
            there=lambda device: self._faraway.pages(space, signature, device, seed=seed),
        )
        book, found = profiler.book(self.problem.devices)
        check_feasible(self.problem, found.costs, book)
        reference = reference_of(self.problem, found.costs, book)
        self._ledger.set_hypervolume_reference(self.search_id, reference)
        _, pages = book.first
        self._ledger.set_table(self.search_id, pages.table_version, correction_id=pages.correction.correction_id)
        with replacing(file) as stream:
            stream.write(json.dumps(book.to_mapping(), allow_nan=False).encode())
        return book, reference

    # -- search -----------------------------------------------------------------------------------------

    def _search(self, book: LatencyBook, progress: Progress) -> str:
        problem, ledger = self.problem, self._ledger
        self._began_at = self._began_at or self._clock()  # an outage does not give the budget's minutes back
        study = open_study(problem, self._study_url, self.search_id)
        reconcile_study(study, ledger, problem, self.search_id)
        sweep(self.folder, ledger, self.search_id, checkpoint=CHECKPOINT)
        proposer = Proposer(problem, self.search_id, ledger=ledger, study=study, book=book, clock=self._clock)
        engine = Engine(
            problem,
            self.search_id,
            ledger=ledger,
            study=study,
            proposer=proposer,
            pending=unfinished_candidates(ledger, self.search_id),
            on_end=lambda evaluation, points: self._ended_candidate(evaluation, points, progress, fresh=True),
            clock=self._clock,
            began_at=self._began_at,
        )
        self._engine = engine
        if self._stopping.is_set():
            engine.stop("interrupted")
        for evaluation, points in ended_in_order(ledger, self.search_id):
            engine.tell(evaluation, points)
            self._ended_candidate(evaluation, points, progress, fresh=False)
        if not engine.exhausted:
            with tune.cluster(self._ray_address, cpus=self._cpus()):
                if self._ray_address is not None:
                    tune.check_nodes(None if self._artefacts_url else str(self.folder.resolve()))
                tune.run(engine, self._assignment(book, engine), self.folder / NOTES)
        engine.note_told()
        sweep(self.folder, ledger, self.search_id, checkpoint=CHECKPOINT)
        if engine.blocked is not None:
            raise StoreError(f"{engine.blocked}; make room for {self.folder}")
        return engine.stop_reason or f"the budget of {problem.budget.trials} candidates is spent"

    def _cpus(self) -> int:
        budget = self.problem.budget
        return max(1, round(budget.workers * budget.cpus_per_worker))

    def _assignment(self, book: LatencyBook, engine: Engine) -> Assignment:
        problem, minutes = self.problem, self.problem.budget.candidate_minutes
        splits = visible_splits(problem.data, problem.splits, problem.strategy.seed)
        return Assignment(
            arrays=arrays_of(splits),
            signature=splits.signature.to_mapping(),
            book=book.to_mapping(),
            decisions=problem.space.decisions(),
            evaluator=problem.strategy.evaluator,
            epochs=problem.budget.epochs,
            rungs=engine.rung_epochs,
            seed=problem.strategy.seed,
            max_points=problem.strategy.points,
            folder=str(self.folder.resolve()),
            artefacts=self._artefacts_url,
            limit_seconds=None if minutes is None else 60 * minutes,
        )

    def _ended_candidate(
        self, evaluation: Evaluation, points: Sequence[Point], progress: Progress, *, fresh: bool
    ) -> None:
        (self.folder / candidate_folder(evaluation.number) / CHECKPOINT).unlink(missing_ok=True)
        self._settle(evaluation)
        standing = progress.end(evaluation, points)
        counts, trials = standing.counts, self.problem.budget.trials
        self._records.candidate(evaluation, points, fresh=fresh)
        self._records.progress(standing, at=evaluation.finished_at or evaluation.created_at)
        self._watch(Event("searching", counts.total, trials, counts.stopped, counts.failed, standing.hypervolume))

    def _settle(self, evaluation: Evaluation) -> None:
        """Bring here what a candidate left at the URL, and leave nothing there that nobody needs."""
        candidate = candidate_folder(evaluation.number)
        if evaluation.state != "finished":
            self._artefacts.remove(candidate)
        elif not (self.folder / candidate / MANIFEST).exists():
            self._artefacts.fetch(candidate, but=(CHECKPOINT,))
            self._artefacts.remove(candidate, CHECKPOINT)

    # -- score ------------------------------------------------------------------------------------------

    def _examined(self, book: LatencyBook, reason: str) -> FrontReport:
        """Open the test split, now that nothing is left to choose."""
        finale = Finale(
            self.problem,
            self.search_id,
            ledger=self._ledger,
            table=self._table,
            folder=self.folder,
            faraway=self._faraway,
            note=self._note,
            clock=self._clock,
        )
        return finale.report(book, reason)

    def _note(self, what: str, done: int, total: int) -> None:
        """Called throughout every measurement, so it is there that one can be cut short."""
        self._watch(Event(what, done, total))
        if self._stopping.is_set():
            raise _Stopped


@final
class _Stopped(Exception):
    """Somebody wants the search to end, in the middle of a measurement."""
