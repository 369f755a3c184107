"""The study after the end of a search: every member of the front is there, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from dynarch.search.proposals import numbers
from dynarch.search.shown_front import tell_front
from dynarch.tests.inline_searches import ID, Driven, quick_folder, small_problem


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def told(folder: Path) -> list[tuple[float, ...]]:
    study = optuna.load_study(study_name=ID, storage=f"sqlite:///{folder / 'study.db'}")
    return sorted(tuple(trial.values) for trial in study.trials if trial.values)


def test_a_dashboard_sees_every_member_of_the_front(folder: Path) -> None:
    """A candidate of three points is told at its own level and at a few others: made-up levels leave one out."""
    driven = Driven(folder, small_problem(trials=6, rungs=False))
    driven.run()
    url, problem = f"sqlite:///{folder / 'study.db'}", driven.problem
    with driven.ledger() as ledger:
        every = [(point.number, point.index) for point in ledger.points(ID)]
        ledger.mark_front(ID, every)
        members = sorted(problem.values(numbers(point)) for point in ledger.points(ID, front_only=True))
        tell_front(problem, ID, ledger=ledger, study_url=url)
        after = told(folder)
        assert set(members) == set(after)
        tell_front(problem, ID, ledger=ledger, study_url=url)
    assert told(folder) == after
    study = optuna.load_study(study_name=ID, storage=url)
    assert study.metric_names == [reference.key for reference in problem.references]
