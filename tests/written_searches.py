"""Finished searches that nobody ran: written into a ledger with the points that a test asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynarch import Problem
from dynarch.search.ledger import Ledger, NewPoint
from dynarch.search.storage import Storage

Metrics = Mapping[str, float]


def metrics_of(accuracy: float, ms: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a point: mean latencies by device; the 95th percentile is twice, the worst three times as long."""
    made = {"accuracy": accuracy, "macs": 1000.0, "parameters": 50.0}
    for device, mean in ms.items():
        factors = (("latency_ms", 1), ("latency_p95_ms", 2), ("latency_worst_ms", 3))
        made |= {f"{name}@{device}": factor * mean for name, factor in factors}
    return made


def write_search(
    storage: Storage,
    search_id: str,
    problem: Problem,
    points: Sequence[Metrics],
    *,
    front: Sequence[int],
    tested: Sequence[Metrics] = (),
    measured: Sequence[Mapping[str, Metrics]] = (),
    created_at: float = 1.0,
) -> None:
    """One finished candidate with these points.

    Args:
        front: which of the points are on the front.
        tested: of these, what the test split says; 100 inputs.
        measured: of these, device -> what it measured.
    """
    storage.prepare()
    storage.keep_data(problem.data)
    with storage.open_ledger() as ledger:
        ledger.create_search(
            search_id, name="written", spec=problem.to_mapping(), seed=0, created_at=created_at, data_id=problem.data.id
        )
        ledger.set_hypervolume_reference(search_id, (0.0, 8.0))
        _write_candidate(ledger, search_id, problem, points)
        keys = [(0, index) for index in front]
        ledger.mark_front(search_id, keys)
        if tested:
            ledger.open_test(search_id, 20.0)
            ledger.score_points(search_id, {k: _scored(metrics) for k, metrics in zip(keys, tested, strict=True)})
            ledger.record_measured(search_id, dict(zip(keys, measured, strict=True)))
        ledger.set_status(search_id, "finished", reason="written by a test")


def _write_candidate(ledger: Ledger, search_id: str, problem: Problem, points: Sequence[Metrics]) -> None:
    architecture = next(made for _, made in problem.space.enumerate(problem.data.signature) if made.families)
    ledger.propose(
        search_id,
        number=0,
        architecture_id=architecture.id,
        architecture=architecture.to_mapping(),
        params={"early_exit.objective": "equal"},
        level=1.0,
        seed=0,
        fidelity=3,
        evaluator="from_scratch",
        created_at=5.0,
    )
    ledger.start(search_id, 0)
    made = [
        NewPoint(
            {"decision": "max_prob", "thresholds": [0.5]},
            {"metrics": dict(metrics), "certify_accuracy": metrics["accuracy"] - 0.125, "exit_share": [0.5, 0.5]},
        )
        for metrics in points
    ]
    ledger.finish(
        search_id, 0, state="finished", finished_at=10.0, epochs_done=3, seconds=2.5, points=made, metrics={}, curve=()
    )


def _scored(metrics: Metrics) -> dict[str, object]:
    right = round(100 * metrics["accuracy"])
    return {"metrics": dict(metrics), "correct": right, "total": 100, "exit_accuracy": [0.5, 0.9], "whole_macs": 2000.0}
