"""The engine under failure: candidates that fail, stores that die in the wrong moment, drivers that are killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dynarch.evaluators.evaluators import EVALUATORS
from dynarch.evaluators.from_scratch import FromScratch
from dynarch.search.ledger import Ledger
from dynarch.search.samplers import Study, TrialRecord
from dynarch.search.testing import Moment, run_inline
from dynarch.spaces.errors import EvaluationFailed, StoreError
from dynarch.spaces.exit_objectives import EqualWeights
from dynarch.tests.inline_searches import (
    FOUR,
    Driven,
    Mishap,
    Tabular,
    quick_folder,
    small_problem,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Driven]:
    """Eight candidates on one worker, with rungs: some finish, some are stopped."""
    with quick_folder() as made:
        search = Driven(made, small_problem())
        assert search.run() is None
        yield search


def own_trials(search: Driven) -> list[TrialRecord]:
    return [trial for trial in search.study().trials() if not trial.extra]


# -- failures -------------------------------------------------------------------------------------------------


def fail_with(error: BaseException, *, number: int, at: int) -> Mishap:
    def mishap(candidate: int, epoch: int) -> None:
        if (candidate, epoch) == (number, at):
            raise error

    return mishap


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("no such shape"), r"ValueError: no such shape \(test_engine_failures.py:\d+\)"),
        (EvaluationFailed("the training loss became nan in epoch 2"), "the training loss became nan in epoch 2"),
        (MemoryError("12 GiB"), "out of memory: 12 GiB"),
        (RecursionError("deep"), r"RecursionError: deep \(test_engine_failures.py:\d+\)"),
    ],
)
def test_a_failing_candidate_is_recorded_and_the_search_goes_on(folder: Path, error: BaseException, cause: str) -> None:
    search = Driven(folder, small_problem(trials=4, rungs=False), Tabular(fail_with(error, number=1, at=2)))
    search.run()
    evaluations = search.evaluations()
    assert [each.state for each in evaluations] == ["finished", "failed", "finished", "finished"]
    failed = evaluations[1]
    assert failed.cause is not None
    assert failed.epochs_done == 1
    assert not list((folder / "candidates" / "00001").glob("*"))
    assert re.fullmatch(cause, failed.cause)
    assert 1 not in {point.number for point in search.points()}
    states = {trial.number: trial.state for trial in own_trials(search)}
    assert failed.optuna_trial is not None
    assert states[failed.optuna_trial] == "fail"


class Training:
    """The ways in which real training fails, planted into it."""

    @staticmethod
    def nan(monkeypatch: pytest.MonkeyPatch) -> str:
        weigh = EqualWeights.weigh
        monkeypatch.setattr(EqualWeights, "weigh", lambda self, losses: weigh(self, losses) * float("nan"))
        return "the training loss became nan in epoch 1"

    @staticmethod
    def memory(monkeypatch: pytest.MonkeyPatch) -> str:
        def step(*_: object) -> float:
            raise MemoryError("planted")

        monkeypatch.setattr("dynarch.evaluators.training.TrainingRun._step", step)
        return "out of memory in epoch 1: planted"


@pytest.mark.parametrize("plant", [Training.nan, Training.memory])
def test_real_training_that_fails_is_recorded(folder: Path, plant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(plant)
    cause = plant(monkeypatch)
    search = Driven(folder, small_problem(space=FOUR, trials=2, epochs=1), FromScratch())
    search.run()
    assert [(each.state, each.cause) for each in search.evaluations()] == [("failed", cause)] * 2


def test_a_lost_worker_ends_its_candidate(folder: Path) -> None:
    search = Driven(folder, small_problem(trials=2))
    with search.enter() as engine:
        candidate = engine.propose()
        assert candidate is not None
        assert engine.live == 1
        engine.lost(candidate.number, "its worker died 3 times")
        assert engine.live == 0
        engine.note_told()
    assert [(each.state, each.cause, each.told) for each in search.evaluations()] == [
        ("failed", "its worker died 3 times", True)
    ]


# -- order of the stores --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "words"), [("tell", 0), ("add_extra", 0), ("add_extra", 1)])
def test_the_ledger_commits_before_the_study_is_told(
    folder: Path, method: str, words: int, monkeypatch: pytest.MonkeyPatch, undisturbed: Driven
) -> None:
    """The study dies after so many words; the ledger has the outcome, and the next engine says what is missing."""
    search = Driven(folder, undisturbed.problem)
    with monkeypatch.context() as patch:
        _dies_after(patch, method, words)
        with pytest.raises(StoreError, match="the study is away"):
            search.run()
    ended = [each for each in search.evaluations() if each.terminal]
    assert [(each.state, each.told) for each in ended] == [("finished", False)]
    assert len([point for point in search.points() if point.number == 0]) == 3
    assert search.ended == []  # MLflow comes last
    search.run()
    assert search.record() == undisturbed.record()
    assert trial_values(search) == trial_values(undisturbed)


def test_nobody_is_told_what_the_ledger_could_not_keep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Driven(folder, small_problem(trials=2))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", _dies)
        with pytest.raises(StoreError):
            search.run()
    assert [trial.state for trial in own_trials(search)] == ["running"]


def _dies(*_: object, **__: object) -> None:
    raise StoreError("the study is away")


def _dies_after(patch: pytest.MonkeyPatch, method: str, words: int) -> None:
    spoken, speak = iter(range(words)), getattr(Study, method)

    def dies(*args: object, **options: object) -> None:
        if next(spoken, None) is None:
            _dies()
        speak(*args, **options)

    patch.setattr(Study, method, dies)


def trial_values(search: Driven) -> list[object]:
    """Number, state and candidate of every trial of the study, extra ones included."""
    return [(t.number, t.state, t.candidate, t.extra) for t in search.study().trials()]


def test_telling_again_changes_nothing(undisturbed: Driven) -> None:
    before = trial_values(undisturbed)
    with undisturbed.enter() as engine:
        for evaluation in undisturbed.evaluations():
            points = tuple(point for point in undisturbed.points() if point.number == evaluation.number)
            engine.tell(replace(evaluation, told=False), points)
    assert trial_values(undisturbed) == before


# -- death ----------------------------------------------------------------------------------------------------


def test_a_stop_leaves_the_candidate_open_and_a_resume_ends_it(folder: Path, undisturbed: Driven) -> None:
    search = Driven(folder, undisturbed.problem)
    with pytest.MonkeyPatch.context() as patch, search.enter() as engine:
        patch.setattr("dynarch.evaluators.evaluators.EVALUATORS", (search.evaluator, *EVALUATORS))

        def interrupt(moment: Moment) -> None:
            if (moment.number, moment.when) == (2, "sent"):
                engine.stop("interrupted")

        run_inline(engine, search.assignment(engine), hook=interrupt)
        assert engine.stopped
        assert engine.exhausted
        assert engine.propose() is None
        assert engine.stop_reason == "interrupted"
        assert engine.live == 0
    assert [each.state for each in search.evaluations()] == ["finished", "finished", "running"]
    search.run()
    assert search.record() == undisturbed.record()
