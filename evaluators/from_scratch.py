"""Training from scratch: the dearest evaluator and the one that all others are judged by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..hardware.book import LatencyBook
from ..hardware.inventory import Costs, costs_of
from ..spaces.adopted import shelf
from ..spaces.architecture import Architecture
from ..spaces.backbone import Signature
from ..spaces.errors import DataError, EvaluationFailed, ShapeError, SpecError
from ..spaces.network import DynamicNetwork
from ..spaces.space import build
from .atomic import replacing
from .confidence import fit_confidence
from .evaluator import AbstractEvaluator, AbstractSession, Outcome, Reading, Task
from .knobs import LEVELS, settings_of
from .operating import operating_points, score
from .score_table import ScoreTable, ScoreTables, Setting, calibrate, score_tables
from .splits import Part, Splits
from .training import Shadow, TrainingRun

CHECKPOINT, WEIGHTS, MANIFEST = "checkpoint.pt", "weights.safetensors", "candidate.json"
QUICK_EVALUATIONS = 400  # of the policy search at rungs: a rough front is enough to compare candidates
QUICK_POINTS = 8
QUICK_LEVELS = 2


@final
class ScratchSession(AbstractSession):
    """One candidate trained from scratch.

    Args:
        task: what to evaluate.
        splits: data.
        book: latencies.
        shadow: as `TrainingRun` takes it.
    """

    def __init__(self, task: Task, splits: Splits, book: LatencyBook, *, shadow: Shadow | None = None) -> None:
        self._task = task
        self._book = book
        self._costs = planned_costs(task.architecture, splits.signature)
        self._run = TrainingRun(
            task.architecture,
            splits,
            signature=splits.signature,
            epochs=task.epochs,
            seed=task.seed,
            costs=part_costs(self._costs, book),
            shadow=shadow,
        )
        self._splits, self._network = self._run.splits, self._run.trained
        self._checkpoint = task.folder / CHECKPOINT
        if self._checkpoint.exists():
            self._continue()

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

    def prepare(self) -> bool:
        """Train a teacher for an epoch and save a checkpoint."""
        if not self._run.prepare():
            return False
        self._run.save(self._checkpoint)
        return True

    def train(self) -> Mapping[str, float]:
        """Train one epoch and save a checkpoint."""
        while self.prepare():
            pass
        self._run.train_to(self._run.epochs_done + 1)
        self._run.save(self._checkpoint)
        return {"epoch": self._run.epochs_done, "train_loss": self._run.train_loss[-1]}

    def read(self) -> Reading:
        """A rough front on the tune split, with the exits as they are."""
        tables = self._tables(self._splits.tune, self._settings(QUICK_LEVELS))
        points = operating_points(
            tables,
            self._costs,
            self._book,
            decisions=self._task.decisions,
            seed=self._task.seed,
            max_points=QUICK_POINTS,
            evaluations=QUICK_EVALUATIONS,
        )
        return Reading(points, self._curve(tables.plain))

    def finish(self) -> Outcome:
        """Temper the exits, fit what they learn, search policies on the tune split, score them on the certify split."""
        task, network = self._task, self._network
        temperatures = calibrate(network, self._splits.calibrate)
        fit_confidence(network, self._splits.calibrate)
        settings = self._settings(LEVELS)
        tune, certify = self._tables(self._splits.tune, settings), self._tables(self._splits.certify, settings)
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
            "exit_accuracy": [float(value) for value in tune.plain.correct.mean(0)],
            "certified_exit_accuracy": [float(value) for value in certify.plain.correct.mean(0)],
            "usage": {name: float(values.mean()) for name, values in tune.plain.usage.items()},
        }
        tune.save(task.folder / "tune.npz")
        certify.save(task.folder / "certify.npz")
        save_candidate(task.folder, self._run.network, self._costs)
        # Kept until the driver has recorded the outcome, so that a death in between costs no training.
        return Outcome(points, certified, self._curve(tune.plain), summary)

    def _curve(self, table: ScoreTable) -> dict[str, float]:
        accuracy = [float(value) for value in table.correct.mean(0)]
        curve = {f"exit_{index}_accuracy": value for index, value in enumerate(accuracy[:-1])}
        return {"epoch": self._run.epochs_done, **curve, "final_accuracy": accuracy[-1]}

    def _settings(self, levels: int) -> tuple[Setting, ...]:
        return settings_of(self._network, self._splits.calibrate, levels=levels)

    def _tables(self, part: Part, settings: tuple[Setting, ...]) -> ScoreTables:
        try:
            return score_tables(self._network, part, settings)
        except DataError as error:
            raise EvaluationFailed(str(error)) from error


@final
@dataclass(frozen=True)
class FromScratch(AbstractEvaluator):
    """Trains every candidate on its own, from the weights that it is built with, all parts jointly."""

    name: ClassVar[str] = "from_scratch"

    def start(self, task: Task, splits: Splits, book: LatencyBook) -> ScratchSession:
        """Build the network, or load its checkpoint."""
        try:
            return ScratchSession(task, splits, book)
        except (SpecError, ShapeError) as error:
            raise EvaluationFailed(f"cannot be built: {error}") from error


def save_candidate(folder: Path, network: DynamicNetwork, costs: Costs) -> None:
    """Write weights and manifest, each atomically; no code, no pickle."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in unaliased(network).items()}
    with replacing(folder / WEIGHTS) as stream:
        stream.write(save(tensors))
    manifest = {
        "architecture": network.architecture.to_mapping(),
        "signature": network.signature.to_mapping(),
        "costs": costs.to_mapping(),
    }
    with replacing(folder / MANIFEST) as stream:
        stream.write(json.dumps(manifest, allow_nan=False).encode())


