"""Operating points: what is read from the score table is what a network does that is routed input by input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.evaluators.operating import (
    OperatingPoint,
    cheapest_ms,
    exit_problem,
    operating_points,
    score,
)
from dynarch.evaluators.pareto import non_dominated
from dynarch.evaluators.policy import evaluate
from dynarch.evaluators.score_table import ScoreTables, score_tables
from dynarch.evaluators.splits import Part
from dynarch.evaluators.testing import contract_book, contract_splits, pattern_data, small_architecture
from dynarch.evaluators.training import TrainingRun
from dynarch.hardware.book import LatencyBook
from dynarch.hardware.composition import PartCurve
from dynarch.hardware.correction import Correction
from dynarch.hardware.inventory import Costs, costs_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.trace import Recorder

NAMES = tuple(member.name for member in DECISIONS)


@dataclass(frozen=True)
class Trained:
    network: DynamicNetwork
    costs: Costs
    tables: ScoreTables
    part: Part
    book: LatencyBook


def trained_of(architecture: Architecture) -> Trained:
    run = TrainingRun(architecture, contract_splits(), signature=pattern_data().signature, epochs=3, seed=1)
    run.train_to(3)
    part = contract_splits().tune
    tables = score_tables(run.network, part)
    return Trained(run.network.eval(), costs_of(run.network.eval()), tables, part, contract_book(architecture))


@cache
def trained() -> Trained:
    """Two exits, a linear and an MLP head."""
    return trained_of(small_architecture())


@cache
def static() -> Trained:
    document = small_architecture().to_mapping()
    document["families"] = {}
    return trained_of(Architecture.from_mapping(document))


def safe_thresholds(column: Sequence[float]) -> list[float]:
    """Midway between neighbouring scores that lie apart, so that rounding cannot flip a decision; and the ends."""
    values = sorted({float(value) for value in column})
    return [-math.inf, *((a + b) / 2 for a, b in pairwise(values) if b - a > 1e-4), values[-1] + 1.0]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy whose decisions rounding cannot flip."""
    table, name = trained().tables.plain, draw(st.sampled_from(NAMES))
    thresholds = []
    for exit_index in range(2):
        choices = (
            [-math.inf, 0.5, 1.5, 2.5]
            if name == "patience"
            else safe_thresholds(list(table.scores[name][:, exit_index]))
        )
        thresholds.append(draw(st.none() | st.sampled_from(choices)))
    return Policy(name, tuple(thresholds))


def routed_slowly(this: Trained, policy: Policy) -> tuple[float, float, list[int], list[float], list[float]]:
    """Accuracy, mean work, exits taken, milliseconds an input and share of each exit, input by input."""
    right, work, taken, ms = 0, 0.0, [], []
    curves = this.book.devices["cpu"].curves
    for row in range(len(this.part)):
        recorder = Recorder(1)
        routed = this.network.route(this.part.x[row : row + 1], policy, recorder)
        right += int(routed.logits.argmax()) == int(this.part.y[row])
        taken.append(int(routed.exit_taken[0]))
        ran = recorder.totals()
        assert set(ran.values()) == {1.0}
        parts = [i for i, part in enumerate(this.costs.parts) if part.name in ran]
        work += sum(this.costs.macs[i] for i in parts)
        ms.append(sum(curves[this.costs.keys[i]].ms[0] for i in parts))
    n = len(this.part)
    share = [taken.count(exit_index) / n for exit_index in range(this.network.exits + 1)]
    return right / n, work / n, taken, ms, share


