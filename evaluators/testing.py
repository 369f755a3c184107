"""The contract of an evaluator, as a test suite. Imports pytest: no facade may import this module.

Subclass it and supply one fixture:

    class TestMyEvaluator(EvaluatorContract):
        @pytest.fixture(scope="class")
        @classmethod
        def evaluator(cls) -> AbstractEvaluator:
            return MyEvaluator()

`pattern_data` and `made_up_book` serve anybody who needs a task that is learnt in a second and latencies
without a stopwatch.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ..hardware.book import DevicePages, LatencyBook
from ..hardware.composition import PartCurve
from ..hardware.correction import IDENTITY
from ..hardware.inventory import Costs, costs_of
from ..spaces.architecture import Architecture
from ..spaces.errors import EvaluationFailed
from ..spaces.network import DynamicNetwork
from ..spaces.space import build
from .data import Data, from_arrays
from .evaluator import AbstractEvaluator, AbstractSession, Outcome, Task
from .from_scratch import load_candidate
from .score_table import ScoreTables
from .splits import Part, Splits, SplitSpec, visible_splits

EPOCHS = 3
DECISIONS = ("max_prob", "patience")


def pattern_data(samples: int = 240, *, classes: int = 3, seed: int = 0, noise: float = 0.7) -> Data:
    """Noisy images `n x 1 x 8 x 8` of one fixed pattern a class: easy enough to be learnt in a few epochs."""
    generator = np.random.default_rng(seed)
    patterns = generator.normal(size=(classes, 1, 8, 8))
    labels = np.arange(samples) % classes
    images = patterns[labels] + noise * generator.normal(size=(samples, 1, 8, 8))
    return from_arrays(images.astype(np.float32), labels, name="patterns")


def made_up_ms(key: str, macs: int, batch: int) -> float:
    """A latency that depends on nothing but its arguments, different for every key."""
    return (0.01 + macs * 1e-6 + int(key[:6], 16) / 16**6 * 1e-4) * (0.4 + 0.6 * batch)


def made_up_book(costs: Iterable[Costs], devices: Mapping[str, int]) -> LatencyBook:
    """A book with every part of these networks, for devices of these batch sizes."""
    costs = tuple(costs)
    work = {key: macs for each in costs for key, macs in zip(each.keys, each.macs, strict=True)}

    rows = dict.fromkeys(work, 1)
    for each in costs:
        for key, part in zip(each.keys, each.parts, strict=True):
            rows[key] = max(rows[key], part.rows)

    def pages(batch: int) -> DevicePages:
        curves = {}
        for key, macs in work.items():
            sizes = tuple(range(1, batch * rows[key] + 1))
            curves[key] = PartCurve(sizes, tuple(made_up_ms(key, macs, size) for size in sizes), key)
        return DevicePages(batch, "made-up", "made-up", IDENTITY, curves)

    return LatencyBook({name: pages(batch) for name, batch in devices.items()})


def small_architecture() -> Architecture:
    """A residual CNN of width 4 with three blocks and two early exits."""
    return Architecture.of(
        backbone={"name": "residual", "width": 4, "depths": [1, 1, 1]},
        families={"early_exit": {"positions": [0, 1], "heads": ["linear", "mlp"], "objective": "equal"}},
        training={
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "label_smoothing": 0.0,
            "batch_size": 32,
            "shift": 1,
            "flip": False,
        },
    )


def run_to_end(session: AbstractSession, epochs: int, *, read: bool = False) -> Outcome:
    """Train a session to its last epoch and finish it."""
    while session.epochs_done < epochs:
        session.train()
        if read:
            session.read()
    return session.finish()


def _evaluate(evaluator: AbstractEvaluator, task: Task) -> Outcome:
    """The whole evaluation on the contract's data; importable, so that another process can do it."""
    torch.set_num_threads(1)
    splits, book = contract_splits(), contract_book(task.architecture)
    return run_to_end(evaluator.start(task, splits, book), task.epochs)


