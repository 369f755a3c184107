"""Values of the latency table, the versions that pin them, and the corrections fitted on a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from ...spaces.errors import MissingEntryError, StoreError
from ..database import plain_json
from ..device import Statistic
from ..timer import RoundTiming
from .contents import contents_hash
from .entities import FULL, Density, Entry, StoredCorrection, TableVersion, Visited
from .records import AbstractTableRecords, at_density, counts, in_chunks, process_of
from .rows import CONTENTS, CorrectionRow, MeasurementRow, PartKeyRow, SessionRow, VersionRow

_SHOWN = 5  # missing entries that a message spells out


class AbstractVersionRecords(AbstractTableRecords):
    """The part of the latency table that predictions read."""

    def entries(
        self,
        environment_id: str,
        hashes: Sequence[str],
        batches: Sequence[int],
        *,
        version: str | None = None,
        statistic: Statistic = "min",
        density: Density = FULL,
    ) -> dict[Visited, Entry]:
        """The value of every (hash, batch), as of a frozen version or as of now.

        Raises:
            MissingEntryError: if one has no accepted measurement; it is never taken for zero.
            StoreError: if the version is unknown.
        """
        names = list(dict.fromkeys(hashes))

        def work(session: Session) -> dict[Visited, Entry]:
            which = self._members(session, environment_id, version)
            rows = [
                (row, process)
                for some in in_chunks(names)
                for row, process in session.execute(
                    _by_process()
                    .where(*which, MeasurementRow.key_hash.in_(some), MeasurementRow.batch.in_(list(batches)))
                    .where(at_density(density))
                )
            ]
            found = _entries_of(rows, statistic)
            missing = [(name, batch) for name in names for batch in batches if (name, batch) not in found]
            if missing:
                raise self._lacking(session, environment_id, missing)
            return {(name, batch): found[name, batch] for name in names for batch in batches}

        return self.database.read(work)

    def measured(
        self,
        environment_id: str,
        *,
        version: str | None = None,
        statistic: Statistic = "min",
        density: Density = FULL,
    ) -> dict[Visited, Entry]:
        """Every value there is for an environment, as of a frozen version or as of now.

        Raises:
            StoreError: if the version is unknown.
        """

        def work(session: Session) -> dict[Visited, Entry]:
            which = self._members(session, environment_id, version)
            rows = session.execute(_by_process().where(*which, at_density(density)))
            return _entries_of(((row, process) for row, process in rows), statistic)

        return self.database.read(work)

    def version(self, environment_id: str) -> str:
        """Hash of the contents of all accepted measurements of the environment, as of now.

        Raises:
            StoreError: if there are none.
        """

        def work(session: Session) -> str:
            return self._contents_hash(session, environment_id)

        return self.database.read(work)

    def freeze(self, environment_id: str) -> TableVersion:
        """Pin the present state, so that predictions made from it can be made again later.

        Freezing the same contents again returns the version that is there.

        Raises:
            StoreError: if nothing was measured.
        """

        def work(session: Session) -> TableVersion:
            self._environment_row(session, environment_id, lock=True)
            return self._pin(session, environment_id).entity()

        return self.database.write(work)

    def versions(self, environment_id: str) -> tuple[TableVersion, ...]:
        """The frozen versions of the environment, the oldest first."""

        def work(session: Session) -> tuple[TableVersion, ...]:
            stored = select(VersionRow).filter_by(environment_id=environment_id).order_by(VersionRow.id)
            return tuple(row.entity() for row in session.scalars(stored))

        return self.database.read(work)

    def put_correction(
        self, correction_id: str, environment_id: str, version: str, payload: Mapping[str, object]
    ) -> None:
        """Keep a correction that was fitted on a frozen version; again the same changes nothing.

        Raises:
            StoreError: if the version is unknown, or the id stands there for other contents.
        """
        plain = plain_json(payload, "correction")
        key = {"correction_id": correction_id, "environment_id": environment_id, "version": version}

        def work(session: Session) -> None:
            self._environment_row(session, environment_id, lock=True)
            self._frozen(session, environment_id, version)
            row = session.scalars(select(CorrectionRow).filter_by(**key)).one_or_none()
            if row is None:
                session.add(CorrectionRow(**key, created_at=self.now(), payload=plain))
            elif row.payload != plain:
                raise StoreError(
                    f"correction {correction_id!r} of version {version!r} is there with other contents;"
                    " corrections are never changed: give it an id of its own"
                )

        self.database.write(work)

    def correction(self, correction_id: str) -> StoredCorrection | None:
        """The correction of that id, or None; of equal ones fitted on several versions, the first."""
        stored = select(CorrectionRow).filter_by(correction_id=correction_id).order_by(CorrectionRow.id)

        def work(session: Session) -> StoredCorrection | None:
            row = session.scalars(stored.limit(1)).one_or_none()
            return None if row is None else row.entity()

        return self.database.read(work)

    def latest_correction(self, environment_id: str, version: str) -> StoredCorrection | None:
        """The correction of a version that was kept last, or None."""
        stored = select(CorrectionRow).filter_by(environment_id=environment_id, version=version)

        def work(session: Session) -> StoredCorrection | None:
            row = session.scalars(stored.order_by(CorrectionRow.id.desc()).limit(1)).one_or_none()
            return None if row is None else row.entity()

        return self.database.read(work)

    def _pin(self, session: Session, environment_id: str) -> VersionRow:
        """The frozen version of the present state, made if there is none; the caller holds the lock."""
        version = self._contents_hash(session, environment_id)
        stored = select(VersionRow).filter_by(environment_id=environment_id)
        row = session.scalars(stored.filter_by(version=version)).one_or_none()
        if row is None:
            parent = session.scalars(stored.order_by(VersionRow.id.desc()).limit(1)).one_or_none()
            counted = select(SessionRow.id).filter_by(environment_id=environment_id).where(counts())
            last = select(func.max(MeasurementRow.id)).filter_by(environment_id=environment_id)
            row = VersionRow(
                version=version,
                environment_id=environment_id,
                created_at=self.now(),
                parent=None if parent is None else parent.version,
                last_measurement=session.scalars(last).one(),
                sessions=sorted(session.scalars(counted)),
            )
            session.add(row)
        return row

    def _frozen(self, session: Session, environment_id: str, version: str) -> VersionRow:
        stored = select(VersionRow).filter_by(environment_id=environment_id)
        row = session.scalars(stored.filter_by(version=version)).one_or_none()
        if row is None:
            known = [other.version for other in session.scalars(stored.order_by(VersionRow.id))]
            raise StoreError(
                f"environment {environment_id!r} has no frozen version {version!r}; known are"
                f" {', '.join(known[-_SHOWN:]) or 'none'}: freeze it first"
            )
        return row

    def _members(self, session: Session, environment_id: str, version: str | None) -> tuple[ColumnElement[bool], ...]:
        here = MeasurementRow.environment_id == environment_id
        if version is None:
            counted = select(SessionRow.id).filter_by(environment_id=environment_id).where(counts())
            return here, MeasurementRow.session_id.in_(counted)
        frozen = self._frozen(session, environment_id, version)
        pinned = MeasurementRow.id <= frozen.last_measurement
        return here, pinned, MeasurementRow.session_id.in_(frozen.sessions)

    def _contents_hash(self, session: Session, environment_id: str) -> str:
        columns = [getattr(MeasurementRow, name) for name in CONTENTS]
        rows = session.execute(select(*columns).where(*self._members(session, environment_id, None)))
        contents = [tuple(row) for row in rows]
        if not contents:
            raise StoreError(f"environment {environment_id!r} has no accepted measurements; profile its device first")
        return contents_hash(contents)

    def _lacking(self, session: Session, environment_id: str, missing: Sequence[Visited]) -> MissingEntryError:
        names = sorted({name for name, _ in missing})
        kinds: dict[str, str] = {}
        for some in in_chunks(names):
            named = select(PartKeyRow.hash, PartKeyRow.kind).where(PartKeyRow.hash.in_(some))
            kinds |= {row[0]: row[1] for row in session.execute(named)}
        shown = [f"{kinds.get(name, 'unseen part')} {name} at batch {batch}" for name, batch in missing[:_SHOWN]]
        rest = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return MissingEntryError(
            f"environment {environment_id!r} has no accepted measurement of {', '.join(shown)}{rest};"
            " profile them on that device",
            names,
        )


def _by_process() -> Select[MeasurementRow, str]:
    joined = select(MeasurementRow, process_of()).join(SessionRow, SessionRow.id == MeasurementRow.session_id)
    return joined.order_by(MeasurementRow.id)


def _entries_of(rows: Iterable[tuple[MeasurementRow, str]], statistic: Statistic) -> dict[Visited, Entry]:
    rounds: dict[Visited, dict[str, list[RoundTiming]]] = {}
    for row, process in rows:
        rounds.setdefault((row.key_hash, row.batch), {}).setdefault(process, []).append(row.timing)
    return {visited: Entry.of(timings, statistic) for visited, timings in rounds.items()}