@settings(deadline=None, max_examples=60)
@given(policy=policies())
def test_a_score_is_what_routing_input_by_input_gives(policy: Policy) -> None:
    this = trained()
    accuracy, work, _, ms, share = routed_slowly(this, policy)
    point = score(this.tables, this.costs, this.book, policy, seed=0)
    assert point.metrics["accuracy"] == pytest.approx(accuracy)
    assert point.metrics["macs"] == pytest.approx(work)
    assert point.metrics["latency_ms@cpu"] == pytest.approx(sum(ms) / len(ms))
    # 36 inputs are too few for a 95 % quantile (130 are needed): the largest stands in, and the point says so.
    assert point.metrics["latency_p95_ms@cpu"] == pytest.approx(max(ms))
    assert "p95 on cpu is an upper bound: 36 inputs are too few for the quantile" in point.notes
    assert point.metrics["latency_worst_ms@cpu"] >= max(ms) - 1e-12
    assert point.exit_share == pytest.approx(share)
    assert point.metrics["parameters"] == sum(weight.numel() for weight in this.network.parameters())


@settings(deadline=None, max_examples=20)
@given(policy=policies())
def test_the_worst_case_is_the_longest_path_that_an_input_can_take(policy: Policy) -> None:
    """Whoever stays to the end tries every enabled exit on the way; behind an exit for everybody nobody gets."""
    this, curves = trained(), trained().book.devices["cpu"].curves
    walls = [i for i, threshold in enumerate(policy.thresholds) if threshold == -math.inf]
    last = walls[0] if walls else 2
    longest = 0.0
    for part, key in zip(this.costs.parts, this.costs.keys, strict=True):
        if part.kind != "compact" and part.depth <= last and part.active(policy):
            longest += curves[key].ms[0]
    point = score(this.tables, this.costs, this.book, policy, seed=0)
    assert point.metrics["latency_worst_ms@cpu"] == pytest.approx(longest)


def test_everybody_at_one_exit_costs_a_batch_of_four_its_parts() -> None:
    """Exit 1 for all, exit 0 not tried: segment 0, segment 1, head 1, each once for four inputs at a time."""
    this, curves = trained(), trained().book.devices["batches"].curves
    wanted = {"segment.0", "segment.1", "exit.1"}
    keys = [key for part, key in zip(this.costs.parts, this.costs.keys, strict=True) if part.name in wanted]
    assert len(keys) == 3
    point = score(this.tables, this.costs, this.book, Policy.single(2, 1), seed=0)
    expected = sum(curves[key].ms[3] for key in keys) / 4
    for metric in ("latency_ms", "latency_p95_ms", "latency_worst_ms"):
        assert point.metrics[f"{metric}@batches"] == pytest.approx(expected)


def test_a_correction_is_applied_to_every_input() -> None:
    """Full network at batch 1: b + a times the sum of three segments + c for each of the three."""
    this = trained()
    pages = replace(this.book.devices["cpu"], correction=Correction(a=1.5, b_ms=0.25, c_ms=0.125, n=20, radius=0.1))
    point = score(this.tables, this.costs, LatencyBook({"cpu": pages}), Policy.never(2), seed=0)
    keys = [key for part, key in zip(this.costs.parts, this.costs.keys, strict=True) if part.kind == "segment"]
    expected = 0.25 + 1.5 * sum(pages.curves[key].ms[0] for key in keys) + 3 * 0.125
    assert point.metrics["latency_ms@cpu"] == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(policy=policies())
def test_the_policy_search_sees_the_costs_that_are_reported(policy: Policy) -> None:
    this = trained()
    _, pages = this.book.first
    problem = exit_problem(this.tables.plain, this.costs, pages, NAMES)
    seen = evaluate(problem, policy)
    point = score(this.tables, this.costs, this.book, policy, seed=0)
    assert seen.accuracy == pytest.approx(point.metrics["accuracy"])
    assert seen.mean_cost_ms == pytest.approx(point.metrics["latency_ms@cpu"])
    assert seen.exit_share == pytest.approx(point.exit_share)


