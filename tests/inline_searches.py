"""Searches without Ray, without training and without a stopwatch, for the tests of the engine.

The evaluator is a table: what a candidate is worth follows from its id and its epochs. Its sessions keep a
log of every epoch that they train, so that a test can tell who was trained twice.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from dynarch.evaluators.data import Data
from dynarch.evaluators.evaluator import AbstractEvaluator, AbstractSession, Outcome, Reading, Task
from dynarch.evaluators.evaluators import EVALUATORS
from dynarch.evaluators.operating import OperatingPoint
from dynarch.evaluators.splits import Splits, visible_splits
from dynarch.evaluators.testing import made_up_book, pattern_data
from dynarch.hardware.book import LatencyBook
from dynarch.hardware.inventory import Inventory, inventory
from dynarch.search.engine import Engine
from dynarch.search.ledger import Evaluation, Ledger, Point
from dynarch.search.problem import Budget, Constraint, Problem, Strategy
from dynarch.search.proposals import Proposer
from dynarch.search.recovery import reconcile_study, unfinished_candidates
from dynarch.search.samplers import Study
from dynarch.search.summary import ended_in_order
from dynarch.search.testing import Hook, run_inline
from dynarch.search.worker import Assignment, arrays_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbones import Residual
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.policy import Policy
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.space import Space
from dynarch.tests.endings import at_end

# Scores that learn nothing, so that the fakes here need not either.
UNLEARNED = tuple(member.name for member in DECISIONS if not member.learns)
# 2 widths x 2 rates x (1 + 2 exits x 2 objectives + 1 pair x 2 objectives) = 28 networks, 4 of them static.
SPACE = Space(
    backbones=(Residual(width=(2, 4), depth=(1,), stages=3),),
    families=(EarlyExit(max_exits=2, heads=("linear",), training=("equal", "linear"), decision=UNLEARNED),),
    training=Recipe(learning_rate=(0.02, 0.005), batch_size=16),
)
# One width, one rate, exits after either block or both: 1 + 3 networks, 1 of them static.
FOUR = Space(
    backbones=(Residual(width=(4,), depth=(1,), stages=3),),
    families=(EarlyExit(max_exits=2, heads=("linear",), training=("equal",), decision=UNLEARNED),),
    training=Recipe(learning_rate=(0.04,), batch_size=16),
)
ID = "s"


@cache
def small_data() -> Data:
    """Three patterns under noise."""
    return pattern_data()


@cache
def parts_of(space: Space) -> Inventory:
    """What a space can ask of a latency table for the small data."""
    return inventory(space, small_data().signature, compaction=True)


@cache
def book_of(space: Space) -> LatencyBook:
    """Made-up latencies for a space."""
    return made_up_book(parts_of(space).costs, {"cpu": 1})


def small_problem(
    *,
    space: Space = SPACE,
    trials: int = 8,
    epochs: int = 4,
    seed: int = 0,
    rungs: bool = True,
    minutes: float | None = None,
    constraints: tuple[Constraint, ...] = (),
    sampler: str = "tpe",
) -> Problem:
    """A search with rungs at 1 and 2 of 4 epochs."""
    return Problem(
        space=space,
        data=small_data(),
        constraints=constraints,
        budget=Budget(trials=trials, epochs=epochs, minutes=minutes, workers=1),
        strategy=Strategy(name="small", seed=seed, rungs=rungs, reduction=2, sampler=sampler, points=6),
    )


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is such a place: commits to a busy disk take most of a search."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="dynarch-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- an evaluator that is a table -----------------------------------------------------------------------------

Mishap = Callable[[int, int], None]  # candidate, epoch to be trained; may raise


def nothing(number: int, epoch: int) -> None:
    """No mishap."""


def worth(architecture_id: str, epoch: int) -> tuple[tuple[float, float], ...]:
    """(accuracy, latency) of three operating points; the dearer the better, and all grow with the epochs."""
    digest = hashlib.sha256(architecture_id.encode()).digest()
    quality, cost = 0.5 + digest[0] / 600, 1 + digest[1] / 64
    return tuple((quality * (1 - 0.5**epoch) * share, cost * share) for share in (0.5, 0.8, 1.0))


@dataclass(frozen=True)
class Tabular(AbstractEvaluator):
    """A stand-in for training."""

    name: ClassVar[str] = "tabular"
    mishap: Mishap = nothing
    worth: Callable[[str, int], tuple[tuple[float, float], ...]] = worth

    def start(self, task: Task, splits: Splits, book: LatencyBook) -> TabularSession:
        return TabularSession(task, self)


class TabularSession(AbstractSession):
    """Keeps the number of its epochs in a file, as a checkpoint."""

    def __init__(self, task: Task, table: Tabular) -> None:
        self._task = task
        self._table = table
        self._number = int(task.folder.name)
        self._checkpoint = task.folder / "epochs"
        self._log = task.folder.parent / "trained.log"

    @property
    def epochs_done(self) -> int:
        return int(self._checkpoint.read_text()) if self._checkpoint.exists() else 0

    def history(self) -> tuple[Mapping[str, float], ...]:
        return tuple({"epoch": epoch, "train_loss": 1 / epoch} for epoch in range(1, self.epochs_done + 1))

    def prepare(self) -> bool:
        return False

    def train(self) -> Mapping[str, float]:
        epoch = self.epochs_done + 1
        self._table.mishap(self._number, epoch)
        self._task.folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint.write_text(str(epoch))
        with self._log.open("a") as log:
            log.write(f"{self._number} {epoch}\n")
        return {"epoch": epoch, "train_loss": 1 / epoch}

    def read(self) -> Reading:
        return Reading(self._points(), {"epoch": self.epochs_done, "final_accuracy": 0.5})

    def finish(self) -> Outcome:
        points = self._points()
        certified = tuple(point.metrics["accuracy"] - 0.01 for point in points)
        return Outcome(points, certified, {"epoch": self.epochs_done, "final_accuracy": 0.5}, {"table": True})

    def _points(self) -> tuple[OperatingPoint, ...]:
        rows = self._table.worth(self._task.architecture.id, self.epochs_done)
        return tuple(
            made_up_point(accuracy, latency, threshold=1 - index / 4) for index, (accuracy, latency) in enumerate(rows)
        )


def made_up_point(accuracy: float, latency_ms: float, *, threshold: float = 0.5) -> OperatingPoint:
    """An operating point with these values on the device `cpu`."""
    assert math.isfinite(accuracy)
    metrics = {
        "accuracy": accuracy,
        "macs": 1000 * latency_ms,
        "parameters": 100.0,
        "latency_ms@cpu": latency_ms,
        "latency_p95_ms@cpu": 2 * latency_ms,
        "latency_worst_ms@cpu": 3 * latency_ms,
    }
    return OperatingPoint(Policy("max_prob", (threshold,)), metrics, (0.5, 0.5))


# -- a search that can die and be entered again ----------------------------------------------------------------


def _study(folder: Path, directions: Sequence[str], sampler: str, seed: int) -> Study:
    return Study(f"sqlite:///{folder / 'study.db'}", ID, directions=directions, sampler=sampler, seed=seed)


@cache
def _empty_stores() -> Path:
    """Databases with their tables, made once: copying them is ten times as fast as making them."""
    folder = Path(tempfile.mkdtemp(prefix="dynarch-empty-"))
    at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    Ledger.open(f"sqlite:///{folder / 'ledger.db'}").close()
    _study(folder, ("maximize", "minimize"), "random", 0)
    return folder


@dataclass
class Driven:
    """One search over stores in a folder, driven as the driver drives it, but inline.

    Every `enter` opens the stores anew, as a new process would.
    """

    folder: Path
    problem: Problem
    evaluator: AbstractEvaluator = field(default_factory=Tabular)
    book: LatencyBook | None = None
    clock: Callable[[], float] = lambda: 1000.0
    ended: list[Evaluation] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.folder / "ledger.db").exists():
            shutil.copytree(_empty_stores(), self.folder, dirs_exist_ok=True)
        with self.ledger() as ledger:
            ledger.create_search(ID, name="small", spec={}, seed=self.problem.strategy.seed, created_at=1.0)

    def ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.folder / 'ledger.db'}")

    def study(self) -> Study:
        strategy = self.problem.strategy
        return _study(self.folder, self.problem.directions, strategy.sampler, strategy.seed)

    @contextmanager
    def enter(self) -> Iterator[Engine]:
        """A new engine over the stores, after what a driver does first."""
        book = self.book or book_of(self.problem.space)
        with self.ledger() as ledger:
            study = self.study()
            reconcile_study(study, ledger, self.problem, ID)
            proposer = Proposer(self.problem, ID, ledger=ledger, study=study, book=book, clock=self.clock)
            engine = Engine(
                self.problem,
                ID,
                ledger=ledger,
                study=study,
                proposer=proposer,
                pending=unfinished_candidates(ledger, ID),
                on_end=lambda evaluation, points: self.ended.append(evaluation),
                clock=self.clock,
            )
            for evaluation, points in ended_in_order(ledger, ID):
                engine.tell(evaluation, points)
            yield engine

    def assignment(self, engine: Engine) -> Assignment:
        splits = visible_splits(self.problem.data, self.problem.splits, self.problem.strategy.seed)
        return Assignment(
            arrays=arrays_of(splits),
            signature=splits.signature.to_mapping(),
            book=(self.book or book_of(self.problem.space)).to_mapping(),
            decisions=self.problem.space.decisions(),
            evaluator=self.evaluator.name,
            epochs=self.problem.budget.epochs,
            rungs=engine.rung_epochs,
            seed=self.problem.strategy.seed,
            max_points=self.problem.strategy.points,
            folder=str(self.folder),
        )

    def run(self, hook: Hook = lambda moment: None) -> str | None:
        """Drive the search to its end, or to its death; why it ended."""
        with pytest.MonkeyPatch.context() as patch, self.enter() as engine:
            patch.setattr("dynarch.evaluators.evaluators.EVALUATORS", (self.evaluator, *EVALUATORS))
            run_inline(engine, self.assignment(engine), hook=hook)
            engine.note_told()
            return engine.stop_reason

    def evaluations(self) -> tuple[Evaluation, ...]:
        with self.ledger() as ledger:
            return ledger.evaluations(ID)

    def points(self) -> tuple[Point, ...]:
        with self.ledger() as ledger:
            return ledger.points(ID)

    def record(self) -> list[tuple[object, ...]]:
        """All that the ledger says of the candidates, but for attempts, times and what was read on the way."""
        rows = self.points()
        return [
            (
                e.number,
                e.architecture_id,
                e.level,
                dict(e.params),
                e.state,
                e.cause,
                e.epochs_done,
                e.metrics,
                _losses(e),
                e.told,
                [(p.index, p.policy, p.metrics) for p in rows if p.number == e.number],
            )
            for e in self.evaluations()
        ]

    def trained(self) -> list[tuple[int, int]]:
        """(candidate, epoch) for every epoch trained, in order."""
        log = self.folder / "candidates" / "trained.log"
        rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [(int(number), int(epoch)) for number, epoch in rows]


def _losses(evaluation: Evaluation) -> list[tuple[object, object]]:
    rows = [row for row in evaluation.curve or () if isinstance(row, dict)]
    return [(row["epoch"], row["train_loss"]) for row in rows if "train_loss" in row]


def architecture_of(evaluation: Evaluation) -> Architecture:
    """The architecture of a recorded candidate."""
    return Architecture.from_mapping(evaluation.architecture)


torch.set_num_threads(1)
