"""Fronts: the points of a finished search as their user holds them, here or on another device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..hardware.device import AbstractDevice, one_thread
from ..spaces.architecture import Architecture
from ..spaces.errors import UnknownNameError
from ..spaces.policy import Policy
from .candidate import candidate_folder
from .front_point import FrontPoint
from .ledger.entities import Point
from .ledger.store import Ledger
from .problem import Problem
from .profiling import Profiler
from .proposals import numbers
from .retarget import finished, retarget
from .storage import Storage


def recorded_front(ledger: Ledger, search_id: str, folder: Path) -> list[FrontPoint]:
    """The front as the ledger has it, in the ledger's order; empty before the end."""
    evaluations = {evaluation.number: evaluation for evaluation in ledger.evaluations(search_id)}
    points = ledger.points(search_id, front_only=True)
    return [_point(p, Architecture.from_mapping(evaluations[p.number].architecture), folder) for p in points]


def retargeted_front(
    storage: Storage,
    search_id: str,
    problem: Problem,
    *,
    device: AbstractDevice | None,
    environment: str | None,
    batch: int,
) -> list[FrontPoint]:
    """The front on another device, or in another environment of the latency table."""
    folder = storage.search_folder(search_id)
    with storage.open_ledger() as ledger:
        candidates = finished(ledger, search_id, folder)
    costs = [each.costs for each in candidates]
    with one_thread(), storage.open_table() as table:
        profiler = Profiler(problem.space, problem.data.signature, table, seed=problem.strategy.seed)
        if device is None:
            members = (each.architecture for each in candidates)
            book = profiler.told(environment or "", costs, members, batch=batch)
        else:
            book = profiler.known(device, costs) or profiler.book({"device": device})[0]
    found = retarget(problem, candidates, book)
    return [
        FrontPoint(
            f"{each.number}.{each.index}",
            each.architecture,
            each.point.policy,
            each.point.metrics,
            each.certify_accuracy,
            None,
            None,
            folder / candidate_folder(each.number),
        )
        for each in found
    ]


def selected(
    points: Sequence[FrontPoint],
    *,
    device: str | None = None,
    max_latency_ms: float | None = None,
    min_accuracy: float | None = None,
) -> tuple[FrontPoint, ...]:
    """The points that keep these bounds, the fastest on the device first; None is the first device.

    Latency counts as measured if it was, else as predicted; accuracy as on the test split if that was used.

    Raises:
        UnknownNameError: if the search has no such device.
    """
    for point in points:
        if device is not None and device not in point.devices:
            raise UnknownNameError("device", device, point.devices)
    kept = [
        point
        for point in points
        if (max_latency_ms is None or point.latency_on(device) <= max_latency_ms)
        and (min_accuracy is None or point.accuracy >= min_accuracy)
    ]
    return tuple(sorted(kept, key=lambda point: point.predicted_on(device)))


def _point(point: Point, architecture: Architecture, folder: Path) -> FrontPoint:
    test: Any = point.test
    measured: Any = point.measured
    certified: Any = point.metrics["certify_accuracy"]
    return FrontPoint(
        f"{point.number}.{point.index}",
        architecture,
        Policy.from_dict(point.policy),
        numbers(point),
        float(certified),
        None if test is None else test["metrics"],
        measured,
        folder / candidate_folder(point.number),
    )
