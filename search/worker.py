"""Worker: evaluates one candidate step by step, wherever it runs; knows no transport."""

from __future__ import annotations

import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluators.atomic import cannot_be_written
from ..evaluators.evaluator import AbstractSession, Task
from ..evaluators.evaluators import evaluator_of
from ..evaluators.operating import OperatingPoint
from ..evaluators.splits import Part, Splits
from ..hardware.book import LatencyBook
from ..spaces.adopted import shelf
from ..spaces.architecture import Architecture
from ..spaces.errors import EvaluationFailed
from ..spaces.signature import Signature
from .candidate import Message, State
from .watchdog import Watchdog

PAUSE_SECONDS = 20.0  # a step that trains longer reports in, so that a search can be stopped


@final
@dataclass(frozen=True)
class Assignment:
    """What every worker of a search must know; plain values, so that nothing needs to be unpickled by trust.

    Args:
        arrays: visible splits, `name.x` and `name.y`; the test split is not among them.
        signature: inputs and classes, as a mapping.
        book: latencies, as a mapping.
        decisions: decision schemes that policies may use.
        evaluator: name of the evaluator; one that gives the same of a candidate for less may take its place.
        epochs: full fidelity.
        rungs: epochs at which to report.
        seed: of every training.
        max_points: operating points a candidate.
        folder: the search's folder.
        threads: CPU threads a worker.
        limit_seconds: of one attempt at a candidate; None: no limit.
        artefacts: URL below which candidates' folders go; None: below the folder.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    signature: Mapping[str, object]
    book: Mapping[str, object]
    decisions: tuple[str, ...]
    evaluator: str
    epochs: int
    rungs: tuple[int, ...]
    seed: int
    max_points: int
    folder: str
    threads: int = 1
    limit_seconds: float | None = None
    artefacts: str | None = None

    def splits(self) -> Splits:
        """The visible splits."""
        parts = {
            name: Part(_uncopied(self.arrays[f"{name}.x"]), _uncopied(self.arrays[f"{name}.y"]))
            for name in ("train", "calibrate", "tune", "certify")
        }
        return Splits(signature=Signature.from_mapping(self.signature, "signature"), **parts)


def _uncopied(array: NDArray[np.generic]) -> torch.Tensor:
    """The array itself: Ray keeps one for all workers of a node, and nobody may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def arrays_of(splits: Splits) -> dict[str, NDArray[np.generic]]:
    """The inverse of `Assignment.splits`."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in ("train", "calibrate", "tune", "certify"):
        part: Part = getattr(splits, name)
        arrays[f"{name}.x"], arrays[f"{name}.y"] = part.x.numpy(), part.y.numpy()
    return arrays


@final
class Worker:
    """Evaluates candidates one after the other.

    Args:
        assignment: what is common to all candidates.
        clock: seconds, for durations.
    """

    def __init__(self, assignment: Assignment, *, clock: Callable[[], float] = time.monotonic) -> None:
        torch.set_num_threads(assignment.threads)
        shelf.add_shelf(Path(assignment.folder).parents[1] / shelf.MODELS)  # of the storage that it lies in
        self._assignment = assignment
        self._clock = clock
        self._splits = assignment.splits()
        self._book = LatencyBook.from_mapping(assignment.book)
        self._session: AbstractSession | None = None
        self._number = -1
        self._task: Task | None = None
        self._watchdog: Watchdog | None = None

    def assign(self, number: int, architecture: Architecture, folder: str) -> None:
        """Take on a candidate; it is built at the first step, so that a failure to build is a result."""
        shared = self._assignment
        self._number, self._session = number, None
        folder_path = Path(shared.folder) / folder
        self._watchdog = None if shared.limit_seconds is None else Watchdog(folder_path, shared.limit_seconds)
        self._task = Task(
            architecture=architecture,
            seed=shared.seed,
            epochs=shared.epochs,
            folder=folder_path,
            decisions=shared.decisions,
            max_points=shared.max_points,
        )

    def step(self) -> Message:
        """Train to the next rung (or for a while) and report; failures are reports too."""
        started = self._clock()
        try:
            with self._watchdog or nullcontext():
                return self._advance(started)
        except EvaluationFailed as error:
            return self._failed(str(error), started)
        except OSError as error:
            if not cannot_be_written(error):
                return self._failed(_told(error), started)
            cause = f"the search's folder cannot be written ({error.strerror or error})"
            return self._message("blocked", started, cause=cause)
        except (torch.OutOfMemoryError, MemoryError) as error:
            return self._failed(f"out of memory: {error}", started)
        except Exception as error:
            # Whatever a candidate does must not take the search down; the cause is kept for its author.
            return self._failed(_told(error), started)

    def _advance(self, started: float) -> Message:
        assert self._task is not None
        rungs, full = self._assignment.rungs, self._assignment.epochs
        curve: list[Mapping[str, float]] = []
        again = False
        if self._session is None:
            chosen = evaluator_of(self._task.architecture, self._assignment.evaluator)
            self._session = chosen.start(self._task, self._splits, self._book)
            curve.extend(self._session.history())
            # A death may have come between a rung and its report: report again, the first verdict stands.
            again = self._session.epochs_done in rungs
        session = self._session
        ahead = next((rung for rung in (*rungs, full) if rung > session.epochs_done), full)
        target = session.epochs_done if again else ahead
        while session.epochs_done < target:
            if not session.prepare():
                curve.append(session.train())
            if self._watchdog is not None:
                self._watchdog.check()
            if self._clock() - started > PAUSE_SECONDS and session.epochs_done < target:
                return self._message("training", started, curve=curve)
        if target < full:
            reading = session.read()
            return self._message("reading", started, points=reading.points, curve=(*curve, reading.curve))
        outcome = session.finish()
        self._session = None
        return Message(
            self._number,
            "finished",
            full,
            self._clock() - started,
            points=outcome.points,
            certified=outcome.certified,
            curve=(*curve, outcome.curve),
            summary=outcome.summary,
        )

    def _message(
        self,
        state: State,
        started: float,
        *,
        points: tuple[OperatingPoint, ...] = (),
        curve: Sequence[Mapping[str, float]] = (),
        cause: str | None = None,
    ) -> Message:
        epoch = 0 if self._session is None else self._session.epochs_done
        seconds = self._clock() - started
        return Message(self._number, state, epoch, seconds, points=points, curve=tuple(curve), cause=cause)

    def _failed(self, cause: str, started: float) -> Message:
        message = self._message("failed", started, cause=cause)
        self._session = None
        if self._task is not None:  # a failed candidate leaves nothing behind to continue from
            shutil.rmtree(self._task.folder, ignore_errors=True)
        return message


def _told(error: Exception) -> str:
    """What went wrong and where, on one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
