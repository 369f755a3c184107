"""The samplers by name."""

from __future__ import annotations

import warnings
from typing import Any, Final, final

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from ...spaces.errors import UnknownNameError

BOUNDED: Final = ("tpe",)  # those whose questions grow dearer with every trial that they are shown


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
            sampler = TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=seed)
            assert sampler._group_decomposed_search_space is not None
            groups: Any = _Groups(sampler._group_decomposed_search_space._search_space)
            sampler._group_decomposed_search_space._search_space = groups
            return sampler
    if name == "nsga2":
        return NSGAIISampler(population_size=12, seed=seed)
    if name == "random":
        return RandomSampler(seed=seed)
    raise UnknownNameError("search.sampler", name, ("tpe", "nsga2", "random"))


@final
class _Groups:
    """Optuna's decomposition of a conditional space, which is told each set of parameters once.

    A set that it was told splits no group any more, so telling it again, as Optuna does for every trial, changes
    nothing and takes most of the time of a question.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._told: set[frozenset[str]] = set()

    @property
    def search_spaces(self) -> list[dict[str, BaseDistribution]]:
        spaces: list[dict[str, BaseDistribution]] = self._inner.search_spaces
        return spaces

    def add_distributions(self, distributions: dict[str, BaseDistribution]) -> None:
        names = frozenset(distributions)
        if names not in self._told:
            self._told.add(names)
            self._inner.add_distributions(distributions)
