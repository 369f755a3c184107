"""Display: a search on a terminal, or in a log file if there is none."""

from __future__ import annotations

from types import TracebackType
from typing import final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .events import Event

SEARCHING = "searching"
_ROOM = 104  # columns that everything takes beside each other; with fewer there is neither bar nor clock
_LONGEST = 30  # of a phase beside its numbers


@final
class Display:
    """A progress bar a phase; without a terminal, one line a tenth of a phase.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._phase = ""
        self._task: TaskID | None = None
        self._printed = -1
        self._progress = Progress(*_columns(console.width), console=console)

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def show(self, event: Event) -> None:
        """Take in an event; may be called from any thread."""
        if self._live:
            self._draw(event)
        else:
            self._log(event)

    def note(self, phase: str, done: int, total: int) -> None:
        """The same from its parts."""
        self.show(Event(phase, done, total))

    def _draw(self, event: Event) -> None:
        total = event.total or None
        if event.phase != self._phase or self._task is None:
            if self._task is not None:
                self._progress.update(self._task, total=self._progress.tasks[-1].completed or 1)
            self._phase = event.phase
            if len(event.phase) > _LONGEST:  # whole, above the bars
                self._console.print(event.phase, markup=False, highlight=False)
            self._task = self._progress.add_task(_short(event.phase), total=total, detail="")
        self._progress.update(self._task, completed=event.done, total=total, detail=detail(event))

    def _log(self, event: Event) -> None:
        tenth = event.done * 10 // event.total if event.total else 0
        if event.phase == self._phase and tenth == self._printed and event.phase != SEARCHING:
            return
        self._phase, self._printed = event.phase, tenth
        amount = f" {event.done}/{event.total}" if event.total else ""
        self._console.print(f"{event.phase}{amount} {detail(event)}".rstrip(), highlight=False, soft_wrap=True)


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """What a line shows, on as many columns as there are."""
    roomy = width >= _ROOM
    return (
        TextColumn("[bold]{task.description}"),
        *((BarColumn(bar_width=16),) if roomy else ()),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        *((TimeElapsedColumn(),) if roomy else ()),
        TimeRemainingColumn(),
        TextColumn("left"),
    )


def _short(phase: str) -> str:
    return escape(phase if len(phase) <= _LONGEST else phase[: _LONGEST - 1] + "…")


def detail(event: Event) -> str:
    """What else there is to say: stopped, failed, hypervolume."""
    if event.hypervolume is None:
        return ""
    done = event.done - event.stopped - event.failed
    return f"{done} done, {event.stopped} stopped, {event.failed} failed, hv {event.hypervolume:.3f}"
