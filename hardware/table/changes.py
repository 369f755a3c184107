"""Which sessions still count, as the machine may have changed since they were measured."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from ..device import Environment
from ..session import Session
from .measurements import AbstractMeasurementRecords
from .rows import MeasurementRow, SessionRow
from .transfer import AbstractTransferRecords


class AbstractChangeRecords(AbstractMeasurementRecords, AbstractTransferRecords):
    """The part of the latency table that is asked for drift."""

    def kept_sessions(self, environment_id: str, *, version: str | None = None) -> dict[str, tuple[Session, bool]]:
        """The accepted sessions with measurements, by id, and whether each is superseded.

        Args:
            version: only those that this frozen version rests on.

        Raises:
            StoreError: if the version is unknown.
        """
        measured = select(MeasurementRow.session_id).where(MeasurementRow.environment_id == environment_id)

        def work(transaction: Transaction) -> set[str]:
            names = set(transaction.scalars(measured.distinct()))
            return (
                names if version is None else names & set(self._frozen(transaction, environment_id, version).sessions)
            )

        named = self.database.read(work)
        stored = (each for each in self.sessions(environment_id) if each.accepted and each.session_id in named)
        return {each.session_id: (each.session(), each.superseded) for each in stored}

    def supersede(self, environment: Environment, look: Session, superseded: Collection[str]) -> None:
        """Keep what the canaries told, and let exactly these sessions of the environment not count.

        Their measurements stay, and frozen versions rest on them as before.
        """
        environment_id = environment.environment_id

        def work(transaction: Transaction) -> None:
            self._environment_row(transaction, environment_id, lock=True)
            for row in transaction.scalars(select(SessionRow).filter_by(environment_id=environment_id)):
                row.superseded = row.id in superseded
            self._keep_session(transaction, environment_id, replace(look, finished=True))

        self.database.write(work)
