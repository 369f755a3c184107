"""Frame: everything that a search recorded, one row an operating point, for pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..spaces.architecture import Architecture
from ..spaces.policy import Policy
from ..spaces.space import describe
from .candidate_run import stage
from .ledger.entities import Evaluation, Point
from .ledger.store import Ledger
from .proposals import numbers
from .report_rows import wilson

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    *("search", "candidate", "point", "label", "front", "family", "backbone", "network", "policy"),
    *("tune_accuracy", "certify_accuracy", "test_accuracy", "test_accuracy_low", "test_accuracy_high"),
    *("macs", "parameters"),
)
LAST_COLUMNS = ("stage", "epochs", "training_s", "architecture")
TIMES = (  # of a device: column, field of the metrics
    ("mean_ms", "latency_ms"),
    ("p95_ms", "latency_p95_ms"),
    ("worst_ms", "latency_worst_ms"),
)


def search_frame(ledger: Ledger, search_id: str) -> DataFrame:
    """One row an operating point of a finished candidate, in the order of candidates and of rising latency.

    Accuracies are fractions, times in milliseconds, for each device `predicted_mean_ms@cpu`, `predicted_p95_ms@cpu` and
    `predicted_worst_ms@cpu` on the tune split; `test_mean_ms@cpu` and the like are predictions for the test split, and
    `measured_mean_ms@cpu`, `measured_p95_ms@cpu` the device's own. What is not known is missing: the test split is only
    opened for the front.
    """
    from pandas import DataFrame

    record = ledger.search(search_id)
    spec: Any = record.spec
    devices = tuple(spec["devices"])
    evaluations = {evaluation.number: evaluation for evaluation in ledger.evaluations(search_id)}
    rows = [_row(search_id, evaluations[point.number], point, devices) for point in ledger.points(search_id)]
    return DataFrame(rows, columns=list(columns(devices)))


def columns(devices: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all columns."""
    times = [
        f"{source}_{what}@{device}"
        for device in devices
        for source, kinds in (("predicted", TIMES), ("test", TIMES[:2]), ("measured", TIMES[:2]))
        for what, _ in kinds
    ]
    return (*COLUMNS, *times, *LAST_COLUMNS)


def _row(search_id: str, evaluation: Evaluation, point: Point, devices: tuple[str, ...]) -> dict[str, Any]:
    architecture, tuned = Architecture.from_mapping(evaluation.architecture), numbers(point)
    test: Any = point.test or {}
    low, high = wilson(test["correct"], test["total"]) if test else (None, None)
    return {
        "search": search_id,
        "candidate": point.number,
        "point": point.index,
        "label": f"{point.number}.{point.index}",
        "front": point.front,
        "family": "+".join(architecture.families) or "static",
        "backbone": architecture.backbone["name"],
        "network": describe(architecture),
        "policy": Policy.from_dict(point.policy).describe(),
        "tune_accuracy": tuned["accuracy"],
        "certify_accuracy": point.metrics.get("certify_accuracy"),
        "test_accuracy": test.get("metrics", {}).get("accuracy"),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "macs": tuned["macs"],
        "parameters": tuned.get("parameters"),
        **_times(tuned, test.get("metrics", {}), point.measured or {}, devices),
        "stage": stage(evaluation),
        "epochs": evaluation.epochs_done,
        "training_s": evaluation.seconds,
        "architecture": architecture.id,
    }


def _times(
    tuned: Mapping[str, float], test: Mapping[str, float], measured: Mapping[str, Any], devices: tuple[str, ...]
) -> dict[str, float | None]:
    times: dict[str, float | None] = {}
    for device in devices:
        for what, field in TIMES:
            times[f"predicted_{what}@{device}"] = tuned.get(f"{field}@{device}")
        for what, field in TIMES[:2]:
            times[f"test_{what}@{device}"] = test.get(f"{field}@{device}")
            times[f"measured_{what}@{device}"] = measured.get(device, {}).get(field)
    return times
