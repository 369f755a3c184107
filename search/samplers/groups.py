"""Groups: TPE's answers, drawn for one group of parameters at a time, when one of them is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma_multiobjective
from optuna.trial import FrozenTrial, TrialState

Parts = tuple[list[FrozenTrial], list[FrozenTrial]]


@final
class Groups:
    """What a grouped TPE sampler answers one trial.

    A group is a set of parameters that were always asked together. Optuna draws every group that any trial had, most
    of which a conditional space does not ask for, and divides the trials into good and bad anew for each of them.
    Here groups that nobody asks for are not drawn, and the trials are divided once; an answer is drawn as Optuna
    draws it.

    Args:
        sampler: multivariate, made for this trial.
        study: as the sampler sees it.
    """

    def __init__(self, sampler: TPESampler, study: optuna.Study) -> None:
        self._sampler = sampler
        self._study = study
        self._drawn: dict[str, Any] = {}
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        finished = study._get_trials(deepcopy=False, states=states)
        enough = len(finished) >= sampler._n_startup_trials
        self._groups = groups_of(finished) if enough else {}
        self._parts: Parts | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def answer(self, name: str) -> Any:
        """The answer to a parameter that is in a group."""
        if name not in self._drawn:
            self._drawn |= self._draw(self._groups[name])
        return self._drawn[name]

    def _draw(self, group: dict[str, BaseDistribution]) -> dict[str, Any]:
        sampler, study = self._sampler, self._study
        some = next(iter(group))
        below, above = ([trial for trial in part if some in trial.distributions] for part in self._divided())
        good = sampler._build_parzen_estimator(study, group, below, handle_below=True)
        bad = sampler._build_parzen_estimator(study, group, above, handle_below=False)
        samples = good.sample(sampler._rng.rng, sampler._n_ei_candidates)
        best = TPESampler._compare(samples, sampler._compute_acquisition_func(samples, good, bad))
        return {name: distribution.to_external_repr(best[name]) for name, distribution in group.items()}

    def _divided(self) -> Parts:
        if self._parts is None:
            states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)  # those that run count as bad
            trials = self._study._get_trials(deepcopy=False, states=states)
            finished = sum(trial.state != TrialState.RUNNING for trial in trials)
            self._parts = _split_trials(self._study, trials, default_gamma_multiobjective(finished))
        return self._parts


def groups_of(trials: Iterable[FrozenTrial]) -> dict[str, dict[str, BaseDistribution]]:
    """Each parameter's group, by name; what has a single value is in none.

    Two parameters are in one group if every trial asked both of them or neither.

    Source: Optuna's `_SearchSpaceGroup`, which refines a partition trial by trial.
    """
    sets: dict[frozenset[str], dict[str, BaseDistribution]] = {}
    for trial in trials:
        sets.setdefault(frozenset(trial.distributions), trial.distributions)
    seen_in: dict[str, list[int]] = {}
    distributions: dict[str, BaseDistribution] = {}
    for index, each in enumerate(sets.values()):
        for name, distribution in each.items():
            seen_in.setdefault(name, []).append(index)
            distributions.setdefault(name, distribution)
    groups: dict[tuple[int, ...], dict[str, BaseDistribution]] = {}
    for name in sorted(seen_in):
        if not distributions[name].single():
            groups.setdefault(tuple(seen_in[name]), {})[name] = distributions[name]
    return {name: group for group in groups.values() for name in group}
