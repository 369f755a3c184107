"""Other libraries that keep tables in the same database: each in a schema of its own, and with patience.

Optuna and MLflow both want a table called `alembic_version`, so in PostgreSQL neither shares a schema with the
other, nor with what a user may keep in the default one. In SQLite each has a file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from ...spaces.errors import StoreError
from .address import explained, parse

BUSY_SECONDS: Final = 30.0  # that a connection waits for SQLite's one writer
CONNECT_SECONDS: Final = 10
_LOCK: Final = 0x64796E61  # of the advisory lock under which schemas are made


def guest_url(url: str | Path, schema: str) -> str:
    """The address under which another library finds its own schema; a SQLite file is left as it is.

    Args:
        url: of the database.
        schema: its name, made of letters and underscores.
    """
    parsed = parse(url)
    if parsed.get_backend_name() != "postgresql":
        return parsed.render_as_string(hide_password=False)
    given = parsed.query.get("options", ())
    options = (given,) if isinstance(given, str) else given
    own = parsed.set(query={**parsed.query, "options": " ".join((*options, f"-csearch_path={schema}"))})
    return own.render_as_string(hide_password=False)


def prepare_guest(url: str | Path, schema: str) -> None:
    """Make the schema, or put the SQLite file into write-ahead mode; safe to repeat.

    Raises:
        StoreError: if the database cannot be reached, or its user may not make schemas.
    """
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        _write_ahead(Path(parsed.database or ""))
        return
    engine = create_engine(parsed, hide_parameters=True, connect_args=connect_options(parsed))
    there = select(func.count()).select_from(text("pg_namespace")).where(text("nspname = :name"))
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            if not connection.scalar(there, {"name": schema}):
                connection.execute(CreateSchema(schema))
    except SQLAlchemyError as error:
        raise StoreError(explained(error, parsed)) from error
    finally:
        engine.dispose()


def guest_options(url: str | Path) -> dict[str, Any]:
    """Settings for another library's engine: dead connections are replaced, locks are waited for."""
    parsed = parse(url)
    return {"pool_pre_ping": parsed.get_backend_name() == "postgresql", "connect_args": connect_options(parsed)}


def connect_options(url: URL) -> dict[str, Any]:
    """What is passed to the driver beside the address."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_SECONDS}
    return {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}


def _write_ahead(file: Path) -> None:
    """A mode that stays with the file; one that is in use by another process is left as it is."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
