"""Training from scratch: the dearest evaluator and the one that all others are judged by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..hardware.book import LatencyBook
from ..hardware.inventory import Costs, costs_of
from ..spaces.architecture import Architecture
from ..spaces.backbone import Signature
from ..spaces.errors import DataError, EvaluationFailed, ShapeError, SpecError
from ..spaces.network import DynamicNetwork
from ..spaces.space import build
from .evaluator import AbstractEvaluator, AbstractSession, Outcome, Reading, Task
from .operating import operating_points, score
from .score_table import ScoreTable, calibrate, exit_logits, score_table
from .splits import Part, Splits
from .training import TrainingRun

CHECKPOINT, WEIGHTS, MANIFEST = "checkpoint.pt", "weights.safetensors", "candidate.json"
QUICK_EVALUATIONS = 400  # of the policy search at rungs: a rough front is enough to compare candidates
QUICK_POINTS = 8


@final
class ScratchSession(AbstractSession):
    """One candidate trained from scratch."""

    def __init__(self, task: Task, splits: Splits, book: LatencyBook) -> None:
        self._task = task
        self._splits = splits
        self._book = book
        signature = Signature(tuple(splits.train.x.shape[1:]), splits.classes)
        self._run = TrainingRun(task.architecture, splits, signature=signature, epochs=task.epochs, seed=task.seed)
        self._checkpoint = task.folder / CHECKPOINT
        if self._checkpoint.exists():
            self._continue()
        self._costs = _costs(self._run.network)

    def _continue(self) -> None:
        try:
            self._run.load(self._checkpoint)
        except Exception as error:  # torch promises no one error for a damaged file
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EvaluationFailed(f"the checkpoint {self._checkpoint} cannot be continued ({reason})") from error

    @property
    def epochs_done(self) -> int:
        """Epochs done."""
        return self._run.epochs_done

    def history(self) -> tuple[Mapping[str, float], ...]:
        """The losses that the checkpoint holds."""
        return tuple({"epoch": e, "train_loss": loss} for e, loss in enumerate(self._run.train_loss, start=1))

    def train(self) -> Mapping[str, float]:
        """Train one epoch and save a checkpoint."""
        self._run.train_to(self._run.epochs_done + 1)
        self._run.save(self._checkpoint)
        return {"epoch": self._run.epochs_done, "train_loss": self._run.train_loss[-1]}

    def read(self) -> Reading:
        """A rough front on the tune split, with the exits as they are."""
        table = self._table(self._splits.tune)
        points = operating_points(
            table,
            self._costs,
            self._book,
            decisions=self._task.decisions,
            seed=self._task.seed,
            max_points=QUICK_POINTS,
            evaluations=QUICK_EVALUATIONS,
        )
        return Reading(points, self._curve(table))

    def finish(self) -> Outcome:
        """Temper the exits, search policies on the tune split, score them on the certify split."""
        task, network = self._task, self._run.network
        temperatures = calibrate(network, self._splits.calibrate)
        tune, certify = self._table(self._splits.tune), self._table(self._splits.certify)
        points = operating_points(
            tune,
            self._costs,
            self._book,
            decisions=task.decisions,
            seed=task.seed,
            max_points=task.max_points,
        )
        certified = tuple(
            score(certify, self._costs, self._book, point.policy, seed=task.seed).metrics["accuracy"]
            for point in points
        )
        summary = {
            "temperatures": list(temperatures),
            "exit_accuracy": [float(value) for value in tune.correct.mean(0)],
            "certified_exit_accuracy": [float(value) for value in certify.correct.mean(0)],
        }
        tune.save(task.folder / "tune.npz")
        certify.save(task.folder / "certify.npz")
        save_candidate(task.folder, network, self._costs)
        # Kept until the driver has recorded the outcome, so that a death in between costs no training.
        return Outcome(points, certified, self._curve(tune), summary)

    def _curve(self, table: ScoreTable) -> dict[str, float]:
        accuracy = [float(value) for value in table.correct.mean(0)]
        curve = {f"exit_{index}_accuracy": value for index, value in enumerate(accuracy[:-1])}
        return {"epoch": self._run.epochs_done, **curve, "final_accuracy": accuracy[-1]}

    def _table(self, part: Part) -> ScoreTable:
        try:
            return score_table(exit_logits(self._run.network, part.x), part.y)
        except DataError as error:
            raise EvaluationFailed(str(error)) from error


@final
@dataclass(frozen=True)
class FromScratch(AbstractEvaluator):
    """Trains every candidate on its own, from random weights, all parts jointly."""

    name: ClassVar[str] = "from_scratch"

    def start(self, task: Task, splits: Splits, book: LatencyBook) -> ScratchSession:
        """Build the network, or load its checkpoint."""
        try:
            return ScratchSession(task, splits, book)
        except (SpecError, ShapeError) as error:
            raise EvaluationFailed(f"cannot be built: {error}") from error


def save_candidate(folder: Path, network: DynamicNetwork, costs: Costs) -> None:
    """Write weights and manifest, each atomically; no code, no pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{WEIGHTS}.{os.getpid()}.partial"
    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, partial)
    partial.replace(folder / WEIGHTS)
    manifest = {
        "architecture": network.architecture.to_mapping(),
        "signature": network.signature.to_mapping(),
        "costs": costs.to_mapping(),
    }
    text = folder / f"{MANIFEST}.{os.getpid()}.partial"
    text.write_text(json.dumps(manifest, allow_nan=False))
    text.replace(folder / MANIFEST)


def load_candidate(folder: Path) -> tuple[DynamicNetwork, Costs]:
    """The trained network, in evaluation mode on the CPU, and its costs.

    Raises:
        DataError: if the folder does not hold a candidate.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        architecture = Architecture.from_mapping(manifest["architecture"])
        network = build(architecture, Signature.from_mapping(manifest["signature"], "signature"))
        network.load_state_dict(load_file(folder / WEIGHTS))
        return network.eval(), Costs.from_mapping(manifest["costs"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError("candidate", f"{folder} does not hold a trained candidate ({reason})") from None


def _costs(network: DynamicNetwork) -> Costs:
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        costs = costs_of(network.cpu().eval())
    network.to(device)
    return costs
