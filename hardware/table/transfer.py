"""Whole environments, out of one latency table and into another, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from ...spaces.errors import StoreError
from ..database import plain_json
from ..keys import PartKey
from ..timer import RoundTiming
from .contents import Added, StoredMeasurement, StoredSession, TableContents
from .entities import Density, StoredCorrection
from .records import in_chunks
from .rows import CorrectionRow, EnvironmentRow, MeasurementRow, PartKeyRow, SessionRow, VersionRow
from .versions import AbstractVersionRecords


class AbstractTransferRecords(AbstractVersionRecords):
    """The part of the latency table that export and import use."""

    def contents(self, environment_id: str, *, version: str | None = None) -> TableContents:
        """All there is of an environment, rejected sessions included, or what a frozen version rests on.

        Raises:
            StoreError: if nothing that counts was measured, the version is unknown, or one of its sessions was
                rejected after it was frozen.
        """

        def work(session: Session) -> TableContents:
            # The lock keeps profiling from adding rows between two of these statements.
            environment = self._environment_row(session, environment_id, lock=True).entity()
            stored = select(SessionRow).filter_by(environment_id=environment_id)
            which = select(MeasurementRow).filter_by(environment_id=environment_id)
            if version is not None:
                which = select(MeasurementRow).where(*self._members(session, environment_id, version))
                stored = stored.where(SessionRow.id.in_(self._frozen(session, environment_id, version).sessions))
            sessions = sorted(map(_session, session.scalars(stored)), key=lambda each: each.session_id)
            if version is not None:  # which was frozen when all of them counted
                sessions = [replace(each, superseded=False) for each in sessions]
            named = version or self._contents_hash(session, environment_id)
            measurements = sorted(map(_measurement, session.scalars(which)), key=lambda row: row.contents)
            fitted = select(CorrectionRow).filter_by(environment_id=environment_id, version=named)
            return TableContents(
                environment=environment,
                version=named,
                sessions=tuple(sessions),
                parts=_parts(session, sorted({row.key_hash for row in measurements})),
                measurements=tuple(measurements),
                corrections=tuple(row.entity() for row in session.scalars(fitted.order_by(CorrectionRow.id))),
            )

        found = self.database.read(work)
        if found.hashed() != found.version:
            raise StoreError(
                f"version {found.version!r} of environment {environment_id!r} is no longer what its measurements hash"
                " to, as one of its sessions was rejected since or another dynarch froze it; use the present state"
                " instead"
            )
        return found

    def sessions(self, environment_id: str) -> tuple[StoredSession, ...]:
        """Every session in an environment, by id."""
        stored = select(SessionRow).filter_by(environment_id=environment_id)

        def work(session: Session) -> tuple[StoredSession, ...]:
            return tuple(sorted(map(_session, session.scalars(stored)), key=lambda each: each.session_id))

        return self.database.read(work)

    def measurements(self, environment_id: str) -> tuple[StoredMeasurement, ...]:
        """Every measurement in an environment, those of rejected sessions too, in the order in which they came."""
        which = select(MeasurementRow).filter_by(environment_id=environment_id).order_by(MeasurementRow.id)

        def work(session: Session) -> tuple[StoredMeasurement, ...]:
            return tuple(map(_measurement, session.scalars(which)))

        return self.database.read(work)

    def receive(self, contents: TableContents) -> Added:
        """Add what is not here yet, as imported; if anything contradicts what is here, nothing is added.

        Rounds measured elsewhere are never mixed with an environment's own ones. If the environment is then what
        it was where the contents come from, that version is frozen here too, with its corrections.

        Raises:
            StoreError: if a session, part, measurement or correction stands here with other contents, or
                something new would join an environment that was measured here.
        """
        environment_id = contents.environment.environment_id

        def work(session: Session) -> Added:
            items = [list(item) for item in contents.environment.items]
            self.database.insert_new(session, EnvironmentRow, [{"id": environment_id, "items": items}])
            self._environment_row(session, environment_id, lock=True)
            sessions = _new_sessions(session, environment_id, contents.sessions)
            measurements = _new_measurements(session, contents)
            own = _measured_here(session, environment_id)
            if own and (sessions or measurements):
                raise StoreError(
                    f"environment {environment_id!r} was measured here, and imported rounds never mix with measured"
                    " ones; import into another storage, or compare the two with: dynarch table diff"
                )
            parts = _new_parts(session, contents.parts)
            self._write(session, contents, sessions, parts, measurements)
            corrections = 0
            if not own and self._contents_hash(session, environment_id) == contents.version:
                self._pin(session, environment_id)
                corrections = _add_corrections(session, contents.corrections)
            frozen = select(VersionRow.id).filter_by(environment_id=environment_id, version=contents.version)
            pinned = session.scalars(frozen).one_or_none() is not None
            counts = (len(sessions), len(parts), len(measurements), corrections)
            return Added(environment_id, contents.version, *counts, pinned)

        return self.database.write(work)

    def _write(
        self,
        session: Session,
        contents: TableContents,
        sessions: Sequence[StoredSession],
        parts: Sequence[PartKey],
        measurements: Sequence[StoredMeasurement],
    ) -> None:
        environment_id = contents.environment.environment_id
        for each in sessions:
            values = {name: value for name, value in vars(each).items() if name != "session_id"}
            session.merge(SessionRow(id=each.session_id, environment_id=environment_id, **values))
        new = [plain_json(part.to_dict(), f"part {part.hash}") for part in parts]
        self.database.insert_new(session, PartKeyRow, new)
        session.flush()  # before the measurements, which refer to all of these
        for some in in_chunks(measurements):
            session.execute(insert(MeasurementRow), [_values(row, environment_id) for row in some])


def _measurement(row: MeasurementRow) -> StoredMeasurement:
    return StoredMeasurement(
        key_hash=row.key_hash,
        batch=row.batch,
        density=(row.density_num, row.density_den),
        session_id=row.session_id,
        round=row.round,
        timing=row.timing,
        source="measured" if row.source == "measured" else "imported",
    )


def _values(row: StoredMeasurement, environment_id: str) -> dict[str, str | int]:
    return {
        "key_hash": row.key_hash,
        "environment_id": environment_id,
        "batch": row.batch,
        "density_num": row.density[0],
        "density_den": row.density[1],
        "session_id": row.session_id,
        "round": row.round,
        "source": "imported",
        **asdict(row.timing),
    }


def _session(row: SessionRow) -> StoredSession:
    return StoredSession(
        session_id=row.id,
        protocol=row.protocol,
        seed=row.seed,
        started_at=row.started_at,
        ended_at=row.ended_at,
        checks=row.checks,
        load=row.load,
        canary_ratio=row.canary_ratio,
        finished=row.finished,
        forced=row.forced,
        accepted=row.accepted,
        process=row.process,
        superseded=row.superseded,
    )


def _parts(session: Session, hashes: Sequence[str]) -> tuple[PartKey, ...]:
    rows = [row for some in in_chunks(hashes) for row in _known_parts(session, some)]
    return tuple(sorted((row.entity() for row in rows), key=lambda key: key.hash))


def _known_parts(session: Session, hashes: Sequence[str]) -> Sequence[PartKeyRow]:
    return session.scalars(select(PartKeyRow).where(PartKeyRow.hash.in_(hashes))).all()


def _measured_here(session: Session, environment_id: str) -> bool:
    own = select(MeasurementRow.id).filter_by(environment_id=environment_id, source="measured").limit(1)
    return session.scalars(own).first() is not None


def _new_sessions(session: Session, environment_id: str, sessions: Sequence[StoredSession]) -> list[StoredSession]:
    """The sessions that are not here, or that are here in an earlier state."""
    new = []
    for each in sessions:
        row = session.get(SessionRow, each.session_id)
        if row is not None and row.environment_id != environment_id:
            raise StoreError(
                f"session {each.session_id!r} belongs to environment {row.environment_id!r} here, not to"
                f" {environment_id!r}; export the table again where it was measured"
            )
        if row is None:
            new.append(each)
            continue
        known = _session(row)
        superseded = known.superseded or each.superseded  # which stays so: an older file may not know it yet
        here, there = replace(known, superseded=superseded), replace(each, superseded=superseded)
        if here != there and not (here.same_work(there) and here.ended_at != there.ended_at):
            raise StoreError(
                f"session {each.session_id!r} stands here with other contents; measurements are never changed:"
                " export the table again where it was measured"
            )
        latest = max(here, there, key=lambda state: state.ended_at)
        if latest != known:
            new.append(latest)
    return new


def _new_measurements(session: Session, contents: TableContents) -> list[StoredMeasurement]:
    known: dict[tuple[str, int, Density, str, int], RoundTiming] = {}
    for some in in_chunks([each.session_id for each in contents.sessions]):
        rows = session.scalars(select(MeasurementRow).where(MeasurementRow.session_id.in_(some)))
        known |= {each.visit: each.timing for each in map(_measurement, rows)}
    for row in contents.measurements:
        if known.get(row.visit, row.timing) != row.timing:
            raise StoreError(
                f"round {row.round} of part {row.key_hash} at batch {row.batch} has another result here in session"
                f" {row.session_id!r}; measurements are never changed: export the table again where it was measured"
            )
    return [row for row in contents.measurements if row.visit not in known]


def _new_parts(session: Session, parts: Sequence[PartKey]) -> list[PartKey]:
    known = {
        row.hash: row.entity() for some in in_chunks([p.hash for p in parts]) for row in _known_parts(session, some)
    }
    for part in parts:
        if part.hash in known and known[part.hash].to_dict() != part.to_dict():
            raise StoreError(
                f"part {part.hash} stands here with other costs or operations, as another dynarch wrote it; export"
                " the table again with this version of dynarch, or import into another storage"
            )
    return [part for part in parts if part.hash not in known]


def _add_corrections(session: Session, corrections: Sequence[StoredCorrection]) -> int:
    added = 0
    for each in corrections:
        key = {"correction_id": each.correction_id, "environment_id": each.environment_id, "version": each.version}
        row = session.scalars(select(CorrectionRow).filter_by(**key)).one_or_none()
        if row is None:
            session.add(CorrectionRow(**key, created_at=each.created_at, payload=dict(each.payload)))
            session.flush()  # one by one: their order says which is the latest
            added += 1
        elif row.payload != dict(each.payload):
            raise StoreError(
                f"correction {each.correction_id!r} stands here with other contents; corrections are never changed:"
                " export the table again where it was measured"
            )
    return added
