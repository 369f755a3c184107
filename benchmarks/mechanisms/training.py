"""Training phase: one network by the product's own evaluator, and what its decisions are worth on the test split.

No stopwatch is used, so that many of these may run beside other programs: policies are chosen by work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch

import dynarch as da
from dynarch.evaluators.evaluator import Task
from dynarch.evaluators.from_scratch import FromScratch, load_candidate, planned_costs
from dynarch.evaluators.operating import OperatingPoint, operating_points, score
from dynarch.evaluators.score_table import ScoreTables, Setting, record, score_tables
from dynarch.evaluators.splits import Part, Splits
from dynarch.hardware.book import DevicePages, LatencyBook
from dynarch.hardware.composition import PartCurve
from dynarch.hardware.correction import IDENTITY
from dynarch.hardware.inventory import Costs
from dynarch.spaces.network import DynamicNetwork

Accuracies = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

WORK: Final = "work"  # name of the device on which a million multiply-accumulates take a millisecond
WITHIN: Final = 0.01  # of the static network's accuracy
SHUFFLES: Final = 2
POINTS: Final = 8


@final
@dataclass(frozen=True)
class Bench:
    """Data and folder of one (data set, seed).

    Args:
        splits: all but the test split.
        test: opened here, as nothing is chosen on it.
        signature: inputs and classes.
        epochs: of each training.
        seed: of weights, order and noise.
        folder: of this bench; every network has a folder in it.
    """

    splits: Splits
    test: Part
    signature: da.Signature
    epochs: int
    seed: int
    folder: Path


def work_book(each: Iterable[Costs]) -> LatencyBook:
    """Latencies that are nothing but work."""
    curves: dict[str, PartCurve] = {}
    for costs in each:
        for key, part, work in zip(costs.keys, costs.parts, costs.macs, strict=True):
            sizes = (1,) if part.rows == 1 else (1, part.rows)  # between two sizes in proportion to them
            if key not in curves or curves[key].batches < sizes:
                curves[key] = PartCurve(sizes, tuple(size * max(work, 1) * 1e-6 for size in sizes), key)
    return LatencyBook({WORK: DevicePages(1, WORK, WORK, IDENTITY, curves)})


def train(architecture: da.Architecture, bench: Bench, decisions: Sequence[str], folder: Path) -> float:
    """Train and leave weights and score tables in the folder; the seconds it took. An interrupted one continues."""
    started = time.perf_counter()
    book = work_book([planned_costs(architecture, bench.signature)])
    task = Task(architecture, bench.seed, bench.epochs, folder, tuple(decisions), POINTS)
    session = FromScratch().start(task, bench.splits, book)
    while session.epochs_done < bench.epochs:
        session.train()
    session.finish()
    return time.perf_counter() - started


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A network of the training phase, as it was left on disk."""

    network: DynamicNetwork
    costs: Costs
    tune: ScoreTables

    @classmethod
    def load(cls, folder: Path) -> Trained:
        """What `train` left.

        Raises:
            DataError: if it is not there.
        """
        return cls(*load_candidate(folder), ScoreTables.load(folder / "tune.npz"))

    @property
    def macs(self) -> float:
        """Work of one input for which everything runs; of a static network, its work."""
        return float(sum(self.costs.macs))

    def points(self, book: LatencyBook, decisions: Sequence[str], seed: int) -> tuple[OperatingPoint, ...]:
        """The best policies on the tune split for the first device of the book."""
        return operating_points(self.tune, self.costs, book, decisions=decisions, seed=seed, max_points=POINTS)

    def tune_accuracy(self) -> float:
        """Of the whole network, all knobs at 0."""
        return float(self.tune.plain.correct[:, -1].mean())


def chosen(points: Sequence[OperatingPoint], floor: float, metric: str) -> OperatingPoint:
    """The cheapest point whose accuracy is at least the floor; if there is none, the most accurate one."""
    able = [point for point in points if point.metrics["accuracy"] >= floor]
    if able:
        return min(able, key=lambda point: point.metrics[metric])
    return max(points, key=lambda point: (point.metrics["accuracy"], -point.metrics[metric]))


