"""The evaluator that trains nothing: the same made-up point for the same architecture, and no files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynarch import Architecture
from dynarch.evaluators.evaluator import Task
from dynarch.evaluators.evaluators import evaluator
from dynarch.evaluators.nothing import made_up
from dynarch.evaluators.splits import visible_splits
from dynarch.tests.inline_searches import FOUR, book_of, small_data, small_problem


@pytest.fixture
def architectures() -> list[Architecture]:
    return [made for _, made in FOUR.enumerate(small_data().signature)]


def test_a_session_counts_epochs_and_leaves_nothing(tmp_path: Path, architectures: list[Architecture]) -> None:
    problem, member = small_problem(space=FOUR), evaluator("nothing")
    assert not member.leaves_networks
    task = Task(architectures[0], seed=0, epochs=2, folder=tmp_path / "a", decisions=(), max_points=1)
    session = member.start(task, visible_splits(problem.data, problem.splits, 0), book_of(FOUR))
    assert (session.epochs_done, session.history(), session.prepare()) == (0, (), False)
    assert session.train() == {"epoch": 1}
    (read,) = session.read().points
    outcome = session.finish()
    assert outcome.points == (read,)
    assert outcome.certified == (read.metrics["accuracy"],)
    assert list(tmp_path.iterdir()) == []


def test_points_differ_and_stay(architectures: list[Architecture]) -> None:
    points = [made_up(each.id, ("cpu", "gpu")) for each in architectures]
    assert len({point.metrics["accuracy"] for point in points}) == len(architectures)
    assert [made_up(each.id, ("cpu", "gpu")) for each in architectures] == points
    for point in points:
        assert 0.5 <= point.metrics["accuracy"] < 1
        assert 1 <= point.metrics["latency_ms@cpu"] == point.metrics["latency_worst_ms@gpu"] < 5
