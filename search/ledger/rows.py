"""The tables of the ledger, and the way from their rows to the values it hands out.

Rows stay in this package. Every name begins with `dynarch_`: Optuna and MLflow may share the database.
"""

from __future__ import annotations

from typing import cast, final

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ...hardware.database import COLUMN_TYPES, CONSTRAINT_NAMES, COUNTED, JsonList, JsonMap
from .entities import (
    EVALUATION_STATES,
    SEARCH_STATUSES,
    Evaluation,
    EvaluationState,
    Event,
    Point,
    Rung,
    Search,
    SearchStatus,
)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, values))})", name=column)


class LedgerBase(DeclarativeBase):
    """The tables that hold searches and what came of them."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = COLUMN_TYPES


@final
class SearchRow(LedgerBase):
    """One search."""

    __tablename__ = "dynarch_search"
    __table_args__ = (_one_of("status", SEARCH_STATUSES),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[float]
    status: Mapped[str]
    reason: Mapped[str | None]
    seed: Mapped[int]
    spec: Mapped[JsonMap]
    data_id: Mapped[str | None]
    table_version: Mapped[str | None]
    correction_id: Mapped[str | None]
    mlflow_run_id: Mapped[str | None]
    holder: Mapped[str | None]
    heartbeat_at: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    test_opened_at: Mapped[float | None]
    hypervolume_reference: Mapped[JsonList | None]

    def entity(self) -> Search:
        """This row as a value."""
        return Search(
            id=self.id,
            name=self.name,
            created_at=self.created_at,
            status=cast(SearchStatus, self.status),
            reason=self.reason,
            seed=self.seed,
            spec=self.spec,
            data_id=self.data_id,
            table_version=self.table_version,
            correction_id=self.correction_id,
            mlflow_run_id=self.mlflow_run_id,
            holder=self.holder,
            heartbeat_at=self.heartbeat_at,
            cancel_requested=self.cancel_requested,
            test_opened_at=self.test_opened_at,
            hypervolume_reference=self.hypervolume_reference,
        )


@final
class EvaluationRow(LedgerBase):
    """One candidate at one fidelity; the second unique constraint is its idempotent key."""

    __tablename__ = "dynarch_evaluation"
    __table_args__ = (
        UniqueConstraint("search_id", "number"),
        UniqueConstraint("search_id", "architecture_id", "seed", "fidelity"),
        _one_of("state", EVALUATION_STATES),
    )

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("dynarch_search.id"))
    number: Mapped[int]
    architecture_id: Mapped[str]
    architecture: Mapped[JsonMap]
    params: Mapped[JsonMap]
    level: Mapped[float]
    seed: Mapped[int]
    fidelity: Mapped[int]
    evaluator: Mapped[str]
    state: Mapped[str] = mapped_column(default="proposed")
    cause: Mapped[str | None]
    epochs_done: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float | None]
    metrics: Mapped[JsonMap | None]
    curve: Mapped[JsonList | None]
    artefacts: Mapped[str | None]
    optuna_trial: Mapped[int | None]
    told: Mapped[bool] = mapped_column(default=False)
    mlflow_run_id: Mapped[str | None]
    logged: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    def entity(self) -> Evaluation:
        """This row as a value."""
        return Evaluation(
            id=self.id,
            search_id=self.search_id,
            number=self.number,
            architecture_id=self.architecture_id,
            architecture=self.architecture,
            params=self.params,
            level=self.level,
            seed=self.seed,
            fidelity=self.fidelity,
            evaluator=self.evaluator,
            state=cast(EvaluationState, self.state),
            cause=self.cause,
            epochs_done=self.epochs_done,
            attempts=self.attempts,
            seconds=self.seconds,
            metrics=self.metrics,
            curve=self.curve,
            artefacts=self.artefacts,
            optuna_trial=self.optuna_trial,
            told=self.told,
            mlflow_run_id=self.mlflow_run_id,
            logged=self.logged,
            created_at=self.created_at,
            finished_at=self.finished_at,
        )


def _of_evaluation() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["search_id", "number"], ["dynarch_evaluation.search_id", "dynarch_evaluation.number"])


@final
class RungRow(LedgerBase):
    """One verdict of the scheduler; the ids rise in the order of recording."""

    __tablename__ = "dynarch_rung"
    __table_args__ = (UniqueConstraint("search_id", "number", "epoch"), _of_evaluation())

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    search_id: Mapped[str]
    number: Mapped[int]
    epoch: Mapped[int]
    points: Mapped[JsonList]
    kept: Mapped[bool]

    def entity(self) -> Rung:
        """This row as a value."""
        return Rung(sequence=self.id, number=self.number, epoch=self.epoch, points=self.points, kept=self.kept)


@final
class PointRow(LedgerBase):
    """One operating point of an evaluation."""

    __tablename__ = "dynarch_point"
    __table_args__ = (UniqueConstraint("search_id", "number", "index"), _of_evaluation())

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    search_id: Mapped[str]
    number: Mapped[int]
    index: Mapped[int]
    policy: Mapped[JsonMap]
    metrics: Mapped[JsonMap]
    front: Mapped[bool] = mapped_column(default=False)
    test: Mapped[JsonMap | None]
    measured: Mapped[JsonMap | None]

    def entity(self) -> Point:
        """This row as a value."""
        return Point(
            id=self.id,
            number=self.number,
            index=self.index,
            policy=self.policy,
            metrics=self.metrics,
            front=self.front,
            test=self.test,
            measured=self.measured,
        )


@final
class EventRow(LedgerBase):
    """Something that happened in a search."""

    __tablename__ = "dynarch_event"

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("dynarch_search.id"), index=True)
    at: Mapped[float]
    kind: Mapped[str]
    message: Mapped[str]

    def entity(self) -> Event:
        """This row as a value."""
        return Event(at=self.at, kind=self.kind, message=self.message)
