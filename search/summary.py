"""Summary: from the ledger and the examined front to the report that people read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from ..evaluators.metrics import MINIMIZE
from ..evaluators.pareto import hypervolume, non_dominated
from ..hardware.book import LatencyBook
from ..hardware.drift import Shift
from ..hardware.inventory import Costs
from ..spaces.architecture import Architecture
from ..spaces.policy import Policy
from ..spaces.space import describe
from ..spaces.teacher import epochs_spent
from ..spaces.trace import dearest_usage, usage_row
from .ledger.entities import Counts, Evaluation, Point, PointKey
from .ledger.store import Ledger
from .outcome import Scored
from .problem import Problem
from .proposals import numbers
from .report_rows import DeviceTimes, FrontReport, Kind, ReportRow, wilson

MARGIN = 1.1  # of the hypervolume reference over the dearest path of the space


def reference_of(problem: Problem, costs: Sequence[Costs], book: LatencyBook) -> tuple[float, ...]:
    """The hypervolume's reference, fixed before the search: the dearest path of the space, nothing right."""
    dearest: dict[str, float] = {"accuracy": 0.0, "macs": 0.0, "parameters": 0.0}
    for each in costs:
        exits = max((part.exit + 1 for part in each.parts if part.exit is not None), default=0)
        full = Policy.never(exits)
        everyone = np.full(1, exits)
        macs = np.array(each.macs, dtype=float)
        usage = dearest_usage(each.parts, macs)
        dearest["macs"] = max(dearest["macs"], float(macs @ usage_row(each.parts, usage)))
        dearest["parameters"] = max(dearest["parameters"], float(each.parameters))
        for name, pages in book.devices.items():
            ms = pages.predict(each, full, everyone, seed=0, usage=usage).mean_ms
            for metric in ("latency_ms", "latency_p95_ms", "latency_worst_ms"):
                key = f"{metric}@{name}"
                dearest[key] = max(dearest.get(key, 0.0), ms)
    return tuple(
        dearest[reference.key] * (MARGIN if reference.metric.direction == MINIMIZE else 1.0)
        for reference in problem.references
    )


@final
@dataclass(frozen=True)
class Standing:
    """How a search stood when a candidate had ended.

    Args:
        hypervolume: share of the box between reference and ideal.
        front_size: points that nothing so far dominates.
        counts: candidates that had ended, by state.
    """

    hypervolume: float
    front_size: int
    counts: Counts


@final
class Progress:
    """Hypervolume of what is finished, as a share of the box between reference and ideal.

    Args:
        problem: the search.
        reference: fixed before the search.
    """

    def __init__(self, problem: Problem, reference: Sequence[float]) -> None:
        self._problem = problem
        self._reference = tuple(reference)
        ideal = [ref.metric.bounds[1] if ref.metric.direction != MINIMIZE else 0.0 for ref in problem.references]
        sides = [abs(a - b) for a, b in zip(ideal, self._reference, strict=True)]
        self._box = float(np.prod(sides))
        self._front: list[tuple[float, ...]] = []
        self._ended: Counter[str] = Counter()

    def end(self, evaluation: Evaluation, points: Sequence[Point]) -> Standing:
        """Take in a candidate that has ended, with its points if it finished."""
        self._ended[evaluation.state] += 1
        volume, size = self.add([numbers(point) for point in points])
        ended = self._ended
        return Standing(volume, size, Counts(ended["finished"], ended["stopped"], ended["failed"]))

    def add(self, points: Sequence[Mapping[str, float]]) -> tuple[float, int]:
        """Take in the points of a finished candidate; hypervolume share and size of the front so far."""
        new = [self._problem.values(metrics) for metrics in points if self._problem.feasible(metrics)]
        both = np.array([*self._front, *new], dtype=float)
        if len(both) == 0:
            return 0.0, 0
        both = both[non_dominated(both, self._problem.directions)]
        self._front = [tuple(map(float, row)) for row in both]
        volume = hypervolume(both, self._problem.directions, self._reference)
        return volume / self._box if self._box > 0 else 0.0, len(both)


