"""Promises about the points of a front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynarch.evaluators.score_table import ScoreTable, ScoreTables
from dynarch.search.front_point import FrontPoint
from dynarch.search.guaranteed import guaranteed
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import DataError, UnknownNameError
from dynarch.spaces.policy import Policy

MakePoint = Callable[[int, int, float], FrontPoint]
ARCHITECTURE = Architecture.of(backbone={"name": "residual", "width": 4, "depths": [1]}, families={}, training={})


@pytest.fixture
def make(tmp_path: Path) -> MakePoint:
    """A point of a candidate whose exit is wrong for the inputs that are surest: those above 1 - `wrong`."""
    n, wrong = 1000, 0.1

    def point(number: int, index: int, threshold: float) -> FrontPoint:
        folder = tmp_path / f"{number:05}"
        folder.mkdir(exist_ok=True)
        sure = np.linspace(0, 1, n, dtype=np.float32)[:, None]
        early = np.where(sure > 1 - wrong, 0, 1)
        table = ScoreTable(
            {"max_prob": sure}, np.hstack([early, np.ones((n, 1), dtype=np.int64)]), np.ones(n, np.int64)
        )
        ScoreTables((table,)).save(folder / "certify.npz")
        tune = {"accuracy": 1 - 0.01 * index, "latency_ms@cpu": 3.0 - index}
        policy = Policy("max_prob", (threshold,))
        return FrontPoint(f"{number}.{index}", ARCHITECTURE, policy, tune, 1.0, None, None, folder)

    return point


def test_points_that_lose_too_much_are_left_out(make: MakePoint) -> None:
    """Above 0.99 leave 1 % of the inputs, all to their loss; above 0.95 5 %, and above 0 the 10 % that are wrong."""
    points = [make(0, 2, 0.0), make(0, 1, 0.95), make(0, 0, 0.99)]
    held = guaranteed(points, max_drop=0.03, confidence=0.95, method="learn_then_test")
    assert [point.label for point in held] == ["0.0"]
    held = guaranteed(points, max_drop=0.08, confidence=0.95, method="learn_then_test")
    assert [point.label for point in held] == ["0.1", "0.0"]
    held = guaranteed(points, max_drop=0.06, confidence=0.95, method="conformal")
    assert [point.label for point in held] == ["0.1", "0.0"]


def test_candidates_share_the_doubt(make: MakePoint) -> None:
    """What one candidate may promise with 95 % it may not promise together with nineteen others."""
    alone = [make(0, 0, 0.99)]
    limit = next(
        limit
        for limit in np.arange(0.011, 0.04, 0.0002)
        if guaranteed(alone, max_drop=float(limit), confidence=0.95, method="learn_then_test")
    )
    together = [make(number, 0, 0.99) for number in range(20)]
    assert guaranteed(together, max_drop=float(limit), confidence=0.95, method="learn_then_test") == ()


def test_too_few_inputs_for_a_promise_are_an_error_that_says_what_is_possible(make: MakePoint) -> None:
    with pytest.raises(DataError, match=r"must be at least 0\.00\d+, as 1000 certify inputs"):
        guaranteed([make(0, 0, 0.99)], max_drop=0.001, confidence=0.95, method="learn_then_test")


def test_lost_files_and_unknown_methods_are_told(make: MakePoint) -> None:
    point = make(0, 0, 0.99)
    with pytest.raises(UnknownNameError):
        guaranteed([point], max_drop=0.1, confidence=0.95, method="luck")  # type: ignore[arg-type]
    (point.folder / "certify.npz").unlink()
    with pytest.raises(DataError, match="restore the storage"):
        guaranteed([point], max_drop=0.1, confidence=0.95, method="conformal")