@final
class Examiner:
    """Policies of one network on the test split; what depends on the setting of the knobs alone is recorded once.

    Args:
        trained: the network.
        test: test split.
        book: latencies.
        seed: of what is dealt out at random.
    """

    def __init__(self, trained: Trained, test: Part, book: LatencyBook, seed: int) -> None:
        self._trained, self._test, self._book, self._seed = trained, test, book, seed
        self._tables = cache(self._record)
        self._dealt = cache(self._deal)

    def examine(self, policy: da.Policy) -> dict[str, Any]:
        """Accuracy, work, and accuracy where the same decisions are dealt out at random."""
        tables = self._tables(policy.setting)
        point = score(tables, self._trained.costs, self._book, policy, seed=self._seed)
        return {
            "policy": policy.to_dict(),
            "accuracy": point.metrics["accuracy"],
            "macs": point.metrics["macs"],
            "random_accuracy": self.by_chance(point) if point.decides else None,
            "exit_share": list(point.exit_share),
            "usage": dict(point.usage),
        }

    def by_chance(self, point: OperatingPoint) -> float:
        """Accuracy with decisions shuffled among the inputs: of gates by running them, of exits as an expectation."""
        return float(np.array(point.exit_share) @ self._dealt(point.policy.setting, bool(point.usage)))

    def _record(self, setting: Setting) -> ScoreTables:
        return score_tables(self._trained.network, self._test, (setting,))

    def _deal(self, setting: Setting, gated: bool) -> Accuracies:
        """Accuracy at each exit, of gates in the mean of some shuffles."""
        if not gated:
            return _accuracies(record(self._trained.network, self._test.x, setting=setting).logits, self._test)
        found = []
        for number in range(SHUFFLES):
            shuffle = torch.Generator().manual_seed(1000 * self._seed + number)
            logits = record(self._trained.network, self._test.x, setting=setting, shuffle=shuffle).logits
            found.append(_accuracies(logits, self._test))
        mean: Accuracies = np.mean(found, axis=0)
        return mean


def examine(trained: Trained, policy: da.Policy, test: Part, book: LatencyBook, seed: int) -> dict[str, Any]:
    """One policy on the test split."""
    return Examiner(trained, test, book, seed).examine(policy)


def _accuracies(logits: Sequence[torch.Tensor], test: Part) -> Accuracies:
    return np.array([float((each.argmax(1) == test.y).double().mean()) for each in logits])


def summary(
    trained: Trained, static: Mapping[str, Any], test: Part, decisions: Sequence[str], seed: int
) -> dict[str, Any]:
    """All that the training phase says of a dynamic network.

    Args:
        trained: the network.
        static: row of the same backbone without the family.
        test: test split.
        decisions: decision schemes that policies may use.
        seed: of the policy search and of what is dealt out at random.

    Returns:
        The point chosen on the tune split, all points on the test split, and by how much the decisions beat random
        ones at the chosen point and on average over all points where inputs take different paths.
    """
    book = work_book([trained.costs])
    points = trained.points(book, decisions, seed)
    best = chosen(points, static["tune_accuracy"] - WITHIN, "macs")
    examiner = Examiner(trained, test, book, seed)
    rows = [examiner.examine(point.policy) for point in points]
    picked = rows[points.index(best)]
    gains = [row["accuracy"] - row["random_accuracy"] for row in rows if row["random_accuracy"] is not None]
    random = picked["random_accuracy"]
    return {
        "accuracy": picked["accuracy"],
        "saved": 1 - picked["macs"] / static["macs"],
        "gain": None if random is None else picked["accuracy"] - random,
        "mean_gain": float(np.mean(gains)) if gains else None,
        "chosen": points.index(best),
        "points": rows,
    }
