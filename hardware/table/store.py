"""The latency table: measured entries of any number of devices and software environments."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from sqlalchemy import case, distinct, func, select
from sqlalchemy.orm import Session

from ..database import Component, Database
from ..device import Environment
from .changes import AbstractChangeRecords
from .entities import TableSummary
from .rows import EnvironmentRow, MeasurementRow, PartKeyRow, SessionRow, VersionRow

LATENCY_TABLE: Final = Component(
    name="latency table",
    version_table="dynarch_table_version",
    migrations=Path(__file__).parent.parent / "migrations",
    head="0002",
)


@final
class LatencyTable(AbstractChangeRecords):
    """Measurements, frozen versions of them, and corrections, in SQLite or PostgreSQL.

    Every method is one transaction. What was measured is never changed and never mixed between environments.

    Examples:
        >>> with LatencyTable.open("sqlite:///dynarch.db") as table:  # doctest: +SKIP
        ...     table.freeze(device.environment().environment_id).version
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> LatencyTable:
        """Open the table at a file path or database address, creating or upgrading it.

        Args:
            url: a file path, `sqlite:///FILE`, or `postgresql://USER:PASSWORD@HOST/NAME`.
            clock: epoch seconds, kept with sessions, versions and corrections.
            pause: waits that many seconds between two attempts at a busy database.

        Raises:
            StoreError: if the place cannot be written or reached; says what to change.
            NewerSchemaError: if a newer dynarch wrote the tables.
        """
        return cls(Database.open(url, component=LATENCY_TABLE, pause=pause), clock=clock)

    @property
    def database(self) -> Database:
        """Where the rows are."""
        return self._database

    def now(self) -> float:
        """Epoch seconds by the clock of this table."""
        return self._clock()

    def environments(self) -> dict[str, Environment]:
        """Every environment that something was recorded for, by id."""

        def work(session: Session) -> dict[str, Environment]:
            rows = session.scalars(select(EnvironmentRow).order_by(EnvironmentRow.id))
            return {row.id: row.entity() for row in rows}

        return self.database.read(work)

    def describe(self, environment_id: str) -> TableSummary:
        """What the table holds for one environment.

        Raises:
            StoreError: if nothing was recorded for it.
        """

        def work(session: Session) -> TableSummary:
            environment = self._environment_row(session, environment_id, lock=False).entity()
            measurements, batches = _measured(session, environment_id)
            sessions, rejected = _sessions(session, environment_id)
            versions = select(VersionRow).filter_by(environment_id=environment_id).order_by(VersionRow.id)
            return TableSummary(
                environment_id=environment_id,
                environment=environment,
                parts=_parts_by_kind(session, environment_id),
                batches=batches,
                measurements=measurements,
                sessions=sessions,
                rejected_sessions=rejected,
                versions=tuple(row.entity() for row in session.scalars(versions)),
            )

        return self.database.read(work)

    def close(self) -> None:
        """Give every connection back."""
        self._database.close()

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parts_by_kind(session: Session, environment_id: str) -> dict[str, int]:
    measured = select(MeasurementRow.key_hash).filter_by(environment_id=environment_id)
    counted = select(PartKeyRow.kind, func.count()).where(PartKeyRow.hash.in_(measured))
    rows = session.execute(counted.group_by(PartKeyRow.kind).order_by(PartKeyRow.kind))
    return {row[0]: row[1] for row in rows}


def _measured(session: Session, environment_id: str) -> tuple[int, tuple[int, ...]]:
    counted = select(MeasurementRow.batch, func.count()).filter_by(environment_id=environment_id)
    by_batch = session.execute(counted.group_by(MeasurementRow.batch)).all()
    return sum(count for _, count in by_batch), tuple(sorted(batch for batch, _ in by_batch))


def _sessions(session: Session, environment_id: str) -> tuple[int, int]:
    rejected = func.coalesce(func.sum(case((SessionRow.accepted, 0), else_=1)), 0)
    counted = select(func.count(distinct(SessionRow.id)), rejected).filter_by(environment_id=environment_id)
    count, refused = session.execute(counted).one()
    return int(count), int(refused)
