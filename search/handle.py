"""Handle: a search as its user holds it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rich.console import Console

from ..hardware.device import AbstractDevice
from ..spaces.errors import SearchBusyError, SpecError, StoreError
from .attacked import Attacked, under_attack
from .bundle.bundle import Bundle
from .comparison import Comparison, Side, compare
from .display import Display
from .events import Event, Watcher
from .frame import search_frame
from .front_point import FrontPoint
from .fronts import recorded_front, retargeted_front, selected
from .gallery import PAGE, draw_pictures
from .guaranteed import Method, guaranteed
from .lease import release_if_dead
from .ledger.entities import Counts
from .ledger.store import Ledger
from .problem import Problem
from .records import Records
from .report import read_report, report_files
from .report_rows import FrontReport
from .storage import REPORT, Storage

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    from .driver import Driver

Warn = Callable[[str], None]
LOG_WARNING: Warn = logging.getLogger("dynarch").warning


@final
@dataclass(frozen=True)
class Status:
    """How a search stands."""

    id: str
    name: str
    state: str
    reason: str | None
    counts: Counts
    trials: int


@final
class Search:
    """One search in a storage; several handles may look at it, one driver runs it."""

    def __init__(self, storage: Storage, search_id: str, *, ray: str | None = None) -> None:
        self.id = search_id
        self._storage = storage
        self._ray = ray
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._report: FrontReport | None = None
        self._error: BaseException | None = None
        self._watchers: list[Watcher] = []
        self.last_event = Event("starting")
        with storage.open_ledger() as ledger:
            ledger.search(search_id)  # raises if there is none

    @property
    def folder(self) -> Path:
        """Artefacts and report."""
        return self._storage.search_folder(self.id)

    def status(self) -> Status:
        """State and counts, from the ledger."""
        with self._storage.open_ledger() as ledger:
            record, counts = ledger.search(self.id), ledger.counts(self.id)
        budget: Any = record.spec["budget"]
        return Status(record.id, record.name, record.status, record.reason, counts, int(budget["trials"]))

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of its devices, the first one first."""
        with self._storage.open_ledger() as ledger:
            spec: Any = ledger.search(self.id).spec
        return tuple(spec["devices"])

    def problem(self) -> Problem:
        """What the search was asked, with its data."""
        with self._storage.open_ledger() as ledger:
            spec: dict[str, Any] = dict(ledger.search(self.id).spec)
        data = self._storage.kept_data(spec["data"]["id"], spec["data"]["name"])
        return Problem.from_mapping(spec, data=data)

    def resume(self, *, warn: Warn = LOG_WARNING) -> Search:
        """Run, or run on, in the background of this process.

        Args:
            warn: told what does not end the search but should be known.

        Raises:
            SearchBusyError: if it is being run already.
            SpecError: if it has finished.
        """
        if self._thread is not None and self._thread.is_alive():
            raise SearchBusyError(f"search {self.id} is running in this very process", "this process")
        if self.status().state == "finished":
            raise SpecError(self.id, "has finished; look at its front, or launch a new search")
        with self._storage.open_ledger() as ledger:
            if release_if_dead(ledger, self.id):
                ledger.withdraw_cancel(self.id)
        ready = threading.Event()
        self._error = None
        self._thread = threading.Thread(
            target=self._drive, args=(self.problem(), ready, warn), name=f"dynarch-{self.id}"
        )
        self._thread.start()
        try:
            ready.wait()
        except KeyboardInterrupt:
            ready.wait()
            self._end_run()
            raise
        return self

    def watch(self, watcher: Watcher) -> None:
        """Have the watcher told of everything that goes on in the run of this process."""
        self._watchers.append(watcher)

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> FrontReport | None:
        """Wait for the run of this process to end; its report, or None if it was interrupted or cancelled.

        Args:
            progress: show what goes on.
            timeout: seconds; None waits for ever. Ctrl-C interrupts the search; everything is saved.

        Raises:
            DynarchError: what ended the search.
            TimeoutError: if it takes longer.
        """
        if self._thread is None:
            raise SpecError(self.id, "is not run by this process; call resume() first")
        try:
            with Display(Console()) if progress else nullcontext() as display:
                if display is not None:
                    self.watch(display.show)
                self._thread.join(timeout)
        except KeyboardInterrupt:
            self._end_run()
            if self._error is not None:  # then not everything is saved
                raise self._error from None
            raise
        if self._thread.is_alive():
            raise TimeoutError(f"search {self.id} is still running after {timeout} seconds")
        if self._error is not None:
            raise self._error
        return self._report

    @property
    def running_here(self) -> bool:
        """Whether this process runs it now."""
        return self._thread is not None and self._thread.is_alive()

    def interrupt(self) -> None:
        """End the run of this process soon; `resume` continues it."""
        if self._driver is not None:
            self._driver.interrupt()

    def _end_run(self) -> None:
        self.interrupt()
        if self._thread is not None:
            self._thread.join()

    def cancel(self) -> None:
        """Ask whoever runs the search, here or elsewhere, to end it; what is finished is kept."""
        with self._storage.open_ledger() as ledger:
            record = ledger.search(self.id)
            if record.status in ("finished", "cancelled"):
                return
            ledger.request_cancel(self.id)
            if release_if_dead(ledger, self.id) and not self.running_here:
                ledger.set_status(self.id, "cancelled", reason="cancelled on request")

    def sync(self) -> int:
        """Write to MLflow what it missed while it was away; how many candidates it had missed.

        Raises:
            SearchBusyError: if the search is being run, which writes everything itself.
            StoreError: if MLflow is still away.
        """
        problem = self.problem()
        with self._storage.open_ledger() as ledger:
            record = ledger.search(self.id)
            if self.running_here or not release_if_dead(ledger, self.id):
                raise SearchBusyError(f"search {self.id} is running; wait for its end", record.holder or "this process")
            records = self._records(problem, ledger, _refuse)
            records.start()
            waited = records.catch_up()
            if record.status == "finished":
                place = self.folder / REPORT
                files = report_files(place) | {PAGE: place / PAGE}
                there = {name: file for name, file in files.items() if file.exists()}  # earlier versions wrote fewer
                records.report(read_report(place), there)
            records.finish("finished" if record.status == "finished" else "stopped")
        return waited

    def front(
        self,
        *,
        device: AbstractDevice | str | None = None,
        table: str | None = None,
        batch: int = 1,
        max_latency_ms: float | None = None,
        min_accuracy: float | None = None,
    ) -> tuple[FrontPoint, ...]:
        """The points of the front, fastest first; empty before the end.

        For another device or table the policies of every trained candidate are searched anew; nothing is trained.
        These points have no test metrics, as the test split was used on the original front.

        Args:
            device: the name of a device of the search, whose latencies count; or another device: its parts are timed
                where the latency table lacks them.
            table: id of an environment in the latency table, such as an imported one: nothing is timed, parts that
                it lacks are told by the ladder, and their doubt is in the intervals.
            batch: inputs at a time, for `table`.
            max_latency_ms, min_accuracy: leave out what is slower or worse.

        Raises:
            SpecError: if both are given, or there is no such environment.
            UnknownNameError: if the search has no device of that name.
            MissingEntryError: if nothing can be said of a part.
        """
        if device is not None and table is not None:
            raise SpecError("table", "must not be given together with a device; choose one")
        name = device if isinstance(device, str) else None
        if isinstance(device, AbstractDevice) or table is not None:
            other = None if isinstance(device, str) else device
            points = retargeted_front(
                self._storage, self.id, self.problem(), device=other, environment=table, batch=batch
            )
        else:
            with self._storage.open_ledger() as ledger:
                points = recorded_front(ledger, self.id, self.folder)
        return selected(points, device=name, max_latency_ms=max_latency_ms, min_accuracy=min_accuracy)

    def guaranteed(
        self, max_drop: float, *, confidence: float = 0.95, method: Method = "learn_then_test"
    ) -> tuple[FrontPoint, ...]:
        """The points of the front whose accuracy drops by no more than `max_drop`, as a fraction, against the same
        network run whole: with that confidence for all of them at once; see `dynarch.search.guaranteed`.

        Raises:
            SpecError: if drop, confidence or method make no promise.
            DataError: if the certify split is too small for it.
        """
        return guaranteed(self.front(), max_drop=max_drop, confidence=confidence, method=method)

    def under_attack(self, epsilon: float, *, inputs: int = 256, steps: int = 10) -> tuple[Attacked, ...]:
        """Each point of the front on inputs that are moved, by at most `epsilon` in every number, to cost the most.

        See `dynarch.search.attacked.under_attack` for what is moved and what is raised.
        """
        return under_attack(self.problem(), self.front(), self.folder, epsilon=epsilon, inputs=inputs, steps=steps)

    def compare(self, other: Search) -> Comparison:
        """This front and another one under one reference.

        Raises:
            SpecError: if the searches have other data, other objectives, or no front yet.
        """
        return compare(self._side(), other._side())

    def frame(self) -> DataFrame:
        """All operating points of finished candidates, one row each; `search.frame` says what the columns are."""
        with self._storage.open_ledger() as ledger:
            return search_frame(ledger, self.id)

    def plots(self) -> dict[str, Figure]:
        """Pictures of a finished search by name, as plotly figures: `importance`, `parallel`, `history`, `exits`,
        `latency`, `easy_and_hard`, `skipped`; those that there is nothing to show in are left out."""
        study_url = self._storage.open_study_url()
        with self._storage.open_ledger() as ledger:
            return draw_pictures(self.problem(), self.id, ledger=ledger, folder=self.folder, study_url=study_url)

    def register(self, bundle: Bundle, name: str) -> str:
        """Make an exported point the next version of a model in MLflow; its URI, for `mlflow models serve -m URI`.

        Raises:
            StoreError: if MLflow cannot be written, or holds no run of this search.
        """
        return self._storage.register(self.id, bundle, name)

    def _side(self) -> Side:
        with self._storage.open_ledger() as ledger:
            record = ledger.search(self.id)
        return Side(self.id, record.spec, record.hypervolume_reference or (), self.front())

    def _drive(self, problem: Problem, ready: threading.Event, warn: Warn) -> None:
        from .driver import Driver

        storage = self._storage
        try:
            with storage.open_ledger() as ledger, storage.open_table() as table:
                self._driver = Driver(
                    problem,
                    self.id,
                    ledger=ledger,
                    table=table,
                    study_url=storage.open_study_url(),
                    records=self._records(problem, ledger, warn),
                    folder=self.folder,
                    table_url=storage.ledger_url,
                    ray_address=self._ray,
                    watcher=self._tell,
                )
                ready.set()
                self._report = self._driver.run()
        except BaseException as error:
            self._error = error  # raised again where somebody waits
        finally:
            ready.set()

    def _records(self, problem: Problem, ledger: Ledger, warn: Warn) -> Records:
        return Records(
            self._storage.open_tracker,
            ledger,
            problem,
            self.id,
            warn=warn,
        )

    def _tell(self, event: Event) -> None:
        self.last_event = event
        for watcher in self._watchers:
            watcher(event)


def _refuse(text: str) -> None:
    raise StoreError(text)
