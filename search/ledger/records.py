"""What the parts of the ledger share: the database, and the one lock that orders the writers of a search."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...hardware.database import Database
from ...spaces.errors import SearchBusyError, SearchNotFoundError, StoreError
from .rows import EvaluationRow, SearchRow


class AbstractRecords(ABC):
    """A part of the ledger.

    Whoever writes to a search first locks its row. Then looking and writing are one step in PostgreSQL too,
    and the ids of new rows rise in the order in which they become visible. SQLite has one writer anyway.
    """

    @property
    @abstractmethod
    def database(self) -> Database:
        """Where the rows are."""

    @property
    @abstractmethod
    def claims(self) -> dict[str, str]:
        """Search -> holder of its lease, for the searches that this very ledger writes to as their driver."""

    def _search_row(self, session: Session, search_id: str, *, lock: bool = True) -> SearchRow:
        row = session.get(SearchRow, search_id, with_for_update=lock or None)
        if row is None:
            known = session.scalars(select(SearchRow.id).order_by(SearchRow.created_at.desc()).limit(10)).all()
            raise SearchNotFoundError(
                f"no search has the id {search_id!r} in {self.database.shown_url}; the latest ones are:"
                f" {', '.join(known) or 'none yet'}"
            )
        if lock:
            self._check_claim(row)
        return row

    def _check_claim(self, row: SearchRow) -> None:
        """A driver that was held up may have lost its search long ago: then it writes nothing more."""
        if row.id in self.claims:
            self._check_holder(row, self.claims[row.id])

    def _check_holder(self, row: SearchRow, holder: str) -> None:
        if row.holder != holder:
            raise SearchBusyError(
                f"{holder!r} has lost search {row.id!r} to {row.holder or 'nobody'}; stop this driver,"
                " and resume the search where it is wanted",
                holder=row.holder or "",
            )

    def _evaluation_row(self, session: Session, search_id: str, number: int, *, lock: bool = True) -> EvaluationRow:
        self._search_row(session, search_id, lock=lock)
        row = session.scalars(select(EvaluationRow).filter_by(search_id=search_id, number=number)).one_or_none()
        if row is None:
            raise StoreError(f"search {search_id!r} has no evaluation {number}; propose it first")
        return row