@settings(deadline=None, max_examples=40)
@given(policy=policies(), dear=st.sampled_from(["exit.0", "exit.1", "segment.0", "segment.2"]))
def test_nothing_is_cheaper_than_the_cheapest(policy: Policy, dear: str) -> None:
    """Whichever part is made a hundred times as dear: also where the first exit is no longer the way to save."""
    this = trained()
    pages = this.book.devices["cpu"]
    key = next(k for part, k in zip(this.costs.parts, this.costs.keys, strict=True) if part.name == dear)
    costly = PartCurve((1,), (100 * pages.curves[key].ms[0],), key)
    changed = replace(pages, curves={**pages.curves, key: costly})
    least = cheapest_ms(this.costs, changed)
    point = score(this.tables, this.costs, LatencyBook({"cpu": changed}), policy, seed=0)
    assert least <= point.metrics["latency_ms@cpu"] + 1e-12
    paths = [
        score(this.tables, this.costs, LatencyBook({"cpu": changed}), Policy.single(2, k), seed=0) for k in range(3)
    ]
    assert least == pytest.approx(min(path.metrics["latency_ms@cpu"] for path in paths))


# -- sets of points -------------------------------------------------------------------------------------------


def test_the_points_of_a_candidate_are_a_sorted_front_of_policies() -> None:
    this = trained()
    points = operating_points(this.tables, this.costs, this.book, decisions=NAMES, seed=0, max_points=12)
    assert 1 < len(points) <= 24  # twelve a device
    assert len({point.policy for point in points}) == len(points)
    latencies = [point.metrics["latency_ms@cpu"] for point in points]
    assert latencies == sorted(latencies)
    assert all(point == score(this.tables, this.costs, this.book, point.policy, seed=0) for point in points)


def test_the_points_for_one_device_do_not_dominate_each_other() -> None:
    this = trained()
    book = LatencyBook({"cpu": this.book.devices["cpu"]})
    points = operating_points(this.tables, this.costs, book, decisions=NAMES, seed=0, max_points=12)
    values = np.array([(p.metrics["accuracy"], p.metrics["latency_ms@cpu"]) for p in points])
    assert non_dominated(values, ("maximize", "minimize")).all()
    assert len(points) <= 12


def test_the_front_reaches_what_single_exits_reach() -> None:
    """No exit used alone, nor the whole network, may beat all points: they are policies themselves."""
    this = trained()
    book = LatencyBook({"cpu": this.book.devices["cpu"]})
    points = operating_points(this.tables, this.costs, book, decisions=NAMES, seed=0, max_points=24)
    for k in range(3):
        alone = score(this.tables, this.costs, book, Policy.single(2, k), seed=0).metrics
        assert any(
            p.metrics["accuracy"] >= alone["accuracy"]
            and p.metrics["latency_ms@cpu"] <= alone["latency_ms@cpu"] + 1e-12
            for p in points
        )


def test_only_the_decisions_asked_for_are_used_and_the_seed_decides() -> None:
    this = trained()
    for name in NAMES:
        points = operating_points(this.tables, this.costs, this.book, decisions=(name,), seed=0, max_points=8)
        assert {p.policy.decision for p in points if any(t not in (None, -math.inf) for t in p.policy.thresholds)} <= {
            name
        }
    first = operating_points(this.tables, this.costs, this.book, decisions=NAMES, seed=3, max_points=8)
    torch.rand(3)
    assert operating_points(this.tables, this.costs, this.book, decisions=NAMES, seed=3, max_points=8) == first


def test_a_static_network_has_one_point() -> None:
    this = static()
    (point,) = operating_points(this.tables, this.costs, this.book, decisions=NAMES, seed=0, max_points=12)
    accuracy, work, _, ms, _ = routed_slowly(this, point.policy)
    assert point.exit_share == (1.0,)
    assert point.metrics["accuracy"] == pytest.approx(accuracy)
    assert point.metrics["macs"] == pytest.approx(work) == pytest.approx(sum(this.costs.macs))
    assert (
        point.metrics["latency_ms@cpu"]
        == pytest.approx(ms[0])
        == pytest.approx(cheapest_ms(this.costs, this.book.devices["cpu"]))
    )


def test_a_point_survives_as_plain_values() -> None:
    this = trained()
    for policy in (Policy.never(2), Policy.single(2, 0), Policy("entropy", (-0.3, None))):
        point = score(this.tables, this.costs, this.book, policy, seed=0)
        assert OperatingPoint.from_mapping(point.to_mapping()) == point