def history_of(problem: Problem, ledger: Ledger, search_id: str, reference: Sequence[float]) -> list[tuple[int, float]]:
    """(candidates ended, hypervolume share) in order of ending."""
    progress = Progress(problem, reference)
    standings = [progress.end(*each) for each in ended_in_order(ledger, search_id)]
    return [(standing.counts.total, standing.hypervolume) for standing in standings]


def ended_in_order(ledger: Ledger, search_id: str) -> Iterator[tuple[Evaluation, list[Point]]]:
    """The candidates that have ended, the first to end first, each with its points."""
    by_number: dict[int, list[Point]] = {}
    for point in ledger.points(search_id):
        by_number.setdefault(point.number, []).append(point)
    ended = [evaluation for evaluation in ledger.evaluations(search_id) if evaluation.terminal]
    for evaluation in sorted(ended, key=lambda each: (each.finished_at or 0.0, each.number)):
        yield evaluation, by_number.get(evaluation.number, [])


@final
@dataclass(frozen=True)
class Examined:
    """What was scored on the test split.

    Args:
        front: members of the front by key; those dominated on unseen data are not in `kept`.
        kept: members that are still non-dominated.
        static: static networks of the search.
        single: single exits used alone.
    """

    front: Mapping[PointKey, Scored]
    kept: frozenset[PointKey]
    static: Sequence[Scored]
    single: Sequence[Scored]


def build_report(
    problem: Problem,
    ledger: Ledger,
    search_id: str,
    examined: Examined,
    *,
    seconds: float,
    notes: Sequence[str],
    shifts: Mapping[str, Shift],
) -> FrontReport:
    """The report of a search; `shifts` says how machines have changed, by the name of the device."""
    record = ledger.search(search_id)
    evaluations = {evaluation.number: evaluation for evaluation in ledger.evaluations(search_id)}
    points = {(point.number, point.index): point for point in ledger.points(search_id)}
    whole = _whole_macs(examined, evaluations)
    rows = []
    for key, scored in examined.front.items():
        evaluation, tuned = evaluations[key[0]], numbers(points[key])["accuracy"]
        kind: Kind = "dynamic" if evaluation.architecture.get("families") else "static"
        if kind == "static":
            continue  # listed once, below
        if not scored.point.decides:
            kind = "single_exit"  # every input takes one path
        label = f"{key[0]}.{key[1]}"
        rows.append(_row(problem, evaluation, scored, label, kind, key in examined.kept, tuned, whole))
        if kind == "dynamic":
            rows.append(_random_row(rows[-1], scored))
    kept_static = {key[0] for key in examined.kept}
    for scored in examined.static:
        evaluation = evaluations[scored.number]
        label = f"{scored.number} static"
        tuned = _tuned(evaluation, -1)
        rows.append(_row(problem, evaluation, scored, label, "static", scored.number in kept_static, tuned, whole))
    shown = {(row.number, row.policy) for row in rows if row.kind == "single_exit"}
    for scored in examined.single:
        if (scored.number, scored.point.policy.describe()) in shown:
            continue  # a member of the front already
        exit_index = next(i for i, on in enumerate(scored.point.policy.enabled) if on)
        evaluation, label = evaluations[scored.number], f"{scored.number} exit {exit_index}"
        tuned = _tuned(evaluation, exit_index)
        rows.append(_row(problem, evaluation, scored, label, "single_exit", False, tuned, whole))
    counts, shift = ledger.counts(search_id), shifts.get(next(iter(problem.devices)))
    reference = record.hypervolume_reference or ()
    history = history_of(problem, ledger, search_id, reference) if reference else []
    return FrontReport(
        search_id=search_id,
        name=problem.strategy.name,
        device="; ".join(f"{name}: {device.name}" for name, device in problem.devices.items()),
        objectives=tuple((r.key, r.metric.direction, r.metric.unit) for r in problem.references),
        rows=tuple(rows),
        finished=counts.done,
        stopped=counts.stopped,
        failed=counts.failed,
        hypervolume=history[-1][1] if history else None,
        hypervolume_history=tuple(history),
        epochs_spent=float(sum(_spent(evaluation, problem) for evaluation in evaluations.values())),
        seconds=seconds,
        notes=tuple(notes),
        machine_change=None if shift is None else shift.change,
        machine_noise=None if shift is None else shift.noise,
        devices=tuple(problem.devices),
    )


