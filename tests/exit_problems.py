"""Exit problems to test on, and routing as a person would do it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynarch.evaluators.policy import ExitProblem, PolicyPoint
from dynarch.spaces.policy import Policy


def problem_of(n: int, e: int, seed: int, *, varied: bool = False, patience: bool = True) -> ExitProblem:
    """Heads that grow surer and better with depth; two measures, the second one coarse and so full of ties."""
    g = np.random.default_rng(seed)
    ease, labels = g.normal(size=n), g.integers(4, size=n)
    skill = ease[:, None] + np.linspace(-0.5, 1.5, e + 1) + 0.5 * g.normal(size=(n, e + 1))
    predictions = np.where(skill > 0, labels[:, None], (labels[:, None] + g.integers(1, 4, size=(n, e + 1))) % 4)
    sure = (1 / (1 + np.exp(-skill[:, :e] - 0.7 * g.normal(size=(n, e))))).astype(np.float32)
    return ExitProblem(
        scores={"max_prob": sure, "margin": np.round(sure * 8).astype(np.float32)},
        predictions=predictions.astype(np.int64),
        labels=labels.astype(np.int64),
        segment_ms=g.uniform(0.5, 1.5, size=(n, e + 1) if varied else e + 1),
        exit_ms=g.uniform(0.05, 0.2, size=e),
        decide_ms={"max_prob": 0.02, "margin": 0.03, "patience": 0.01},
        patience=patience,
    )


def walk(problem: ExitProblem, policy: Policy) -> tuple[float, float, list[float], list[int]]:
    """Routing as a person would do it, one sample and one exit at a time."""
    n, e = problem.predictions.shape[0], problem.predictions.shape[1] - 1
    segment = np.broadcast_to(problem.segment_ms, (n, e + 1))
    right, cost, left = 0, 0.0, []
    for i in range(n):
        last, run, at = None, 0, e
        for k, threshold in enumerate(policy.thresholds):
            cost += segment[i, k]
            if threshold is None:
                continue
            cost += problem.exit_ms[k]
            if threshold == -math.inf:
                at = k
                break
            cost += problem.decide_ms[policy.decision]
            if policy.decision == "patience":
                run = run + 1 if problem.predictions[i, k] == last else 1
                last = problem.predictions[i, k]
                score = float(run)
            else:
                score = float(problem.scores[policy.decision][i, k])
            if score > threshold:
                at = k
                break
        else:
            cost += segment[i, e]
        right += int(problem.predictions[i, at] == problem.labels[i])
        left.append(at)
    return right / n, cost / n, [left.count(k) / n for k in range(e + 1)], left


def same(point: PolicyPoint, problem: ExitProblem) -> None:
    accuracy, cost, share, _ = walk(problem, point.policy)
    assert point.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert point.mean_cost_ms == pytest.approx(cost, rel=1e-9)
    assert point.exit_share == pytest.approx(share)
