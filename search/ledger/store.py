"""The ledger: the one durable record of every evaluation, from which all else is rebuilt after a death."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from ...hardware.database import Component, Database
from .evaluations import AbstractEvaluationRecords
from .points import AbstractPointRecords
from .searches import AbstractSearchRecords

LEDGER: Final = Component(
    name="ledger",
    version_table="dynarch_ledger_version",
    migrations=Path(__file__).parent.parent / "migrations",
    head="0001",
)


@final
class Ledger(AbstractSearchRecords, AbstractEvaluationRecords, AbstractPointRecords):
    """Searches, their evaluations, verdicts and operating points, in SQLite or PostgreSQL.

    Every method is one transaction. Time comes in as epoch seconds.

    Examples:
        >>> with Ledger.open("sqlite:///dynarch.db") as ledger:  # doctest: +SKIP
        ...     ledger.counts("digits").done
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: dict[str, str] = {}

    @classmethod
    def open(cls, url: str | Path, *, pause: Callable[[float], None] = time.sleep) -> Ledger:
        """Open the ledger at a file path or database address, creating or upgrading its tables.

        Raises:
            StoreError: if the place cannot be written or reached; says what to change.
            NewerSchemaError: if a newer dynarch wrote the tables.
        """
        return cls(Database.open(url, component=LEDGER, pause=pause))

    @property
    def database(self) -> Database:
        """Where the rows are."""
        return self._database

    @property
    def claims(self) -> dict[str, str]:
        """Search -> holder, for the searches that are driven through this ledger; others may be written freely."""
        return self._claims

    def close(self) -> None:
        """Give every connection back."""
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
