"""Candidate run: a candidate as MLflow shall show it, from what the ledger says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..spaces.architecture import Architecture
from ..spaces.space import describe
from .ledger.entities import Evaluation, Point
from .problem import Problem
from .proposals import at_level, numbers
from .tracking_records import CandidateRun

_CARRIERS = ("move.", "gather.", "scatter.")  # parts that carry inputs to a branch, and run when it does


def candidate_run(problem: Problem, evaluation: Evaluation, points: Sequence[Point]) -> CandidateRun:
    """A candidate at its own operating level, with the ends of its front beside."""
    architecture = Architecture.from_mapping(evaluation.architecture)
    metrics = _metrics(next(iter(problem.devices)), evaluation.level, points) if points else {}
    metrics["seconds"] = evaluation.seconds or 0.0
    metrics["epochs"] = float(evaluation.epochs_done)
    return CandidateRun(
        number=evaluation.number,
        architecture_id=architecture.id,
        state=evaluation.state,  # type: ignore[arg-type]
        cause=evaluation.cause or "",
        params={name: str(value) for name, value in evaluation.params.items()}
        | {"network": describe(architecture), "evaluator": evaluation.evaluator},
        metrics=metrics,
        curves=_curves(evaluation.curve or ()),
        tags={
            "family": ",".join(architecture.families) or "static",
            "backbone": str(architecture.backbone["name"]),
            "stage": stage(evaluation),
            "pareto": "false",
        },
        started_at_ms=round(evaluation.created_at * 1000),
        ended_at_ms=round((evaluation.finished_at or evaluation.created_at) * 1000),
    )


def stage(evaluation: Evaluation) -> str:
    """How far a candidate came: `full`, `rung 3` if it was stopped after three epochs, or `failed`."""
    stages = {"finished": "full", "failed": "failed"}
    return stages.get(evaluation.state, f"rung {evaluation.epochs_done}")


def _metrics(device: str, level: float, points: Sequence[Point]) -> dict[str, float]:
    rows = [numbers(point) for point in points]
    chosen = at_level(level, len(rows))
    metrics = {name.removesuffix(f"@{device}"): value for name, value in rows[chosen].items()}
    metrics |= _rates(points[chosen].metrics)
    metrics["best_accuracy"] = max(row["accuracy"] for row in rows)
    metrics["least_latency_ms"] = min(row[f"latency_ms@{device}"] for row in rows)
    metrics["operating_points"] = float(len(rows))
    return metrics


def _rates(recorded: Mapping[str, Any]) -> dict[str, float]:
    """Share of the inputs that leave at each exit, and how often those that get there run what a gate guards."""
    shares = list(recorded.get("exit_share", ()))
    rates = {f"exit_{index}_share": float(share) for index, share in enumerate(shares[:-1])}
    if shares:
        rates["final_share"] = float(shares[-1])
    usage = recorded.get("usage", {}).items()
    return rates | {f"rate/{part}": float(rate) for part, rate in usage if not part.startswith(_CARRIERS)}


def _curves(rows: Sequence[Any]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "epoch" and value is not None:
                curves.setdefault(name, []).append((int(row["epoch"]), float(value)))
    return curves
