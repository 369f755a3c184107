"""What a search writes to a real MLflow store: searches whose candidates ended without any training."""

from __future__ import annotations

from collections.abc import Callable

from dynarch import Problem
from dynarch.search.ledger import Evaluation, Ledger, NewPoint, Point
from dynarch.search.records import Records
from dynarch.search.tracking import MLflowTracker
from dynarch.spaces.errors import StoreError
from dynarch.tests.tiny_searches import Tracked, shared_service, tracked

# accuracy and latency of the operating points of every candidate, sorted by latency as the ledger has them
POINTS = ((0.5, 1.0), (0.7, 2.0), (0.9, 4.0))
CURVE = ({"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": None, "final_accuracy": 0.75})
Open = Callable[[], MLflowTracker]


def metrics_of(accuracy: float, latency_ms: float) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_ms@cpu": latency_ms, "latency_p95_ms@cpu": latency_ms, "macs": 9.0}


def add(ledger: Ledger, problem: Problem, search_id: str, number: int, *, level: float = 1.0) -> Evaluation:
    """A candidate that finished at second 10, 20, ... with the points above."""
    _, architecture = list(problem.space.enumerate(problem.data.signature))[number]
    ledger.propose(
        search_id,
        number=number,
        architecture_id=architecture.id,
        architecture=architecture.to_mapping(),
        params={"early_exit.objective": "equal"},
        level=level,
        seed=0,
        fidelity=3,
        evaluator="from_scratch",
        created_at=5.0,
    )
    ledger.start(search_id, number)
    points = [
        NewPoint({"decision": "max_prob", "thresholds": []}, {"metrics": metrics_of(*pair), "certify_accuracy": 0.5})
        for pair in POINTS
    ]
    ledger.finish(
        search_id,
        number,
        state="finished",
        finished_at=10.0 * (number + 1),
        epochs_done=3,
        seconds=2.5,
        curve=CURVE,
        points=points,
    )
    return known(ledger, search_id, number)


def known(ledger: Ledger, search_id: str, number: int) -> Evaluation:
    evaluation = ledger.evaluation(search_id, number)
    assert evaluation is not None
    return evaluation


def points_of(ledger: Ledger, search_id: str, number: int) -> list[Point]:
    return [point for point in ledger.points(search_id) if point.number == number]


def seen(search_id: str) -> Tracked:
    return tracked(shared_service(), search_id)


def history(search_id: str, metric: str) -> list[tuple[int, float]]:
    found = seen(search_id)
    rows = found.client.get_metric_history(found.parents[0].info.run_id, metric)
    return [(row.step, row.value) for row in rows]


class Outages:
    """MLflow that is there or not, and a clock."""

    def __init__(self, open_tracker: Open) -> None:
        self.there = False
        self.asked = 0
        self.now = 100.0
        self.warnings: list[str] = []
        self._open = open_tracker

    def open(self) -> MLflowTracker:
        self.asked += 1
        if not self.there:
            raise StoreError("MLflow at http://nowhere cannot be reached")
        return self._open()

    def records(self, ledger: Ledger, problem: Problem, search_id: str) -> Records:
        return Records(self.open, ledger, problem, search_id, warn=self.warnings.append, clock=lambda: self.now)
