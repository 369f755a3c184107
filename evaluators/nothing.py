"""Training nothing: what a search costs by itself, its proposals, its stores and its transport."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from ..hardware.book import LatencyBook
from ..spaces.policy import Policy
from .evaluator import AbstractEvaluator, AbstractSession, Outcome, Reading, Task
from .operating import OperatingPoint
from .splits import Splits


@final
class IdleSession(AbstractSession):
    """A candidate whose one operating point follows from its id; nothing is built, trained or left behind."""

    def __init__(self, task: Task, devices: tuple[str, ...]) -> None:
        self._task = task
        self._devices = devices
        self._epochs = 0

    @property
    def epochs_done(self) -> int:
        """Epochs counted; after an interruption they are counted again."""
        return self._epochs

    def history(self) -> tuple[Mapping[str, float], ...]:
        """None."""
        return ()

    def prepare(self) -> bool:
        """Nothing to do."""
        return False

    def train(self) -> Mapping[str, float]:
        """Count an epoch."""
        self._epochs += 1
        return {"epoch": self._epochs}

    def read(self) -> Reading:
        """The point as it will be: nothing grows with the epochs."""
        return Reading((made_up(self._task.architecture.id, self._devices),), {"epoch": self._epochs})

    def finish(self) -> Outcome:
        """The point; there is no network that could be loaded."""
        point = made_up(self._task.architecture.id, self._devices)
        curve = {"epoch": self._epochs, "final_accuracy": point.metrics["accuracy"]}
        return Outcome((point,), (point.metrics["accuracy"],), curve)


@final
@dataclass(frozen=True)
class Nothing(AbstractEvaluator):
    """Trains nothing; `benchmarks/overhead.py` measures searches with it."""

    name: ClassVar[str] = "nothing"
    leaves_networks: ClassVar[bool] = False

    def start(self, task: Task, splits: Splits, book: LatencyBook) -> IdleSession:
        """Begin, which is all there is to it."""
        return IdleSession(task, tuple(book.devices))


def made_up(architecture_id: str, devices: tuple[str, ...]) -> OperatingPoint:
    """Metrics drawn by the id alone: accuracy in `[0.5, 1)`, latency in `[1, 5)` ms, the same on every device."""
    digest = hashlib.sha256(architecture_id.encode()).digest()
    quality, cost = (int.from_bytes(digest[at : at + 4]) / 2**32 for at in (0, 4))
    latency = 1 + 4 * cost
    metrics = {"accuracy": 0.5 + quality / 2, "macs": 1e6 * latency, "parameters": 1e4 * latency}
    for name in devices:
        metrics |= {f"{kind}@{name}": latency for kind in ("latency_ms", "latency_p95_ms", "latency_worst_ms")}
    return OperatingPoint(Policy.never(0), metrics, (1.0,))
