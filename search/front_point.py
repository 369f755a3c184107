"""Front point: one member of a front as its user holds it, and as a table shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.table import Table
from rich.text import Text

from ..evaluators.from_scratch import load_candidate
from ..spaces.architecture import Architecture
from ..spaces.network import RoutedNetwork
from ..spaces.policy import Policy
from ..spaces.space import describe
from .bundle.bundle import Bundle, write_bundle


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
        return self.latency_on()

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that its latency is known on, the first of the search first."""
        return tuple(name.partition("@")[2] for name in self.tune if name.startswith("latency_ms@"))

    def latency_on(self, device: str | None = None) -> float:
        """Mean on a device, the first if none is named: measured if it was timed, else predicted."""
        measured = (self.measured or {}).get(device or self.devices[0])
        return self.predicted_on(device) if measured is None else measured["latency_ms"]

    def predicted_on(self, device: str | None = None) -> float:
        """Predicted mean on a device, for the split that the search chose by."""
        return self.tune[f"latency_ms@{device or self.devices[0]}"]

    def load(self) -> RoutedNetwork:
        """The trained network, ready to route: `network(x)` gives logits `b x c` and runs only what it must."""
        network, _ = load_candidate(self.folder)
        return RoutedNetwork(network, self.policy)

    def export(
        self,
        folder: str | Path,
        *,
        runtimes: Sequence[str] | None = None,
        weights_licence: str | None = None,
    ) -> Bundle:
        """Write it as a folder that runs without dynarch; docs/deployment.md says what lies there.

        Args:
            folder: new or empty.
            runtimes: of `torch` and `onnxruntime`; None: the first, and the second where it can.
            weights_licence: of the weights, if you know it, for the manifest.

        Raises:
            SpecError: if the folder holds something, or something cannot be exported; it names what.
            DataError: if the point's own folder does not hold its network.
        """
        claims = {
            "tune": dict(self.tune),
            "certify_accuracy": self.certify_accuracy,
            "test": None if self.test is None else dict(self.test),
            "measured": None if self.measured is None else {name: dict(ms) for name, ms in self.measured.items()},
        }
        about = {"point": self.label, "devices": list(self.devices), "claims": claims}
        return write_bundle(self.load(), folder, runtimes=runtimes, about=about, weights_licence=weights_licence)

    def __str__(self) -> str:
        return f"{self.label}: {describe(self.architecture)}; {self.policy.describe()}"

    @property
    def predicted_ms(self) -> float:
        """Predicted mean on the first device, for the split that the search chose by."""
        return self.predicted_on()

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


def points_table(points: Iterable[FrontPoint], device: str | None = None) -> Table:
    """Two lines a point, latencies in milliseconds on a device, None being the first, accuracies in percent.

    Numbers are never cut; on a narrow terminal it is the networks and policies that take more lines.
    """
    table = Table("point", "network, policy", title="latency in ms, accuracy in %", title_justify="left")
    for head in ("predicted", "measured", "tune", "certify", "test"):
        table.add_column(head, justify="right", no_wrap=True)
    for point in points:
        test = "-" if point.test is None else f"{100 * point.test['accuracy']:.1f}"
        measured = (point.measured or {}).get(device or point.devices[0])
        timed = "-" if measured is None else f"{measured['latency_ms']:.3f}"
        network = Text(f"{describe(point.architecture)}\n{point.policy.describe()}")
        shares = (f"{100 * point.tune['accuracy']:.1f}", f"{100 * point.certify_accuracy:.1f}", test)
        table.add_row(point.label, network, f"{point.predicted_on(device):.3f}", timed, *shares)
    return table
