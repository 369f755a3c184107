"""What the parts of the ledger share: the database, and the one lock that orders the writers of a search."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...hardware.database import Database
from ...spaces.errors import SearchNotFoundError, StoreError
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

    def _search_row(self, session: Session, search_id: str, *, lock: bool = True) -> SearchRow:
        row = session.get(SearchRow, search_id, with_for_update=lock or None)
        if row is None:
            known = session.scalars(select(SearchRow.id).order_by(SearchRow.created_at.desc()).limit(10)).all()
            raise SearchNotFoundError(
                f"no search has the id {search_id!r} in {self.database.shown_url}; the latest ones are:"
                f" {', '.join(known) or 'none yet'}"
            )
        return row

    def _evaluation_row(self, session: Session, search_id: str, number: int) -> EvaluationRow:
        self._search_row(session, search_id)
        row = session.scalars(select(EvaluationRow).filter_by(search_id=search_id, number=number)).one_or_none()
        if row is None:
            raise StoreError(f"search {search_id!r} has no evaluation {number}; propose it first")
        return row
