"""Training from scratch keeps the contract of evaluators; its artefacts are refused when damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dynarch.evaluators.evaluator import AbstractEvaluator, Outcome, Task
from dynarch.evaluators.evaluators import EVALUATORS, evaluator
from dynarch.evaluators.from_scratch import (
    CHECKPOINT,
    MANIFEST,
    WEIGHTS,
    FromScratch,
    ScratchSession,
    load_candidate,
    save_candidate,
)
from dynarch.evaluators.score_table import Recording
from dynarch.evaluators.testing import (
    DECISIONS,
    EvaluatorContract,
    contract_book,
    contract_splits,
    pattern_data,
    run_to_end,
    small_architecture,
)
from dynarch.hardware.inventory import costs_of
from dynarch.spaces.backbone import Signature
from dynarch.spaces.errors import DataError, EvaluationFailed, UnknownNameError
from dynarch.spaces.space import build


class TestFromScratch(EvaluatorContract):
    """The rows of the contract."""

    @pytest.fixture(scope="class")
    @classmethod
    def evaluator(cls) -> AbstractEvaluator:
        return FromScratch()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("candidate")
    task = Task(small_architecture(), 0, 2, folder, DECISIONS, 6)
    session = FromScratch().start(task, contract_splits(), contract_book(task.architecture))
    return folder, run_to_end(session, 2)


def test_every_evaluator_is_found_by_its_name() -> None:
    assert [evaluator(member.name) for member in EVALUATORS] == list(EVALUATORS)
    with pytest.raises(UnknownNameError) as caught:
        evaluator("from_scrach")
    assert str(caught.value) == (
        "search.evaluator: 'from_scrach' is not known; did you mean 'from_scratch'?"
        " (known: from_scratch, frozen_backbone, nothing)"
    )


def test_the_checkpoint_stays_until_the_driver_has_recorded_the_outcome(evaluated: tuple[Path, Outcome]) -> None:
    folder, outcome = evaluated
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [CHECKPOINT, WEIGHTS, MANIFEST, "tune.npz", "certify.npz"]
    )
    assert len(outcome.summary["temperatures"]) == 2
    assert len(outcome.summary["exit_accuracy"]) == len(outcome.summary["certified_exit_accuracy"]) == 3


def test_the_temperatures_are_in_the_weights(evaluated: tuple[Path, Outcome]) -> None:
    folder, outcome = evaluated
    network, _ = load_candidate(folder)
    assert not network.training
    assert [float(step.temperature) for step in network.exit_steps] == pytest.approx(outcome.summary["temperatures"])


def test_saved_weights_are_loaded_whatever_the_generator_holds(tmp_path: Path) -> None:
    splits = contract_splits()
    network = build(small_architecture(), _signature()).eval()
    save_candidate(tmp_path, network, costs_of(network))
    torch.manual_seed(99)
    loaded, costs = load_candidate(tmp_path)
    for mine, theirs in zip(network(splits.tune.x), loaded(splits.tune.x), strict=True):
        assert torch.equal(mine, theirs)
    assert costs == costs_of(network)


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _without_costs(text: str) -> str:
    document = json.loads(text)
    del document["costs"]
    return json.dumps(document)


def _of_another_width(text: str) -> str:
    document = json.loads(text)
    document["architecture"]["backbone"]["width"] = 5
    return json.dumps(document)


# How a file is damaged; None: it is gone.
DAMAGE: tuple[tuple[str, Callable[[str], str] | None], ...] = (
    (WEIGHTS, _cut),
    (WEIGHTS, None),
    (WEIGHTS, lambda text: ""),
    (MANIFEST, _cut),
    (MANIFEST, None),
    (MANIFEST, lambda text: "{}"),
    (MANIFEST, lambda text: "[]"),
    (MANIFEST, _without_costs),
    (MANIFEST, _of_another_width),
)


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_candidate_is_refused_in_one_line(
    tmp_path: Path, name: str, damage: Callable[[str], str] | None
) -> None:
    network = build(small_architecture(), _signature()).eval()
    save_candidate(tmp_path, network, costs_of(network))
    file = tmp_path / name
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage(file.read_text(encoding="latin-1")), encoding="latin-1")
    with pytest.raises(DataError, match="does not hold a trained candidate") as caught:
        load_candidate(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_loaded_as_a_checkpoint(tmp_path: Path) -> None:
    """A planted checkpoint that would run code when unpickled fails; it does not run."""
    planted, proof = tmp_path / CHECKPOINT, tmp_path / "proof"
    torch.save({"network": _Touch(proof)}, planted)
    task = Task(small_architecture(), 0, 2, tmp_path, DECISIONS, 6)
    with pytest.raises(EvaluationFailed, match="checkpoint"):
        ScratchSession(task, contract_splits(), contract_book(task.architecture))
    assert not proof.exists()


class _Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_logits_that_are_no_numbers_end_the_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(small_architecture(), 0, 2, tmp_path, DECISIONS, 6)
    session = FromScratch().start(task, contract_splits(), contract_book(task.architecture))
    session.train()
    monkeypatch.setattr(
        "dynarch.evaluators.score_table.record",
        lambda network, x, **_: Recording([torch.full((len(x), 3), np.inf) for _ in range(3)], {}, {}),
    )
    for ending in (session.read, session.finish):
        with pytest.raises(EvaluationFailed, match="logits must be finite"):
            ending()


def _signature() -> Signature:
    return pattern_data().signature
