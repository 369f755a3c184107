"""Measurements in the latency table: what is lacking, and what has been measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from ...spaces.errors import StoreError
from ..database import plain_json
from ..device import Environment
from ..keys import PartKey
from ..profile import Row
from ..session import Session
from ..timer import RoundTiming
from .entities import FULL, Density, Source, Visited
from .records import AbstractTableRecords, at_density, counts, in_chunks, process_of
from .rows import EnvironmentRow, MeasurementRow, PartKeyRow, SessionRow

_Visit = tuple[str, int, int]


class AbstractMeasurementRecords(AbstractTableRecords):
    """The part of the latency table that profiling fills."""

    def visited(
        self, keys: Sequence[str], environment_id: str, batches: Sequence[int], *, density: Density = FULL
    ) -> dict[Visited, dict[str, int]]:
        """Rounds of each (hash, batch) by the process that measured them; entries without any are left out.

        Rounds of sessions that count, those of one that was killed among them.
        """

        def work(session: Transaction) -> dict[Visited, dict[str, int]]:
            measured: dict[Visited, dict[str, int]] = {}
            for some in in_chunks(list(dict.fromkeys(keys))):
                counted = (
                    select(MeasurementRow.key_hash, MeasurementRow.batch, process_of(), func.count())
                    .join(SessionRow, SessionRow.id == MeasurementRow.session_id)
                    .where(MeasurementRow.environment_id == environment_id, MeasurementRow.key_hash.in_(some))
                    .where(MeasurementRow.batch.in_(list(batches)), counts(), at_density(density))
                    .group_by(MeasurementRow.key_hash, MeasurementRow.batch, process_of())
                )
                for key, batch, process, count in session.execute(counted):
                    measured.setdefault((key, batch), {})[process] = count
            return measured

        return self.database.read(work)

    def record(
        self,
        environment: Environment,
        session: Session,
        rows: Sequence[Row],
        *,
        density: Density = FULL,
        source: Source = "measured",
    ) -> None:
        """Keep the rows for good, and the session in its present state, replacing an earlier one.

        Handing over the same rows again changes nothing.

        Raises:
            StoreError: if a row of this session was recorded with another result, or the session belongs to
                another environment: measurements are never changed.
        """

        def work(transaction: Transaction) -> None:
            items = [list(item) for item in environment.items]
            new = {"id": environment.environment_id, "items": items}
            self.database.insert_new(transaction, EnvironmentRow, [new])
            self._environment_row(transaction, environment.environment_id, lock=True)
            self._keep_session(transaction, environment.environment_id, session)
            self._keep_keys(transaction, [row.key for row in rows])
            transaction.flush()  # before the measurements, which refer to all of these
            known = _timings_of(transaction, session.session_id, rows, density)
            for row in _new_rows(rows, known, session.session_id):
                transaction.add(
                    MeasurementRow(
                        key_hash=row.key.hash,
                        environment_id=environment.environment_id,
                        batch=row.batch,
                        density_num=density[0],
                        density_den=density[1],
                        session_id=session.session_id,
                        round=row.round,
                        source=source,
                        **asdict(row.timing),
                    )
                )

        self.database.write(work)

    def part_keys(self, environment_id: str) -> dict[str, PartKey]:
        """The parts that were measured in an environment, by hash, with what they execute."""
        measured = select(MeasurementRow.key_hash).where(MeasurementRow.environment_id == environment_id)

        def work(session: Transaction) -> dict[str, PartKey]:
            rows = session.scalars(select(PartKeyRow).where(PartKeyRow.hash.in_(measured)))
            return {row.hash: row.entity() for row in rows}

        return self.database.read(work)

    def _keep_session(self, transaction: Transaction, environment_id: str, session: Session) -> None:
        now = self.now()
        row = transaction.get(SessionRow, session.session_id)
        if row is None:
            row = SessionRow(id=session.session_id, environment_id=environment_id, started_at=now, superseded=False)
            transaction.add(row)
        elif row.environment_id != environment_id:
            raise StoreError(
                f"session {session.session_id!r} belongs to environment {row.environment_id!r} and cannot"
                f" go on in {environment_id!r}; open a new session"
            )
        row.protocol = plain_json(session.protocol.to_dict(), "session.protocol")
        row.seed = session.seed
        row.ended_at = now
        row.checks = plain_json(session.checks, "session.checks")
        row.load = plain_json(session.load, "session.load")
        row.canary_ratio = plain_json(1 + session.drift, "session.drift")
        row.finished = session.finished
        row.forced = session.forced
        row.accepted = session.accepted
        row.process = session.process

    def _keep_keys(self, transaction: Transaction, keys: Sequence[PartKey]) -> None:
        by_hash = {key.hash: key for key in keys}
        for some in in_chunks(sorted(by_hash)):
            known = set(transaction.scalars(select(PartKeyRow.hash).where(PartKeyRow.hash.in_(some))))
            new = [plain_json(by_hash[name].to_dict(), f"part {name}") for name in some if name not in known]
            self.database.insert_new(transaction, PartKeyRow, new)


def _timings_of(
    transaction: Transaction, session_id: str, rows: Sequence[Row], density: Density
) -> dict[_Visit, RoundTiming]:
    found: dict[_Visit, RoundTiming] = {}
    of_session = select(MeasurementRow).where(MeasurementRow.session_id == session_id, at_density(density))
    for some in in_chunks(sorted({row.key.hash for row in rows})):
        known = transaction.scalars(of_session.where(MeasurementRow.key_hash.in_(some)))
        found |= {(row.key_hash, row.batch, row.round): row.timing for row in known}
    return found


def _new_rows(rows: Sequence[Row], known: dict[_Visit, RoundTiming], session_id: str) -> Iterator[Row]:
    for row in rows:
        visit = (row.key.hash, row.batch, row.round)
        if visit not in known:
            known[visit] = row.timing
            yield row
        elif known[visit] != row.timing:
            raise StoreError(
                f"round {row.round} of part {row.key.hash} at batch {row.batch} has another result in session"
                f" {session_id!r}; measurements are never changed: use a new session"
            )
