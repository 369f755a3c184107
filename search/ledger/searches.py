"""Searches in the ledger: what was asked, how far each one is, and the lease that keeps it to one driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...hardware.database import plain_json, plain_text
from ...spaces.errors import SearchBusyError, StoreError
from .entities import SEARCH_STATUSES, Event, Search, SearchStatus
from .records import AbstractRecords
from .rows import EventRow, SearchRow


class AbstractSearchRecords(AbstractRecords):
    """The part of the ledger that keeps whole searches."""

    def create_search(
        self,
        search_id: str,
        *,
        name: str,
        spec: Mapping[str, object],
        seed: int,
        created_at: float,
        data_id: str | None = None,
    ) -> Search:
        """Record a new search; the same id with the same spec and seed again returns what is there.

        Raises:
            StoreError: if the id belongs to a search that asked for something else.
        """
        plain = plain_json(spec, "spec")
        new = {
            "id": search_id,
            "name": plain_text(name),
            "spec": plain,
            "seed": seed,
            "created_at": created_at,
            "data_id": data_id,
            "status": "created",
            "cancel_requested": False,
        }

        def work(session: Session) -> Search:
            self.database.insert_new(session, SearchRow, [new])
            row = self._search_row(session, search_id)
            if row.spec != plain or row.seed != seed:
                raise StoreError(
                    f"the search id {search_id!r} is taken by {row.name!r}, which asked for something else;"
                    " resume it with its own spec and seed, or choose another id"
                )
            return row.entity()

        return self.database.write(work)

    def search(self, search_id: str) -> Search:
        """The search of that id.

        Raises:
            SearchNotFoundError: if there is none; names the latest ids.
        """

        def work(session: Session) -> Search:
            return self._search_row(session, search_id, lock=False).entity()

        return self.database.read(work)

    def searches(self) -> tuple[Search, ...]:
        """All searches, the oldest first."""

        def work(session: Session) -> tuple[Search, ...]:
            rows = session.scalars(select(SearchRow).order_by(SearchRow.created_at, SearchRow.id))
            return tuple(row.entity() for row in rows)

        return self.database.read(work)

    def set_status(self, search_id: str, status: SearchStatus, *, reason: str | None = None) -> None:
        """Say how far the search is, and why if that needs saying; the last word stands.

        Raises:
            StoreError: if the status is not one of `SEARCH_STATUSES`.
            SearchNotFoundError: if there is no such search.
        """
        if status not in SEARCH_STATUSES:
            raise StoreError(f"a search's status must be one of {', '.join(SEARCH_STATUSES)}, but got {status!r}")

        def work(session: Session) -> None:
            row = self._search_row(session, search_id)
            row.status = status
            row.reason = None if reason is None else plain_text(reason)

        self.database.write(work)

    def set_data(self, search_id: str, data_id: str) -> None:
        """Record which data the search runs on."""

        def work(session: Session) -> None:
            self._search_row(session, search_id).data_id = data_id

        self.database.write(work)

    def set_table(self, search_id: str, table_version: str, *, correction_id: str | None) -> None:
        """Record the latency table, and the correction on it, behind the search's predictions."""

        def work(session: Session) -> None:
            row = self._search_row(session, search_id)
            row.table_version = table_version
            row.correction_id = correction_id

        self.database.write(work)

    def set_tracking(self, search_id: str, mlflow_run_id: str) -> None:
        """Record the MLflow run under which those of the evaluations stand."""

        def work(session: Session) -> None:
            self._search_row(session, search_id).mlflow_run_id = mlflow_run_id

        self.database.write(work)

    def set_hypervolume_reference(self, search_id: str, reference: Sequence[float]) -> None:
        """Record the point that every hypervolume of the search is measured from."""
        plain = plain_json(list(reference), "hypervolume_reference")

        def work(session: Session) -> None:
            self._search_row(session, search_id).hypervolume_reference = plain

        self.database.write(work)

    def acquire(self, search_id: str, holder: str, *, now: float, ttl_seconds: float) -> Search:
        """Take the lease of the search, so that one driver at a time runs it; again by the holder renews it.

        Raises:
            SearchBusyError: if the heartbeat of another holder is younger than `ttl_seconds`.
            SearchNotFoundError: if there is no such search.
        """

        def work(session: Session) -> Search:
            row = self._search_row(session, search_id)
            if row.holder is not None and row.holder != holder and row.heartbeat_at is not None:
                age_seconds = now - row.heartbeat_at
                if age_seconds < ttl_seconds:
                    raise SearchBusyError(
                        f"search {search_id!r} is held by {row.holder!r}, heard of {age_seconds:.0f} s ago;"
                        f" stop that driver, or wait until it has been silent for {ttl_seconds:g} s",
                        holder=row.holder,
                    )
            row.holder = holder
            row.heartbeat_at = now
            return row.entity()

        return self.database.write(work)

    def heartbeat(self, search_id: str, holder: str, *, now: float) -> None:
        """Say that the holder is alive.

        Raises:
            SearchBusyError: if the lease is no longer its own, so that it must stop.
        """

        def work(session: Session) -> None:
            row = self._search_row(session, search_id)
            self._check_holder(row, holder)
            row.heartbeat_at = now

        self.database.write(work)

    def release(self, search_id: str, holder: str) -> bool:
        """Give the lease back; False if it was not this holder's any more, and nothing changes."""

        def work(session: Session) -> bool:
            row = self._search_row(session, search_id)
            if row.holder != holder:
                return False
            row.holder = None
            row.heartbeat_at = None
            return True

        return self.database.write(work)

    def request_cancel(self, search_id: str) -> None:
        """Ask whoever drives the search to stop it."""

        def work(session: Session) -> None:
            self._search_row(session, search_id).cancel_requested = True

        self.database.write(work)

    def withdraw_cancel(self, search_id: str) -> None:
        """Take the request back, as a resume does."""

        def work(session: Session) -> None:
            self._search_row(session, search_id).cancel_requested = False

        self.database.write(work)

    def cancel_requested(self, search_id: str) -> bool:
        """Whether somebody asked for the search to stop."""
        return self.search(search_id).cancel_requested

    def add_event(self, search_id: str, *, at: float, kind: str, message: str) -> None:
        """Remember something that happened."""

        def work(session: Session) -> None:
            self._search_row(session, search_id)
            session.add(EventRow(search_id=search_id, at=at, kind=kind, message=plain_text(message)))

        self.database.write(work)

    def events(self, search_id: str) -> tuple[Event, ...]:
        """What happened in the search, in the order of recording."""

        def work(session: Session) -> tuple[Event, ...]:
            rows = session.scalars(select(EventRow).filter_by(search_id=search_id).order_by(EventRow.id))
            return tuple(row.entity() for row in rows)

        return self.database.read(work)
