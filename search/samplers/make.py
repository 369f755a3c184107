"""The samplers by name."""

from __future__ import annotations

import warnings
from typing import Final

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
            return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=12, seed=seed)
    if name == "random":
        return RandomSampler(seed=seed)
    raise UnknownNameError("search.sampler", name, ("tpe", "nsga2", "random"))