def _spent(evaluation: Evaluation, problem: Problem) -> int:
    architecture = Architecture.from_mapping(evaluation.architecture)
    return epochs_spent(architecture, evaluation.epochs_done, full=problem.budget.epochs)


def _tuned(evaluation: Evaluation, exit_index: int) -> float:
    """Accuracy of one exit on the tune split, as the evaluation recorded it."""
    recorded = (evaluation.metrics or {})["exit_accuracy"]
    assert isinstance(recorded, Sequence)
    return float(recorded[exit_index])


def _whole_macs(examined: Examined, evaluations: Mapping[int, Evaluation]) -> dict[str, float]:
    """Work of each backbone run whole, by its description; where it was trained as a static network."""
    return {_backbone_key(evaluations[s.number]): s.point.metrics["macs"] for s in examined.static}


def _backbone_key(evaluation: Evaluation) -> str:
    return Architecture.of(
        backbone=Architecture.from_mapping(evaluation.architecture).backbone, families={}, training={}
    ).id


def _row(
    problem: Problem,
    evaluation: Evaluation,
    scored: Scored,
    label: str,
    kind: Kind,
    front: bool,
    tuned: float,
    whole: Mapping[str, float],
) -> ReportRow:
    architecture = Architecture.from_mapping(evaluation.architecture)
    device = next(iter(problem.devices))
    metrics, measured = scored.point.metrics, scored.measured.get(device)
    low, high = wilson(scored.correct, scored.total)
    return ReportRow(
        label=label,
        kind=kind,
        number=scored.number,
        architecture_id=architecture.id,
        backbone=str(architecture.backbone["name"]),
        families=tuple(architecture.families),
        summary=describe(architecture),
        policy=scored.point.policy.describe(),
        front=front,
        accuracy=scored.correct / scored.total,
        accuracy_low=low,
        accuracy_high=high,
        tune_accuracy=tuned,
        latency_ms=metrics[f"latency_ms@{device}"],
        latency_p95_ms=metrics[f"latency_p95_ms@{device}"],
        measured_ms=None if measured is None else measured["latency_ms"],
        measured_p95_ms=None if measured is None else measured["latency_p95_ms"],
        macs=metrics["macs"],
        work_saved=_saved(metrics["macs"], scored, evaluation, whole),
        exit_share=scored.point.exit_share,
        elsewhere=tuple(_times(scored, name) for name in list(problem.devices)[1:]),
    )


def _times(scored: Scored, device: str) -> DeviceTimes:
    metrics, measured = scored.point.metrics, scored.measured.get(device, {})
    return DeviceTimes(
        device,
        metrics[f"latency_ms@{device}"],
        metrics[f"latency_p95_ms@{device}"],
        measured.get("latency_ms"),
        measured.get("latency_p95_ms"),
    )


def _saved(macs: float, scored: Scored, evaluation: Evaluation, whole: Mapping[str, float]) -> float | None:
    full = whole.get(_backbone_key(evaluation), scored.whole_macs)
    return None if not full else 1 - macs / full


def _random_row(row: ReportRow, scored: Scored) -> ReportRow:
    """Exits and gates that decide at the same rates, at random: what the decisions must beat.

    Its latency is put at the same value: it runs the same paths equally often.
    """
    expected = scored.random_accuracy
    if expected is None:
        expected = float(np.dot(scored.point.exit_share, scored.exit_accuracy))
    low, high = wilson(round(expected * scored.total), scored.total)
    return replace(
        row,
        label=f"{row.label} random",
        kind="random_exit",
        policy="same rates, drawn at random",
        front=False,
        accuracy=expected,
        accuracy_low=low,
        accuracy_high=high,
        tune_accuracy=expected,
        measured_ms=None,
        measured_p95_ms=None,
        elsewhere=tuple(replace(each, measured_ms=None, measured_p95_ms=None) for each in row.elsewhere),
    )