def contract_splits() -> Splits:
    """The data of the contract."""
    return visible_splits(pattern_data(), SplitSpec(), 0)


def contract_book(architecture: Architecture) -> LatencyBook:
    """Latencies on one device that takes single inputs and one that takes batches of four."""
    with torch.random.fork_rng(devices=[]):
        network = build(architecture, pattern_data().signature).eval()
    return made_up_book([costs_of(network)], {"cpu": 1, "batches": 4})


def same_weights(first: DynamicNetwork, second: DynamicNetwork) -> bool:
    """Whether two networks hold the same weights and statistics, bit for bit."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _assert_same(task: Task, outcome: Outcome, undisturbed: tuple[Task, Outcome]) -> None:
    assert outcome == undisturbed[1]
    assert same_weights(load_candidate(task.folder)[0], load_candidate(undisturbed[0].folder)[0])


class EvaluatorContract:
    """What every evaluator keeps to; the fixture `evaluator` supplies one.

    Override `architecture` to evaluate something else.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def architecture(cls) -> Architecture:
        """What is evaluated."""
        return small_architecture()

    @pytest.fixture(scope="class")
    @classmethod
    def undisturbed(
        cls, evaluator: AbstractEvaluator, architecture: Architecture, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Task, Outcome]:
        """An evaluation from start to end without a break, and the task with its folder."""
        task = Task(architecture, 3, EPOCHS, tmp_path_factory.mktemp("undisturbed"), DECISIONS, 6)
        return task, _evaluate(evaluator, task)

    @pytest.fixture
    def task(self, undisturbed: tuple[Task, Outcome], tmp_path: Path) -> Task:
        """The same task in an empty folder."""
        return replace(undisturbed[0], folder=tmp_path / "candidate")

    def test_the_same_seed_gives_the_same_candidate(
        self, evaluator: AbstractEvaluator, task: Task, undisturbed: tuple[Task, Outcome]
    ) -> None:
        torch.rand(7)  # whatever the process did before must not matter
        _assert_same(task, _evaluate(evaluator, task), undisturbed)

    def test_another_seed_gives_another_candidate(
        self, evaluator: AbstractEvaluator, task: Task, undisturbed: tuple[Task, Outcome]
    ) -> None:
        _evaluate(evaluator, replace(task, seed=task.seed + 1))
        assert not same_weights(load_candidate(task.folder)[0], load_candidate(undisturbed[0].folder)[0])

    def test_another_process_gives_the_same_candidate(
        self, evaluator: AbstractEvaluator, task: Task, undisturbed: tuple[Task, Outcome]
    ) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            outcome = pool.apply(_evaluate, (evaluator, task))
        _assert_same(task, outcome, undisturbed)

    @pytest.mark.parametrize("epochs", range(EPOCHS + 1))
    def test_a_continued_run_is_the_undisturbed_one_bit_for_bit(
        self, evaluator: AbstractEvaluator, task: Task, undisturbed: tuple[Task, Outcome], epochs: int
    ) -> None:
        splits, book = contract_splits(), contract_book(task.architecture)
        broken = evaluator.start(task, splits, book)
        rows = tuple(broken.train() for _ in range(epochs))
        torch.rand(7)
        continued = evaluator.start(task, splits, book)
        assert continued.epochs_done == epochs
        assert continued.history() == rows
        _assert_same(task, run_to_end(continued, EPOCHS), undisturbed)

    def test_finishing_again_gives_the_same(
        self, evaluator: AbstractEvaluator, undisturbed: tuple[Task, Outcome]
    ) -> None:
        """The driver may die after a worker finished and before it was recorded."""
        task, outcome = undisturbed
        again = evaluator.start(task, contract_splits(), contract_book(task.architecture))
        assert again.epochs_done == EPOCHS
        assert again.finish() == outcome

    def test_taking_stock_changes_nothing(
        self, evaluator: AbstractEvaluator, task: Task, undisturbed: tuple[Task, Outcome]
    ) -> None:
        session = evaluator.start(task, contract_splits(), contract_book(task.architecture))
        _assert_same(task, run_to_end(session, EPOCHS, read=True), undisturbed)

    def test_steps_are_counted_and_readings_have_points(self, evaluator: AbstractEvaluator, task: Task) -> None:
        session = evaluator.start(task, contract_splits(), contract_book(task.architecture))
        assert session.epochs_done == 0
        for epoch in range(1, EPOCHS):
            assert session.train()["epoch"] == epoch
            reading = session.read()
            assert session.epochs_done == epoch
            assert reading.curve["epoch"] == epoch
            assert reading.points
            assert all(math.isfinite(v) for p in reading.points for v in p.metrics.values())

    def test_points_are_complete_and_sorted_by_latency(self, undisturbed: tuple[Task, Outcome]) -> None:
        task, outcome = undisturbed
        devices = contract_book(task.architecture).devices
        wanted = {"accuracy", "macs", "parameters"}
        wanted |= {f"{m}@{d}" for m in ("latency_ms", "latency_p95_ms", "latency_worst_ms") for d in devices}
        latencies = [point.metrics["latency_ms@cpu"] for point in outcome.points]
        assert latencies == sorted(latencies)
        assert len(outcome.certified) == len(outcome.points)
        for point, certified in zip(outcome.points, outcome.certified, strict=True):
            assert set(point.metrics) == wanted
            assert 0 <= point.metrics["accuracy"] <= 1
            assert 0 <= certified <= 1
            assert sum(point.exit_share) == pytest.approx(1)
        json.dumps([outcome.summary, outcome.curve], allow_nan=False)

    def test_what_is_left_behind_can_be_loaded_and_keeps_its_word(self, undisturbed: tuple[Task, Outcome]) -> None:
        task, outcome = undisturbed
        network, costs = load_candidate(task.folder)
        splits = contract_splits()
        assert network.architecture == task.architecture
        assert costs == costs_of(network)
        for name, part in (("tune", splits.tune), ("certify", splits.certify)):
            assert np.array_equal(ScoreTables.load(task.folder / f"{name}.npz").labels, part.y.numpy())
        for point, certified in zip(outcome.points, outcome.certified, strict=True):
            for part, accuracy in ((splits.tune, point.metrics["accuracy"]), (splits.certify, certified)):
                routed = network.route(part.x, point.policy).logits.argmax(1)
                # Scores of a batch may differ in the last bit from those of another batch size.
                assert float((routed == part.y).float().mean()) == pytest.approx(accuracy, abs=1.5 / len(part))
        assert not list(task.folder.glob("*.partial"))

    def test_a_loss_that_is_no_number_ends_the_candidate(self, evaluator: AbstractEvaluator, task: Task) -> None:
        splits = contract_splits()
        poisoned = replace(splits, train=Part(torch.full_like(splits.train.x, math.nan), splits.train.y))
        session = evaluator.start(task, poisoned, contract_book(task.architecture))
        with pytest.raises(EvaluationFailed, match="loss became nan in epoch 1"):
            run_to_end(session, EPOCHS)

    def test_what_cannot_be_built_fails_at_the_start(self, evaluator: AbstractEvaluator, task: Task) -> None:
        document = task.architecture.to_mapping()
        document["backbone"]["depths"] = [1] * 6  # 8 x 8 images cannot be halved five times
        wrong = replace(task, architecture=Architecture.from_mapping(document))
        with pytest.raises(EvaluationFailed, match="cannot be halved"):
            evaluator.start(wrong, contract_splits(), contract_book(task.architecture))

    def test_the_generators_of_the_process_are_left_alone(self, evaluator: AbstractEvaluator, task: Task) -> None:
        book, splits = contract_book(task.architecture), contract_splits()
        torch.manual_seed(1)
        np.random.seed(1)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
        run_to_end(evaluator.start(task, splits, book), EPOCHS, read=True)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
