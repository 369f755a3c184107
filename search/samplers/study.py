"""The study: which candidate to try next, and what became of those that were tried.

One Optuna trial stands for one candidate; its parameters are the space's answers and the operating
level at which the candidate's values were told. The candidate's points at other levels are added as
completed trials marked `extra`, so that a sampler learns from all of them.
"""

from __future__ import annotations

import copy
import datetime
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ...hardware.database import DATABASE_ERRORS, guest_options
from ...spaces.errors import StoreError
from ...spaces.scope import Scalar, Suggester
from .draft import Draft
from .history import CANDIDATE, EXTRA, History
from .make import BOUNDED, make_sampler

LEVEL = "level"
BEST_TRIALS = 5  # fewer say nothing about what made them so
ORPHAN = "orphan"  # attribute of a trial


@final
@dataclass(frozen=True)
class Asked:
    """A question that waits for its answers; `Study.begin` makes it a trial."""

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
    """An Optuna study that can be left and entered again at any moment, by one writer at a time.

    The sampler is made anew for every question, seeded by the search's seed and the number of the question, so
    a search that was interrupted asks on as if it had not been. A question becomes a trial when all its answers
    are there, in one transaction; what the study holds is also kept in memory.

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
            self._history = History(directions)
            self._history.replace(self._study.get_trials(deepcopy=False))

    def ask(self, question: int, *, fixed: Mapping[str, Scalar] | None = None) -> Asked:
        """Begin a question; `fixed` answers some of it beforehand.

        Args:
            question: its number in the search, which seeds the sampler.
        """
        with _errors():
            draft = Draft(
                self._study,
                make_sampler(self._sampler, (self._seed * 1_000_003 + question) % 2**31),
                trials=self._history.shown() if self._sampler in BOUNDED else self._history.all(),
                number=len(self._history),
                fixed=fixed or {},
            )
        return Asked(_Suggester(draft))

    def begin(self, asked: Asked, *, candidate: int | None = None) -> int:
        """Keep a question and its answers as a trial that runs; its number.

        Args:
            asked: the question.
            candidate: which one it stands for, if that is known already.
        """
        assert isinstance(asked.suggester, _Suggester)
        with _errors():
            return self._create(asked.suggester.template({} if candidate is None else {CANDIDATE: candidate}))

    def disown(self) -> int:
        """Fail what was queued and never begun, as its asker died in between; how many there were."""
        count = 0
        with _errors():
            while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                number = self._study.ask().number
                self._history.replace(self._study.get_trials(deepcopy=False))
                self.orphan(number)
                count += 1
        return count

    def orphan(self, number: int) -> None:
        """End a trial that came to nothing; its question is asked again."""
        with _errors():
            if self._state(number) == TrialState.RUNNING:
                self._study._storage.set_trial_user_attr(self._place(number), ORPHAN, True)
        self._end(number, TrialState.FAIL)

    def attach(self, number: int, candidate: int) -> None:
        """Say which candidate a trial stands for."""
        with _errors():
            self._study._storage.set_trial_user_attr(self._place(number), CANDIDATE, candidate)
            self._history[number].user_attrs[CANDIDATE] = candidate

    def tell(self, number: int, values: Sequence[float], constraints: Mapping[str, float]) -> None:
        """Complete a trial; constraints are kept at zero or below. A finished trial is left as it is."""
        with _errors():
            if self._state(number) != TrialState.RUNNING:
                return
            if constraints:
                trial = Trial(self._study, self._place(number))
                for name, excess in constraints.items():
                    trial.set_constraint(name, excess)
                self._history.put(self._study._storage.get_trial(self._place(number)))
            self._become(number, TrialState.COMPLETE, list(values))

    def prune(self, number: int) -> None:
        """End a trial whose candidate was stopped early; samplers take it for a bad one."""
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """End a trial whose candidate failed or was refused; samplers ignore it."""
        self._end(number, TrialState.FAIL)

    def add_extra(
        self, number: int, *, level: float, values: Sequence[float], constraints: Mapping[str, float]
    ) -> None:
        """Add the point that the candidate of trial `number` has at another level."""
        origin = self._history[number]
        if LEVEL not in origin.params:
            return
        with _errors():
            extra = create_trial(
                params={**origin.params, LEVEL: level},
                distributions=origin.distributions,
                values=list(values),
                constraints=dict(constraints) or None,
                user_attrs={EXTRA: True, CANDIDATE: origin.user_attrs.get(CANDIDATE)},
            )
            self._create(extra)

    def extras(self, candidate: int) -> int:
        """How many extra points of a candidate were added."""
        return self._history.extras(candidate)

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
        return dict(self._history[number].params)

    def trials(self) -> Iterator[TrialRecord]:
        """All trials, as the database has them now."""
        with _errors():
            self._history.replace(self._study.get_trials(deepcopy=False))
        for trial in self._history.all():
            yield _record(trial)

    def _end(self, number: int, state: TrialState) -> None:
        with _errors():
            if self._state(number) == TrialState.RUNNING:
                self._become(number, state)

    def _create(self, template: FrozenTrial) -> int:
        """Write a new trial, and note it without reading it again; its number."""
        storage: Any = self._study._storage
        made = copy.copy(template)
        made._trial_id = storage.create_new_trial(self._study._study_id, template_trial=template)
        _, made.number = storage._trial_id_to_study_id_and_number[made._trial_id]
        if made.number != len(self._history):  # Optuna writes again where a commit may have taken place
            raise StoreError("the study holds a trial that nobody asked for; begin again from the ledger")
        self._history.put(made)
        return made.number

    def _become(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        """Write how a trial ended, and note it without reading it again; samplers of ours want to hear of no end."""
        self._study._storage.set_trial_state_values(self._place(number), state, values)
        ended = copy.copy(self._history[number])
        ended.state, ended.values, ended.datetime_complete = state, values, datetime.datetime.now()
        self._history.put(ended)

    def _state(self, number: int) -> TrialState:
        return self._history[number].state

    def _place(self, number: int) -> int:
        return self._history[number]._trial_id


@final
class _Suggester:
    """A draft behind the few methods that a space uses."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        with _errors():
            return self._draft.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        with _errors():
            return self._draft.suggest_int(name, low, high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        with _errors():
            return self._draft.suggest_float(name, low, high, log=log)

    def template(self, user_attrs: Mapping[str, Any]) -> FrozenTrial:
        return self._draft.template(user_attrs)


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
