"""Draft: a trial that is asked in memory, so that the database hears of it once and not once a parameter."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ...spaces.scope import Scalar
from .groups import Groups


@final
class Draft:
    """Answers questions as an Optuna trial does.

    Args:
        study: whom the sampler believes to serve.
        sampler: made for this trial.
        trials: what the sampler is shown, by number.
        number: of this trial.
        fixed: answers that are given beforehand.
    """

    def __init__(
        self,
        study: optuna.Study,
        sampler: BaseSampler,
        *,
        trials: Sequence[FrozenTrial],
        number: int,
        fixed: Mapping[str, Scalar],
    ) -> None:
        self._sampler = sampler
        self._fixed = dict(fixed)
        self._view = cast(optuna.Study, _View(study, trials, self))
        self._space: dict[str, BaseDistribution] = {}
        self._relative: dict[str, Any] | None = None
        self.system_attrs: dict[str, Any] = {"fixed_params": self._fixed} if fixed else {}
        self._trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs=self.system_attrs,
            intermediate_values={},
            trial_id=-1,
        )
        sampler.before_trial(self._view, self._trial)
        self._groups = Groups(sampler, self._view) if isinstance(sampler, TPESampler) else None

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        return cast(Scalar, self._suggest(name, CategoricalDistribution(tuple(choices))))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self._suggest(name, IntDistribution(low, high)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log)))

    def template(self, user_attrs: Mapping[str, Any]) -> FrozenTrial:
        """The trial as it shall be kept: running, with all that was answered."""
        return create_trial(
            state=TrialState.RUNNING,
            params=self._trial.params,
            distributions=self._trial.distributions,
            user_attrs=dict(user_attrs),
            system_attrs=dict(self.system_attrs),
        )

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._trial.params:
            return self._trial.params[name]
        if name in self._fixed:
            value: Any = self._fixed[name]
        elif distribution.single():
            value = distribution.to_external_repr(_only(distribution))
        elif self._groups is not None and name in self._groups:
            value = self._groups.answer(name)
        elif self._groups is None and name in self._drawn_together():
            value = self._drawn_together()[name]
        else:
            value = self._sampler.sample_independent(self._view, self._trial, name, distribution)
        value = distribution.to_external_repr(distribution.to_internal_repr(value))
        self._trial.params[name] = value
        self._trial.distributions[name] = distribution
        return value

    def _drawn_together(self) -> dict[str, Any]:
        if self._relative is None:
            self._space = self._sampler.infer_relative_search_space(self._view, self._trial)
            self._relative = self._sampler.sample_relative(self._view, self._trial, self._space)
        return self._relative


def _only(distribution: BaseDistribution) -> float:
    """The internal form of the one value that there is."""
    if isinstance(distribution, CategoricalDistribution):
        return 0.0
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return float(distribution.low)


@final
class _View:
    """A study as a sampler sees it: with these trials, and with a trial at hand that no database knows yet."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial], draft: Draft) -> None:
        self._study = study
        self._trials = list(trials)
        self._storage = _Notes(study._storage, draft)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, deepcopy: bool = True, states: Any = None, use_cache: bool = False) -> list[FrozenTrial]:
        return self._trials if states is None else [trial for trial in self._trials if trial.state in states]

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)


@final
class _Notes:
    """A storage, but that what is noted of the trial at hand stays with it."""

    def __init__(self, storage: optuna.storages.BaseStorage, draft: Draft) -> None:
        self._storage = storage
        self._draft = draft

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._draft.system_attrs[key] = value
