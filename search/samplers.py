"""Samplers: which candidate to try next. The only file that knows Optuna.

One Optuna trial stands for one candidate; its parameters are the space's answers and the operating
level at which the candidate's values were told. The candidate's points at other levels are added as
completed trials marked `extra`, so that a sampler learns from all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, final

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ..hardware.database import DATABASE_ERRORS, guest_options
from ..spaces.errors import StoreError, UnknownNameError
from ..spaces.scope import Scalar, Suggester

LEVEL = "level"
BEST_TRIALS = 5  # fewer say nothing about what made them so
CANDIDATE, EXTRA, ORPHAN = "candidate", "extra", "orphan"  # attributes of a trial


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name, in the settings that suit conditional spaces and small budgets.

    Multivariate, grouped TPE models the parameters of every branch that was seen together; the default
    population of NSGA-II would leave no generation but the first below 200 trials.

    Raises:
        UnknownNameError: if there is none.

    Source: Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator", JAIR 2022; Deb et al., "A Fast and
        Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEC 2002.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=12, seed=seed)
    if name == "random":
        return RandomSampler(seed=seed)
    raise UnknownNameError("search.sampler", name, ("tpe", "nsga2", "random"))


@final
@dataclass(frozen=True)
class Asked:
    """A trial that waits for its values."""

    number: int
    suggester: Suggester


@final
@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study keeps it.

    Args:
        state: "waiting", "running", "complete", "pruned" or "fail".
        candidate: which one it stands for.
        extra: whether it is another point of a candidate that has a trial.
        orphan: whether it was asked for and came to nothing, as somebody died; it does not count as a question.
    """

    number: int
    state: str
    candidate: int | None
    extra: bool
    orphan: bool = False


