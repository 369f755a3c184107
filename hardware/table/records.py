"""What the parts of the latency table share: the database, the clock, and one lock an environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, case, literal_column
from sqlalchemy.orm import Session

from ...spaces.errors import StoreError
from ..database import Database
from .entities import Density
from .rows import EnvironmentRow, MeasurementRow, SessionRow

Item = TypeVar("Item")

_VALUES_A_QUERY = 500  # SQLite allows a limited number of parameters in one statement


class AbstractTableRecords(ABC):
    """A part of the latency table.

    Writers lock the row of the environment first, so that in PostgreSQL too the ids of its measurements rise
    in the order in which they become visible: a frozen version names them by the last one.
    """

    @property
    @abstractmethod
    def database(self) -> Database:
        """Where the rows are."""

    @abstractmethod
    def now(self) -> float:
        """Epoch seconds."""

    def _environment_row(self, session: Session, environment_id: str, *, lock: bool) -> EnvironmentRow:
        row = session.get(EnvironmentRow, environment_id, with_for_update=lock or None)
        if row is None:
            raise StoreError(
                f"nothing was measured in environment {environment_id!r} of {self.database.shown_url};"
                " profile its device first"
            )
        return row


def at_density(density: Density) -> ColumnElement[bool]:
    """The measurements at that density."""
    return (MeasurementRow.density_num == density[0]) & (MeasurementRow.density_den == density[1])


def counts() -> ColumnElement[bool]:
    """The sessions whose measurements count now."""
    return SessionRow.accepted & ~SessionRow.superseded


def process_of() -> ColumnElement[str]:
    """The process of a session; where it is unknown, the session stands for it.

    A literal, as PostgreSQL does not see that two expressions with parameters are the same.
    """
    return case((SessionRow.process == literal_column("''"), SessionRow.id), else_=SessionRow.process)


def in_chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in pieces that fit in one statement."""
    return (items[start : start + _VALUES_A_QUERY] for start in range(0, len(items), _VALUES_A_QUERY))
