"""Questions are answered in memory, and from a bounded history: as Optuna would answer them from a short one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from dynarch.search.samplers import LEVEL, Study
from dynarch.search.samplers import history as module
from dynarch.search.samplers.history import History
from dynarch.spaces.scope import Scalar, Scope
from dynarch.tests.inline_searches import SPACE, quick_folder, small_data

DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")


class Asked(TPESampler):
    """Optuna's own, but that a group is drawn when one of its parameters is asked for: of all groups, in Optuna's
    order, most are not. What a group is, and how it is drawn, is Optuna's."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        super().infer_relative_search_space(study, trial)
        self._answers: dict[str, Any] = {}
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, *rest: Any) -> Any:
        assert self._search_space_group is not None
        for space in self._search_space_group.search_spaces:
            group = {name: each for name, each in sorted(space.items()) if not each.single()}
            if param_name in group and param_name not in self._answers:
                self._answers |= self._sample_relative(study, trial, group)
        if param_name in self._answers:
            return self._answers[param_name]
        return super().sample_independent(study, trial, param_name, *rest)


# As `make_sampler` makes them, but as Optuna has them.
PLAIN: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: Asked(multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=seed),
    "nsga2": lambda seed: NSGAIISampler(population_size=12, seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
FIXED: dict[int, dict[str, Scalar]] = {1: {"residual.width": 4, LEVEL: 1.0}, 20: {"early_exit.after.0": True}}


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def answer(suggester: Any) -> None:
    scope = Scope(suggester)
    SPACE.sample(scope, small_data().signature)
    scope.number(LEVEL, 0.0, 1.0)


def values(number: int) -> list[float]:
    return [0.1 * (number * 7 % 10), 1.0 + number * 5 % 8]


def by_optuna(folder: Path, sampler: str, count: int) -> list[dict[str, Any]]:
    """Ask and tell, two trials under way at a time; every fifth is pruned, every seventh has failed."""
    study = optuna.create_study(storage=f"sqlite:///{folder / 'plain.db'}", directions=DIRECTIONS)
    waiting: list[optuna.Trial] = []
    for question in range(1, count + 1):
        if question in FIXED:
            study.enqueue_trial(FIXED[question])
        study.sampler = PLAIN[sampler](question)
        trial = study.ask()
        answer(trial)
        waiting.append(trial)
        if len(waiting) == 2:
            told = waiting.pop(0)
            if told.number % 5 == 4:
                study.tell(told, state=TrialState.PRUNED)
            elif told.number % 7 == 6:
                study.tell(told, state=TrialState.FAIL)
            else:
                study.tell(told, values(told.number))
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def by_us(folder: Path, sampler: str, count: int) -> list[dict[str, Any]]:
    study = Study(f"sqlite:///{folder / 'study.db'}", "s", directions=DIRECTIONS, sampler=sampler, seed=0)
    waiting: list[int] = []
    for question in range(1, count + 1):
        asked = study.ask(question, fixed=FIXED.get(question))
        answer(asked.suggester)
        waiting.append(study.begin(asked))
        if len(waiting) == 2:
            number = waiting.pop(0)
            if number % 5 == 4:
                study.prune(number)
            elif number % 7 == 6:
                study.fail(number)
            else:
                study.tell(number, values(number), {})
    return [study.params(number) for number in range(count)]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", PLAIN)
def test_answers_are_those_of_optuna(folder: Path, sampler: str) -> None:
    """The same trials in the same states give the same answers, whether or not a database is asked for each of them."""
    assert by_us(folder, sampler, 36) == by_optuna(folder, sampler, 36)


def test_a_question_without_a_trial_leaves_nothing(folder: Path) -> None:
    study = Study(f"sqlite:///{folder / 'study.db'}", "s", directions=DIRECTIONS, sampler="random", seed=0)
    answer(study.ask(1).suggester)
    assert list(study.trials()) == []
    again = study.ask(1)
    answer(again.suggester)
    assert study.begin(again) == 0
    assert [trial.state for trial in study.trials()] == ["running"]


# -- how much of it is shown ----------------------------------------------------------------------------------


def made(number: int, state: TrialState = TrialState.COMPLETE, excess: float = 0.0) -> FrozenTrial:
    trial = create_trial(
        params={"x": number / 1000},
        distributions={"x": FloatDistribution(0, 1)},
        values=values(number) if state == TrialState.COMPLETE else None,
        constraints={"c": excess} if state == TrialState.COMPLETE else None,
        state=state,
    )
    trial.number = number
    return trial


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty are shown, six of them the best, looked for after every fifth."""
    for name, value in (("SHOWN", 20), ("BEST", 6), ("STEP", 5)):
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("small")
def test_everything_is_shown_as_long_as_that_is_little() -> None:
    history = History(DIRECTIONS)
    for number in range(20):
        history.put(made(number))
        assert [trial.number for trial in history.shown()] == list(range(number + 1))


@pytest.mark.usefixtures("small")
def test_then_the_best_the_newest_and_what_runs() -> None:
    """Values repeat after 40 trials; those on the front of accuracy up, latency down are known by calculation."""
    history = History(DIRECTIONS)
    for number in range(100):
        history.put(made(number, TrialState.RUNNING if number == 3 else TrialState.COMPLETE))
    shown = [trial.number for trial in history.shown()]
    assert shown == sorted(shown)
    assert len(shown) == 21
    assert 3 in shown
    assert set(range(100 - 14, 100)) <= set(shown)
    points = {number: values(number) for number in range(100) if number != 3}
    front = [
        n for n, (a, b) in points.items() if not any(c >= a and d <= b and (c, d) != (a, b) for c, d in points.values())
    ]
    assert set(front[-6:]) <= set(shown)


@pytest.mark.usefixtures("small")
def test_what_is_shown_does_not_depend_on_the_order_of_ends() -> None:
    """A resumed search reads the trials by number, an undisturbed one saw them end in some order."""
    resumed, undisturbed = History(DIRECTIONS), History(DIRECTIONS)
    resumed.replace(made(number) for number in range(60))
    for number in range(60):
        undisturbed.put(made(number, TrialState.RUNNING))
        if number >= 7:
            undisturbed.put(made(number - 7))
            undisturbed.shown()
    for number in reversed(range(53, 60)):
        undisturbed.put(made(number))
    undisturbed.put(made(2))
    assert [t.number for t in undisturbed.shown()] == [t.number for t in resumed.shown()]


@pytest.mark.usefixtures("small")
def test_of_those_that_break_a_bound_the_least_bad_are_shown() -> None:
    history = History(DIRECTIONS)
    history.replace(made(number, excess=50.0 - number % 25) for number in range(100))
    shown = {trial.number for trial in history.shown()}
    assert {24, 49, 74} <= shown  # their excess is 26, the least there is


def test_extras_are_counted_by_candidate() -> None:
    history = History(DIRECTIONS)
    for number, candidate in enumerate((1, 1, 2)):
        trial = made(number)
        trial.user_attrs = {"extra": True, "candidate": candidate}
        history.put(trial)
        history.put(trial)
    assert [history.extras(candidate) for candidate in range(4)] == [0, 2, 1, 0]
