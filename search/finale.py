"""Finale: the test split is opened, the front is scored and timed, and the report is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from ..evaluators.splits import sealed_test
from ..hardware.book import LatencyBook
from ..hardware.drift import Shift
from ..hardware.elsewhere import Elsewhere
from ..hardware.table import LatencyTable
from ..hardware.turn import turn
from .faraway import Faraway
from .ledger.store import Ledger
from .machine import Machines, drift_notes
from .outcome import Examiner, Scored, score_front, single_exits, static_numbers, still_front, tune_front
from .problem import Problem
from .report_rows import FrontReport
from .summary import Examined, build_report


@final
class Finale:
    """The end of one search, when nothing is left to choose.

    Args:
        problem: what was searched.
        search_id: its row in the ledger.
        ledger, table: open stores.
        folder: the search's folder.
        faraway: devices of other nodes.
        note: told of every measurement; may raise to cut one short.
        clock: epoch seconds.
    """

    def __init__(
        self,
        problem: Problem,
        search_id: str,
        *,
        ledger: Ledger,
        table: LatencyTable,
        folder: Path,
        faraway: Faraway,
        note: Callable[[str, int, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._problem = problem
        self._search_id = search_id
        self._ledger = ledger
        self._table = table
        self._folder = folder
        self._faraway = faraway
        self._note = note
        self._clock = clock

    def report(self, book: LatencyBook, reason: str) -> FrontReport:
        """Score and time the front on the test split; `reason` says why the search ended."""
        problem, ledger, search_id = self._problem, self._ledger, self._search_id
        front = tune_front(problem, ledger, search_id)
        ledger.mark_front(search_id, [(point.number, point.index) for point in front])
        ledger.open_test(search_id, self._clock())
        test = sealed_test(problem.data, problem.splits, problem.strategy.seed)
        examiner = Examiner(problem, self._folder, book, test)
        scored = score_front(ledger, search_id, front, examiner)
        kept = still_front(problem, scored)
        ledger.mark_front(search_id, kept)
        static = [examiner.full(number) for number in static_numbers(ledger, search_id)]
        single = single_exits(problem, examiner, sorted({number for number, _ in scored}))
        timed, shifts = self._timed(examiner, book, [*scored.values(), *static, *single])
        scored = dict(zip(scored, timed, strict=False))
        ledger.record_measured(search_id, {key: each.measured for key, each in scored.items()})
        static, single = timed[len(scored) : len(scored) + len(static)], timed[len(scored) + len(static) :]
        examined = Examined(scored, frozenset(kept), static, single)
        notes = [f"Why it ended: {reason}."]
        if len(kept) < len(scored):
            notes.append(f"{len(scored) - len(kept)} points fell off the front on unseen data.")
        notes += sorted({note for each in scored.values() for note in each.point.notes})
        notes += drift_notes(shifts)
        seconds = self._clock() - ledger.search(search_id).created_at
        return build_report(problem, ledger, search_id, examined, seconds=seconds, notes=notes, shifts=shifts)

    def _timed(
        self, examiner: Examiner, book: LatencyBook, scored: Sequence[Scored]
    ) -> tuple[list[Scored], dict[str, Shift]]:
        """All of them timed, each device where it is, and how its machine has changed."""
        devices, seed = self._problem.devices, self._problem.strategy.seed
        routed, x = examiner.folders(scored), examiner.inputs
        # Before we take our turn, as the node may be on this very machine and must have its own.
        far = {
            name: self._faraway.times(routed, x, device, seed=seed, pages=book.devices[name])
            for name, device in devices.items()
            if isinstance(device, Elsewhere)
        }
        here = {name: device for name, device in devices.items() if name not in far}
        with turn(on_wait=lambda holder: self._note(f"waiting for process {holder}, which measures", 0, 0)):
            machines = Machines(here, book, self._table)
            machines.look()
            known, sessions = {name: each.rows for name, each in far.items()}, {n: machines.sessions(n) for n in here}
            timed = examiner.measure(scored, self._note, known=known, sessions=sessions)
            machines.look()
        shifts = {name: each.shift for name, each in far.items() if each.shift is not None}
        return timed, machines.shifts() | shifts
