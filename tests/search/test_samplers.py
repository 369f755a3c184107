"""The study: one trial a question, entered again at any moment, and no library error comes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest

from dynarch.search.problem import SAMPLERS
from dynarch.search.samplers import LEVEL, Study, make_sampler
from dynarch.spaces.errors import StoreError, UnknownNameError
from dynarch.spaces.scope import Scalar, Scope
from dynarch.tests.inline_searches import SPACE, quick_folder, small_data


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def study_of(folder: Path, *, sampler: str = "tpe", seed: int = 0) -> Study:
    return Study(
        f"sqlite:///{folder / 'study.db'}", "s", directions=("maximize", "minimize"), sampler=sampler, seed=seed
    )


def raw(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'study.db'}")


def ask(study: Study, question: int, fixed: dict[str, Scalar] | None = None) -> tuple[int, dict[str, Scalar]]:
    """Ask for an architecture and a level; the trial's number and answers."""
    asked = study.ask(question, fixed=fixed)
    scope = Scope(asked.suggester)
    SPACE.sample(scope, small_data().signature)
    scope.number(LEVEL, 0.0, 1.0)
    number = study.begin(asked)
    return number, study.params(number)


def history(study: Study, questions: Sequence[int]) -> list[dict[str, Scalar]]:
    """Ask these questions, and tell each trial values that follow from its number."""
    answers = []
    for question in questions:
        number, params = ask(study, question)
        study.tell(number, [0.1 * (number % 7), 1.0 + number % 3], {})
        answers.append(params)
    return answers


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_was_left_asks_on_as_if_it_had_not_been(folder: Path, sampler: str) -> None:
    """Fifteen questions in one go, and with a new process's study before each one: TPE is past its start-up then."""
    questions = range(1, 16)
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    whole = history(study_of(folder / "one", sampler=sampler), questions)
    pieces = [history(study_of(folder / "two", sampler=sampler), [question])[0] for question in questions]
    assert pieces == whole
    assert len({str(params) for params in whole}) > 5


def test_the_seed_decides(folder: Path) -> None:
    answers = []
    for seed in (0, 1):
        (folder / str(seed)).mkdir()
        answers.append(history(study_of(folder / str(seed), sampler="random", seed=seed), range(1, 6)))
    assert answers[0] != answers[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_its_settings(sampler: str) -> None:
    assert isinstance(make_sampler(sampler, 3), optuna.samplers.BaseSampler)


def test_an_unknown_sampler_is_named() -> None:
    with pytest.raises(UnknownNameError) as caught:
        make_sampler("nsga3", 0)
    assert (
        str(caught.value) == "search.sampler: 'nsga3' is not known; did you mean 'nsga2'? (known: nsga2, random, tpe)"
    )


def test_fixed_answers_are_given(folder: Path) -> None:
    study = study_of(folder)
    fixed: dict[str, Scalar] = {
        "backbone": "residual",
        "residual.width": 4,
        "training.learning_rate": 0.005,
        LEVEL: 0.25,
    }
    _, params = ask(study, 1, fixed)
    assert params.items() >= {name: value for name, value in fixed.items() if name in params}.items()
    assert params["residual.width"] == 4
    assert params[LEVEL] == 0.25


def test_a_trial_goes_from_running_to_one_end_and_stays_there(folder: Path) -> None:
    study = study_of(folder)
    ends = {
        "complete": lambda number: study.tell(number, [0.5, 2.0], {}),
        "pruned": study.prune,
        "fail": study.fail,
    }
    for number, end in enumerate(ends.values()):
        assert ask(study, number + 1)[0] == number
        study.attach(number, 10 + number)
        assert [trial.state for trial in study.trials()][-1] == "running"
        end(number)
    before = [(t.number, t.state, t.values) for t in raw(folder).trials]
    for number in range(3):
        study.tell(number, [0.9, 1.0], {})
        study.prune(number)
        study.fail(number)
    assert [(t.number, t.state, t.values) for t in raw(folder).trials] == before
    assert [(t.number, t.state, t.candidate, t.extra) for t in study.trials()] == [
        (number, state, 10 + number, False) for number, state in enumerate(ends)
    ]
    assert raw(folder).trials[0].values == [0.5, 2.0]


def test_constraints_are_kept_with_the_trial(folder: Path) -> None:
    """Optuna counts a value of at most 0 as kept, so a broken bound keeps a trial off its best trials."""
    study = study_of(folder)
    for question, excess in ((1, 0.5), (2, -0.5)):
        number, _ = ask(study, question)
        study.tell(number, [0.5, 2.0], {"0:latency_ms": excess})
    assert [trial.number for trial in raw(folder).best_trials] == [1]


def test_extra_points_are_completed_trials_at_their_own_level(folder: Path) -> None:
    study = study_of(folder)
    number, params = ask(study, 1)
    study.attach(number, 7)
    study.tell(number, [0.5, 2.0], {})
    study.add_extra(number, level=0.125, values=[0.4, 1.0], constraints={"0:macs": -1.0})
    extra = raw(folder).trials[1]
    assert extra.params == {**params, LEVEL: 0.125}
    assert extra.values == [0.4, 1.0]
    assert [(t.state, t.candidate, t.extra) for t in study.trials()] == [("complete", 7, False), ("complete", 7, True)]


def test_entering_again_keeps_what_is_there(folder: Path) -> None:
    history(study_of(folder), [1, 2])
    assert [trial.state for trial in study_of(folder).trials()] == ["complete", "complete"]


def test_a_database_that_cannot_be_opened_is_an_error_of_ours(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"unable to open database file.*; check that it can be written") as caught:
        study_of(folder / "absent")
    assert "\n" not in str(caught.value)


def test_a_database_that_is_gone_is_an_error_of_ours_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(folder)
    number, _ = ask(study, 1)

    def away(*_: object, **__: object) -> None:
        raise optuna.exceptions.StorageInternalError("no connection\nmore")

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", away)
    with pytest.raises(StoreError) as caught:
        study.tell(number, [0.5, 1.0], {})
    assert str(caught.value) == "the study's database failed (no connection); check that it can be written"


def test_what_dashboards_need_is_told(folder: Path) -> None:
    study = study_of(folder)
    number, _ = ask(study, 1)
    study.attach(number, 7)
    study.tell(number, [0.5, 2.0], {})
    study.add_extra(number, level=0.25, values=[0.25, 1.0], constraints={})
    assert study.told(7) == {(0.5, 2.0), (0.25, 1.0)}
    assert study.told(8) == set()
    for _ in range(2):
        study.name_objectives(["accuracy", "latency_ms@cpu"])
        assert raw(folder).metric_names == ["accuracy", "latency_ms@cpu"]


def test_the_answer_that_decides_is_the_one_that_matters(folder: Path) -> None:
    """Accuracy follows the width alone, latency the learning rate alone."""
    study = study_of(folder, sampler="random")
    assert study.importances(0) == {}  # nobody has answered yet
    for question in range(1, 41):
        number, params = ask(study, question)
        rate, width = params["training.learning_rate"], params["residual.width"]
        study.tell(number, [0.9 if width == 4 else 0.1, 1.0 if rate == 0.02 else 9.0], {})
    accuracy, latency = study.importances(0), study.importances(1)
    assert sum(accuracy.values()) == pytest.approx(1)
    assert max(accuracy, key=lambda name: accuracy[name]) == "residual.width"
    assert max(latency, key=lambda name: latency[name]) == "training.learning_rate"