@final
class Study:
    """An Optuna study that can be left and entered again at any moment.

    The sampler is made anew for every question, seeded by the search's seed and the number of the question, so
    a search that was interrupted asks on as if it had not been.

    Args:
        url: database of the study.
        name: of the study.
        directions: "maximize" or "minimize" for each objective.
        sampler: name of the sampler.
        seed: of the search.

    Raises:
        StoreError: if the database cannot be used.
    """

    def __init__(self, url: str, name: str, *, directions: Sequence[str], sampler: str, seed: int) -> None:
        self._sampler = sampler
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _errors():
            self._study = optuna.create_study(
                storage=RDBStorage(url, engine_kwargs=guest_options(url)),
                study_name=name,
                directions=[StudyDirection[direction.upper()] for direction in directions],
                sampler=make_sampler(sampler, seed),
                load_if_exists=True,
            )

    def ask(self, question: int, *, fixed: Mapping[str, Scalar] | None = None, candidate: int | None = None) -> Asked:
        """Begin a trial; `fixed` answers some of its questions beforehand.

        Args:
            question: its number in the search, which seeds the sampler.
            fixed: answers by name.
            candidate: which one it stands for, if that is known already.
        """
        with _errors():
            if fixed is not None:
                marks = None if candidate is None else {CANDIDATE: candidate}
                self._study.enqueue_trial(dict(fixed), user_attrs=marks)
            self._study.sampler = make_sampler(self._sampler, (self._seed * 1_000_003 + question) % 2**31)
            trial = self._study.ask()
            return Asked(trial.number, _Suggester(trial))

    def disown(self) -> int:
        """Fail what was queued and never begun, as its asker died in between; how many there were."""
        count = 0
        with _errors():
            while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self.orphan(self._study.ask().number)
                count += 1
        return count

    def orphan(self, number: int) -> None:
        """End a trial that came to nothing; its question is asked again."""
        with _errors():
            if self._state(number) == TrialState.RUNNING:
                self._trial(number).set_user_attr(ORPHAN, True)
                self._study.tell(number, state=TrialState.FAIL)

    def attach(self, number: int, candidate: int) -> None:
        """Say which candidate a trial stands for."""
        with _errors():
            self._trial(number).set_user_attr(CANDIDATE, candidate)

    def tell(self, number: int, values: Sequence[float], constraints: Mapping[str, float]) -> None:
        """Complete a trial; constraints are kept at zero or below. A finished trial is left as it is."""
        with _errors():
            if self._state(number) != TrialState.RUNNING:
                return
            trial = self._trial(number)
            for name, excess in constraints.items():
                trial.set_constraint(name, excess)
            self._study.tell(number, list(values))

    def prune(self, number: int) -> None:
        """End a trial whose candidate was stopped early; samplers take it for a bad one."""
        with _errors():
            if self._state(number) == TrialState.RUNNING:
                self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """End a trial whose candidate failed or was refused; samplers ignore it."""
        with _errors():
            if self._state(number) == TrialState.RUNNING:
                self._study.tell(number, state=TrialState.FAIL)

    def add_extra(
        self, number: int, *, level: float, values: Sequence[float], constraints: Mapping[str, float]
    ) -> None:
        """Add the point that the candidate of trial `number` has at another level."""
        with _errors():
            origin = self._study.trials[number]
            if LEVEL not in origin.params:
                return
            self._study.add_trial(
                create_trial(
                    params={**origin.params, LEVEL: level},
                    distributions=origin.distributions,
                    values=list(values),
                    constraints=dict(constraints) or None,
                    user_attrs={EXTRA: True, CANDIDATE: origin.user_attrs.get(CANDIDATE)},
                )
            )

    def told(self, candidate: int) -> set[tuple[float, ...]]:
        """The values of all complete trials that stand for a candidate."""
        with _errors():
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            return {tuple(each.values) for each in trials if each.user_attrs.get(CANDIDATE) == candidate}

    def importances(self, objective: int) -> dict[str, float]:
        """How much each answer matters for being among the best in an objective; they add up to 1.

        Answers that were only asked for under a condition are compared among those who were asked. Empty if too few
        trials are complete for the best of them to say anything.

        Source: Watanabe, Bansal, Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
            Subspaces", IJCAI 2023.
        """
        with _errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            complete = len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
            if complete < 2 * BEST_TRIALS:
                return {}
            sign = 1.0 if self._study.directions[objective] == StudyDirection.MINIMIZE else -1.0
            found = get_param_importances(
                self._study,
                evaluator=PedAnovaImportanceEvaluator(target_quantile=max(0.1, BEST_TRIALS / complete)),
                target=lambda trial: sign * trial.values[objective],
            )
            return {name: float(share) for name, share in found.items()}

    def name_objectives(self, names: Sequence[str]) -> None:
        """What dashboards call the values."""
        with _errors():
            if self._study.metric_names != list(names):
                self._study.set_metric_names(list(names))

    def params(self, number: int) -> dict[str, Any]:
        """The answers of a trial."""
        with _errors():
            return dict(self._study.trials[number].params)

    def trials(self) -> Iterator[TrialRecord]:
        """All trials."""
        with _errors():
            for trial in self._study.get_trials(deepcopy=False):
                yield _record(trial)

    def _state(self, number: int) -> TrialState:
        return self._study.get_trials(deepcopy=False)[number].state

    def _trial(self, number: int) -> Trial:
        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)


@final
class _Suggester:
    """An Optuna trial behind the few methods that a space uses."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        with _errors():
            return cast(Scalar, self._trial.suggest_categorical(name, list(choices)))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        with _errors():
            return self._trial.suggest_int(name, low, high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        with _errors():
            return self._trial.suggest_float(name, low, high, log=log)


def _record(trial: FrozenTrial) -> TrialRecord:
    attributes = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        candidate=attributes.get(CANDIDATE),
        extra=bool(attributes.get(EXTRA)),
        orphan=bool(attributes.get(ORPHAN)),
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Library errors end here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    except (OptunaError, *DATABASE_ERRORS) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"the study's database failed ({reason}); check that it can be written") from error