def load_candidate(folder: Path) -> tuple[DynamicNetwork, Costs]:
    """The trained network, in evaluation mode on the CPU, and its costs.

    Raises:
        DataError: if the folder does not hold a candidate.
    """
    for parent in folder.resolve().parents:  # an adopted network lies in the storage that the candidate lies in
        if (parent / shelf.MODELS).is_dir():
            shelf.add_shelf(parent / shelf.MODELS)
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        architecture = Architecture.from_mapping(manifest["architecture"])
        network = build(architecture, Signature.from_mapping(manifest["signature"], "signature"))
        load_unaliased(network, load_file(folder / WEIGHTS))
        return network.eval(), Costs.from_mapping(manifest["costs"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError("candidate", f"{folder} does not hold a trained candidate ({reason})") from None


def planned_costs(architecture: Architecture, signature: Signature) -> Costs:
    """What is known of an architecture's parts before it is trained.

    Raises:
        SpecError: if it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        return costs_of(build(architecture, signature).eval())


def part_costs(costs: Costs, book: LatencyBook) -> dict[str, dict[str, float]]:
    """Resource -> part -> cost: work, and milliseconds on the first device of the book."""
    names = [part.name for part in costs.parts]
    _, pages = book.first
    return {
        "macs": dict(zip(names, map(float, costs.macs), strict=True)),
        "latency": dict(zip(names, map(float, pages.part_ms(costs)), strict=True)),
    }


def unaliased(network: DynamicNetwork) -> dict[str, torch.Tensor]:
    """The state of a network with each tensor under one name only: the first, of those that share their memory."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    kept = {}
    for name, tensor in network.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place not in seen or tensor.numel() == 0:
            seen.add(place)
            kept[name] = tensor
    return kept


def load_unaliased(network: DynamicNetwork, state: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `unaliased` for a network of the same architecture.

    Raises:
        RuntimeError: if the state is another network's.
    """
    expected = unaliased(network).keys()
    if expected != state.keys():
        odd = sorted(expected ^ state.keys())
        raise RuntimeError(f"the weights are those of another network ({', '.join(odd[:3])})")
    network.load_state_dict(state, strict=False)
