"""What the benchmark of an adopted network counts, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynarch.benchmarks import adopt_resnet56 as benchmark
from dynarch.evaluators.policy import ExitProblem
from dynarch.evaluators.score_table import score_table
from dynarch.hardware.inventory import Costs
from dynarch.spaces.trace import PartInfo

LABELS = torch.tensor([0, 1, 0, 1])


def logits(sure: float) -> torch.Tensor:
    """Right for the first two of four inputs, wrong for the others, and surest of the first."""
    odds = torch.tensor([2 * sure, sure, -sure, -sure])
    return torch.stack([odds * (1 - 2 * LABELS), torch.zeros(4)], 1)


def problem() -> ExitProblem:
    right = torch.nn.functional.one_hot(LABELS, 2).float() * 9
    costs = Costs(
        (
            PartInfo("segment.0", "segment", 0),
            PartInfo("exit.0", "exit", 0, 0),
            PartInfo("decide.0.max_prob", "decide", 0, 0, "max_prob"),
            PartInfo("segment.1", "segment", 1),
        ),
        ("a", "b", "c", "d"),
        (30_000_000, 2_000_000, 1, 70_000_000),
        1,
    )
    return benchmark.in_mmacs(score_table([logits(1.0), right], LABELS), costs)


def test_work_is_counted_in_millions() -> None:
    made = problem()
    assert made.segment_ms.tolist() == [30, 70]
    assert made.exit_ms.tolist() == [2]


def test_the_sweep_goes_from_everybody_to_nobody() -> None:
    points = {round(point.mean_cost_ms, 6): point.accuracy for point in benchmark.sweep(problem())}
    # Scores are sigmoids of 2, 1, 1, 1: thresholds let out nobody, the first input alone, which is right, or everybody.
    assert points == {102.0: 1.0, 32 + 0.75 * 70: 1.0, 32.0: 0.5}


def test_a_point_is_beaten_by_one_that_is_no_dearer_and_no_worse() -> None:
    curve, by = np.array([[0.8, 50.0], [0.9, 60.0]]), np.array([[0.8, 50.0], [0.89, 59.0]])
    assert benchmark.beaten(curve, by, 0.0) == 0.5
    assert benchmark.beaten(curve, by, 0.02) == 1.0


def test_temperature_makes_up_for_overconfidence() -> None:
    # Half of the answers are right whatever was said: the flattest temperature is likeliest.
    assert benchmark.temperature(logits(8.0), LABELS) == pytest.approx(10.0)
