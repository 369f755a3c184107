"""What the ledger hands out: frozen values, never rows of the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

SearchStatus = Literal["created", "profiling", "running", "scoring", "finished", "cancelled", "interrupted", "failed"]
EvaluationState = Literal["proposed", "running", "finished", "stopped", "failed"]
TerminalState = Literal["finished", "stopped", "failed"]

SEARCH_STATUSES: Final[tuple[SearchStatus, ...]] = get_args(SearchStatus)
EVALUATION_STATES: Final[tuple[EvaluationState, ...]] = get_args(EvaluationState)
TERMINAL_STATES: Final[tuple[TerminalState, ...]] = get_args(TerminalState)

PointKey = tuple[int, int]
"""An operating point inside a search: the number of its evaluation and its index there."""


@final
@dataclass(frozen=True)
class Search:
    """One search: what was asked, how far it is, and who is driving it."""

    id: str
    name: str
    created_at: float
    status: SearchStatus
    reason: str | None
    seed: int
    spec: Mapping[str, object]
    data_id: str | None
    table_version: str | None
    correction_id: str | None
    mlflow_run_id: str | None
    holder: str | None
    heartbeat_at: float | None
    cancel_requested: bool
    test_opened_at: float | None
    hypervolume_reference: Sequence[float] | None


@final
@dataclass(frozen=True)
class Evaluation:
    """One candidate at one fidelity: its key, how far it is, and what came of it."""

    id: int
    search_id: str
    number: int
    architecture_id: str
    architecture: Mapping[str, object]
    params: Mapping[str, object]
    level: float
    seed: int
    fidelity: int
    evaluator: str
    state: EvaluationState
    cause: str | None
    epochs_done: int
    attempts: int
    seconds: float | None
    metrics: Mapping[str, object] | None
    curve: Sequence[object] | None
    artefacts: str | None
    optuna_trial: int | None
    told: bool
    mlflow_run_id: str | None
    logged: bool
    created_at: float
    finished_at: float | None

    @property
    def terminal(self) -> bool:
        """Whether it has come to its end, after which it never changes."""
        return self.state in TERMINAL_STATES


@final
@dataclass(frozen=True)
class Rung:
    """What the scheduler decided about one candidate at one epoch; `sequence` orders all of them."""

    sequence: int
    number: int
    epoch: int
    points: Sequence[object]
    kept: bool


@final
@dataclass(frozen=True)
class NewPoint:
    """An operating point as an evaluation leaves it behind: how to run it, and its figures by split."""

    policy: Mapping[str, object]
    metrics: Mapping[str, object]


@final
@dataclass(frozen=True)
class Point:
    """A recorded operating point; `test` and `measured` stay None until scored and re-measured."""

    id: int
    number: int
    index: int
    policy: Mapping[str, object]
    metrics: Mapping[str, object]
    front: bool
    test: Mapping[str, object] | None
    measured: Mapping[str, object] | None


@final
@dataclass(frozen=True)
class Counts:
    """How many evaluations of a search are in each state; `done` are the finished ones."""

    done: int = 0
    stopped: int = 0
    failed: int = 0
    running: int = 0
    proposed: int = 0

    @property
    def total(self) -> int:
        """All evaluations, whatever their state."""
        return self.done + self.stopped + self.failed + self.running + self.proposed


@final
@dataclass(frozen=True)
class Event:
    """Something worth remembering that happened in a search."""

    at: float
    kind: str
    message: str
