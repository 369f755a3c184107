"""Teachers: trained first, by the same recipe, continued bit for bit, and counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dynarch.evaluators.evaluator import Task
from dynarch.evaluators.from_scratch import FromScratch
from dynarch.evaluators.testing import (
    DECISIONS,
    contract_book,
    contract_splits,
    pattern_data,
    run_to_end,
    same_weights,
    small_architecture,
)
from dynarch.evaluators.training import TrainingRun
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import EvaluationFailed
from dynarch.spaces.teacher import teacher_of

SIGNATURE = pattern_data().signature
EPOCHS = 2


def architecture(kind: str) -> Architecture:
    document = small_architecture().to_mapping()
    document["training"]["distillation"] = {"kind": kind, "temperature": 2.0, "weight": 0.5}
    return Architecture.from_mapping(document)


def run_of(kind: str) -> TrainingRun:
    cpu = torch.device("cpu")
    return TrainingRun(architecture(kind), contract_splits(), signature=SIGNATURE, epochs=EPOCHS, seed=5, device=cpu)


@pytest.fixture(scope="module")
def whole() -> TrainingRun:
    """Without a break."""
    run = run_of("teacher")
    run.train_to(EPOCHS)
    return run


def test_the_teacher_is_trained_to_its_end_and_first(whole: TrainingRun) -> None:
    assert whole.teacher is not None
    assert whole.teacher.epochs_done == EPOCHS
    static = teacher_of(architecture("teacher"))
    assert static is not None
    alone = TrainingRun(static, contract_splits(), signature=SIGNATURE, epochs=EPOCHS, seed=5)
    alone.train_to(EPOCHS)
    assert same_weights(whole.teacher.network, alone.network), "exactly the static network of the same seed"
    run = run_of("teacher")
    assert [run.prepare() for _ in range(EPOCHS + 1)] == [True] * EPOCHS + [False]
    assert run.epochs_done == 0


@pytest.mark.parametrize("breaks", [(1,), (2,), (3,), (0, 1, 2, 3)])
def test_a_continued_run_is_the_whole_one_bit_for_bit(
    tmp_path: Path, whole: TrainingRun, breaks: tuple[int, ...]
) -> None:
    """Breaks after so many epochs, the teacher's two counted."""
    run = run_of("teacher")
    for total in breaks:
        while run.teacher is not None and run.teacher.epochs_done < min(total, EPOCHS):
            run.prepare()
        run.train_to(total - EPOCHS)
        run.save(tmp_path / "checkpoint.pt")
        run = run_of("teacher")
        torch.manual_seed(total)
        run.load(tmp_path / "checkpoint.pt")
        assert run.teacher is not None
        assert run.teacher.epochs_done + run.epochs_done == total
    run.train_to(EPOCHS)
    assert same_weights(run.network, whole.network)
    assert run.train_loss == whole.train_loss


def test_a_session_that_dies_while_it_trains_the_teacher_goes_on(tmp_path: Path) -> None:
    made = architecture("teacher")
    splits, book = contract_splits(), contract_book(made)
    tasks = [Task(made, 3, EPOCHS, tmp_path / name, DECISIONS, 4) for name in ("whole", "broken")]
    undisturbed = run_to_end(FromScratch().start(tasks[0], splits, book), EPOCHS)
    session = FromScratch().start(tasks[1], splits, book)
    assert session.prepare()
    session = FromScratch().start(tasks[1], splits, book)
    assert session.epochs_done == 0
    assert session.history() == ()
    assert session.prepare()
    assert not session.prepare()
    assert run_to_end(session, EPOCHS) == undisturbed


def test_who_teaches_makes_a_difference(whole: TrainingRun) -> None:
    own = run_of("self")
    own.train_to(EPOCHS)
    assert own.teacher is None
    assert not own.prepare()
    plain = TrainingRun(small_architecture(), contract_splits(), signature=SIGNATURE, epochs=EPOCHS, seed=5)
    plain.train_to(EPOCHS)
    assert len({run.train_loss[-1] for run in (own, plain, whole)}) == 3
    assert all(math.isfinite(loss) for loss in own.train_loss)


def test_a_teacher_that_cannot_go_on_ends_the_candidate() -> None:
    run = run_of("teacher")
    run._train.x.fill_(math.nan)
    with pytest.raises(EvaluationFailed, match="of its teacher, the training loss became nan in epoch 1"):
        run.train_to(1)
