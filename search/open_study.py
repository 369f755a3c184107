"""The study of a search, opened as all who look at it or write it do."""

from __future__ import annotations

from .problem import Problem
from .samplers import Study


def open_study(problem: Problem, url: str, search_id: str) -> Study:
    """The study of that search in the database at `url`, made if there is none.

    Raises:
        StoreError: if the database cannot be used.
    """
    strategy = problem.strategy
    return Study(url, search_id, directions=problem.directions, sampler=strategy.sampler, seed=strategy.seed)
