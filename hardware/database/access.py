"""The one door to SQLite and PostgreSQL: opening, upgrading, transactions, and errors that say what to do.

Each part of dynarch that keeps tables declares a `Component`. Its version table has a name of its own:
Optuna and MLflow may share the database, and each keeps an `alembic_version` there. A transaction that is
going to write takes the lock when it begins: in SQLite, one asked for half-way cannot be waited for.

A database may fail for a moment: a lock, a disk that did not answer, a server that starts again. Only what
is whole can be done over, so work is handed over as a function and runs from its beginning in a new transaction.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    column,
    create_engine,
    event,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session

from ...spaces.errors import NewerSchemaError, StoreError
from .address import check_writable, explained, parse, shown
from .guests import BUSY_SECONDS, connect_options

Result = TypeVar("Result")

DATABASE_ERRORS: Final = (SQLAlchemyError,)  # for those who use a database through another library
RETRY_DELAYS_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
_TRANSIENT: Final = (
    "database is locked",
    "database schema is locked",
    "locking protocol",
    "disk i/o error",
    "deadlock detected",
    "is the server running",
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting connections",
    "recovery state has not been yet reached",
    "server closed the connection",
    "terminating connection",
    "connection is lost",
    "connection is closed",
    "connection refused",
    "connection reset",
    "connection timeout",
    "broken pipe",
)
# Alembic hands the connection to its scripts through module globals: one upgrade at a time in a process.
_ONE_UPGRADE = threading.Lock()


@final
@dataclass(frozen=True)
class Component:
    """A part of dynarch with tables of its own: `head` is the revision this version of dynarch works with."""

    name: str
    version_table: str
    migrations: Path
    head: str


@final
class Database:
    """An open database whose schema is at the head of one component.

    Safe to use from several threads; not across a fork.
    """

    def __init__(self, engine: Engine, component: Component, *, pause: Callable[[float], None]) -> None:
        self._engine = engine
        self._component = component
        self._pause = pause

    @classmethod
    def open(cls, url: str | Path, *, component: Component, pause: Callable[[float], None] = time.sleep) -> Database:
        """Open a database, creating it or upgrading its tables where needed.

        Args:
            url: a file path, `sqlite:///FILE`, or `postgresql://USER:PASSWORD@HOST/NAME`.
            component: whose tables to bring to their head.
            pause: waits that many seconds between two attempts at a database that is busy or restarting.

        Raises:
            StoreError: if the place cannot be written or reached; says what to change.
            NewerSchemaError: if a newer dynarch wrote the tables.
        """
        parsed = parse(url)
        if parsed.get_backend_name() == "sqlite":
            check_writable(Path(parsed.database or ""))
        with _as_store_error(parsed):
            database = cls(_engine(parsed), component, pause=pause)
            try:
                _retried(database._bring_to_head, pause)
            except BaseException:
                database.close()
                raise
        return database

    def __repr__(self) -> str:
        return f"Database({shown(self._engine.url)!r}, component={self._component.name!r})"

    @property
    def shown_url(self) -> str:
        """The address without password and options, fit for messages and logs."""
        return shown(self._engine.url)

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def read(self, work: Callable[[Session], Result]) -> Result:
        """What the work finds in one transaction; done over if the database fails for a moment.

        Raises:
            StoreError: if the database refuses, or goes on failing.
        """
        return self._done(work, write=False)

    def write(self, work: Callable[[Session], Result]) -> Result:
        """What the work returns, once its transaction is committed; done over if the database fails for a moment.

        Args:
            work: changes nothing but the database, as what an attempt that failed did there is rolled back.

        Raises:
            StoreError: if the database refuses, or goes on failing.
        """
        return self._done(work, write=True)

    def insert_new(self, session: Session, row: type[DeclarativeBase], values: Sequence[Mapping[str, Any]]) -> None:
        """Insert what is not there yet; a row that breaks a unique constraint is left as it stands."""
        if not values:
            return
        dialect_insert = postgresql.insert if self.backend == "postgresql" else sqlite.insert
        session.execute(dialect_insert(row).on_conflict_do_nothing(), [dict(value) for value in values])

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    def _done(self, work: Callable[[Session], Result], *, write: bool) -> Result:
        with _as_store_error(self._engine.url):
            return _retried(lambda: self._attempt(work, write), self._pause)

    def _attempt(self, work: Callable[[Session], Result], write: bool) -> Result:
        with Session(self._engine, expire_on_commit=False) as session:  # rolls back what it did not commit
            try:
                session.connection(execution_options={"dynarch_write": write})
                result = work(session)
                session.flush()
                self._commit(session)
            except DBAPIError:
                session.invalidate()  # a connection that failed may go on failing
                raise
            return result

    def _commit(self, session: Session) -> None:
        try:
            session.commit()
        except DBAPIError as error:
            if self.backend == "sqlite":  # where a commit that failed did not take place
                raise
            raise StoreError(explained(error, self._engine.url)) from error  # a server may have come to its end

    def _bring_to_head(self) -> None:
        with self._engine.connect() as connection:
            if self._revision(connection) == self._component.head:
                return
        with self._engine.execution_options(dynarch_write=True).begin() as connection:
            if self.backend == "postgresql":
                key = zlib.crc32(self._component.version_table.encode())
                connection.execute(select(func.pg_advisory_xact_lock(key)))
            revision = self._revision(connection)  # another process may have upgraded while we waited
            if revision != self._component.head:
                self._upgrade(connection, revision)

    def _revision(self, connection: Connection) -> str | None:
        name = self._component.version_table
        if not inspect(connection).has_table(name):
            return None
        revision: str | None = connection.scalar(select(column("version_num")).select_from(table(name)))
        return revision

    def _upgrade(self, connection: Connection, revision: str | None) -> None:
        component = self._component
        config = Config(attributes={"connection": connection, "version_table": component.version_table})
        config.set_main_option("script_location", str(component.migrations).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if revision is not None and revision not in known:
            raise NewerSchemaError(
                f"the {component.name} tables of {self.shown_url} are at revision {revision!r}, but this"
                f" dynarch knows {component.head!r} at the most; upgrade dynarch or give another database"
            )
        with _ONE_UPGRADE:
            command.upgrade(config, component.head)


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() == "postgresql":
            return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=connect_options(url))
        engine = create_engine(url, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"PostgreSQL needs the package {error.name!r}; install it with: pip install 'dynarch[postgres]'"
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # or the driver would begin on its own, late and without the lock
    cursor = connection.cursor()
    # The timeout comes first: switching to write-ahead logging is what two new processes collide in.
    for pragma in (
        f"busy_timeout={round(1000 * BUSY_SECONDS)}",
        "foreign_keys=ON",
        "journal_mode=WAL",
        "synchronous=FULL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("dynarch_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _retried(action: Callable[[], Result], pause: Callable[[float], None]) -> Result:
    for delay in RETRY_DELAYS_SECONDS:
        try:
            return action()
        except DBAPIError as error:
            if not (error.connection_invalidated or any(sign in str(error.orig).lower() for sign in _TRANSIENT)):
                raise
        pause(delay)
    return action()


@contextmanager
def _as_store_error(url: URL) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, CommandError, OverflowError, UnicodeError) as error:
        raise StoreError(explained(error, url)) from error
