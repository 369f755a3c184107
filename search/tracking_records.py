"""What the tracker writes and reports, as plain values, and how names are made fit for MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, final

State = Literal["finished", "stopped", "failed"]

STATUS: Mapping[State, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
SEARCH_ID, NUMBER, KIND = "dynarch.search_id", "dynarch.number", "dynarch.kind"
PARETO = "pareto"
DRIFT = "dynarch.drift"  # of the parent run: whether a machine changed since its table was measured

_MAX_KEY_CHARS, _MAX_PARAM_CHARS, _MAX_TAG_CHARS = 250, 6000, 8000
_NOT_IN_A_NAME = re.compile(r"[^\w./ -]")


@final
@dataclass(frozen=True)
class CandidateRun:
    """One candidate as MLflow shall show it.

    Args:
        cause: why it failed or was stopped, or "".
        metrics: final values; those that are not finite are left out, as no chart can draw them.
        curves: (step, value) pairs by metric; a final value of the same name follows as one more step.
    """

    number: int
    architecture_id: str
    state: State
    cause: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    tags: Mapping[str, str]
    started_at_ms: int
    ended_at_ms: int

    @property
    def run_name(self) -> str:
        """The name of its run, which sorts by number."""
        return f"{self.number:04d} {self.architecture_id[:8]}"

    def points(self) -> Iterator[tuple[str, float, int]]:
        """Every (metric, value, step): the curves, then the final values."""
        for name, curve in self.curves.items():
            yield from ((key(name), value, step) for step, value in curve if isfinite(value))
        for name, value in self.metrics.items():
            if isfinite(value):
                steps = [step for step, _ in self.curves.get(name, ())]
                yield key(name), value, max(steps) + 1 if steps else 0

    def run_tags(self, search_id: str, parent_run_id: str) -> dict[str, str]:
        """Its tags: the given ones, and those by which its run is found again."""
        own = {
            SEARCH_ID: search_id,
            NUMBER: str(self.number),
            KIND: "candidate",
            "mlflow.parentRunId": parent_run_id,
            "mlflow.source.name": "dynarch",
            "dynarch.architecture_id": self.architecture_id,
            "dynarch.state": self.state,
        }
        cause = (
            {"dynarch.cause": self.cause, "mlflow.note.content": f"{self.state}: {self.cause}"} if self.cause else {}
        )
        return tag_values({**self.tags, **cause, **own})


@final
@dataclass(frozen=True)
class Step:
    """How a search stood (hypervolume, front_size, done, failed, stopped) when so many candidates had ended.

    Args:
        number: of candidates that had ended.
        metrics: by name.
        at_ms: when that was; the same values of the same time again change nothing.
    """

    number: int
    metrics: Mapping[str, float]
    at_ms: int


@final
@dataclass(frozen=True)
class Reconciled:
    """What `MLflowTracker.reconcile` found, as candidate numbers.

    Args:
        ended: had been left running; their values may be incomplete, so log them again.
        deduplicated: had more than one run; one was kept.
        missing: have no run; log them.
        unknown: have a run although they are not terminal; left alone.
    """

    ended: tuple[int, ...] = ()
    deduplicated: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()


def key(name: str) -> str:
    """`name` with "_" for what MLflow takes in no name."""
    return _NOT_IN_A_NAME.sub("_", name)[:_MAX_KEY_CHARS]


def tag_values(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags within MLflow's limits."""
    return {key(name): value[:_MAX_TAG_CHARS] for name, value in tags.items()}


def param_values(params: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Parameters within MLflow's limits, without the `known` ones: it refuses to change a parameter."""
    cut = {key(name): value[:_MAX_PARAM_CHARS] for name, value in params.items()}
    return {name: value for name, value in cut.items() if name not in known}
