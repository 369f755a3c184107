"""Front point: one member of a front as its user holds it, and as a table shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.table import Table

from ..evaluators.from_scratch import load_candidate
from ..spaces.architecture import Architecture
from ..spaces.network import RoutedNetwork
from ..spaces.policy import Policy
from ..spaces.space import describe


@final
@dataclass(frozen=True)
class FrontPoint:
    """An operating point of a front: trained weights and a policy, with everything that is known of them.

    Args:
        label: candidate and point, as in reports.
        architecture: what was built.
        policy: when to leave.
        tune: metrics on the split that the search chose by.
        certify_accuracy: accuracy on data that nothing was chosen on.
        test: metrics on the test split; latencies are predictions for these inputs. None before the end.
        measured: device -> measured mean and p95 in milliseconds; None before the end.
        folder: weights and manifest.
    """

    label: str
    architecture: Architecture
    policy: Policy
    tune: Mapping[str, float]
    certify_accuracy: float
    test: Mapping[str, float] | None
    measured: Mapping[str, Mapping[str, float]] | None
    folder: Path

    @property
    def accuracy(self) -> float:
        """On the test split; where that was not used, on the certify split."""
        return self.certify_accuracy if self.test is None else self.test["accuracy"]

    @property
    def latency_ms(self) -> float:
        """Mean on the first device: measured if it was timed, else predicted."""
        if self.measured:
            return next(iter(self.measured.values()))["latency_ms"]
        return self.predicted_ms

    def load(self) -> RoutedNetwork:
        """The trained network, ready to route: `network(x)` gives logits `b x c` and runs only what it must."""
        network, _ = load_candidate(self.folder)
        return RoutedNetwork(network, self.policy)

    def __str__(self) -> str:
        return f"{self.label}: {describe(self.architecture)}; {self.policy.describe()}"

    @property
    def predicted_ms(self) -> float:
        """Predicted mean on the first device, for the split that the search chose by."""
        return next(value for name, value in self.tune.items() if name.startswith("latency_ms@"))

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "point": self.label,
            "architecture": self.architecture.to_mapping(),
            "policy": self.policy.to_dict(),
            "tune": dict(self.tune),
            "certify_accuracy": self.certify_accuracy,
            "test": self.test,
            "measured": self.measured,
            "folder": str(self.folder),
        }


def points_table(points: Iterable[FrontPoint]) -> Table:
    """One line a point."""
    table = Table("point", "network", "policy", "predicted ms", "tune", "certify", "test", "measured ms")
    for point in points:
        test = "-" if point.test is None else f"{100 * point.test['accuracy']:.1f}"
        timed = "-" if not point.measured else f"{next(iter(point.measured.values()))['latency_ms']:.3f}"
        shares = (f"{100 * point.tune['accuracy']:.1f}", f"{100 * point.certify_accuracy:.1f}", test, timed)
        words = (point.label, describe(point.architecture), point.policy.describe(), f"{point.predicted_ms:.3f}")
        table.add_row(*words, *shares)
    return table
