"""Where a database is: reading its address, checking a file, and speaking of it without secrets."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, StatementError

from ...spaces.errors import StoreError


def parse(url: str | Path) -> URL:
    """The address as SQLAlchemy has it, with the driver this project uses.

    Raises:
        StoreError: if it is neither a file nor the address of a SQLite or PostgreSQL database.
    """
    text = str(url)
    if "://" not in text:
        return _sqlite_url(text)
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):  # not chained: the text may hold a password
        raise StoreError(
            "the address of the database cannot be read; write sqlite:///FILE or"
            " postgresql://USER:PASSWORD@HOST:PORT/NAME, with special characters percent-encoded"
        ) from None
    backend = parsed.get_backend_name() if parsed.drivername != "postgres" else "postgresql"
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return _sqlite_url(parsed.database or "")
    raise StoreError(
        f"a database must be SQLite or PostgreSQL, but got {parsed.drivername!r}; write sqlite:///FILE or"
        " postgresql://USER:PASSWORD@HOST:PORT/NAME"
    )


def _sqlite_url(file: str) -> URL:
    if file in ("", ":memory:") or file.startswith("file:"):
        raise StoreError(f"a SQLite database must be a file, but got {file!r}; write a path such as dynarch.db")
    return URL.create("sqlite", database=str(Path(file).expanduser().absolute()))


def check_writable(file: Path) -> None:
    """Create the folder where needed, and see that the file may be written.

    The database file itself is never opened here. Closing any descriptor of a file drops all locks that this
    process holds on it, SQLite's among them; another process then takes itself for the last one that uses the
    database, and removes the write-ahead log from under this one.

    Raises:
        StoreError: if this user may not write there.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):  # SQLite keeps its journal beside the file
            pass
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"the database file {str(file)!r} and its folder must be writable, but:"
            f" {error.strerror or error}; give a path that this user may write to"
        ) from error


def shown(url: URL) -> str:
    """A database address without its password and without its query, where options may hide secrets."""
    return url.set(query={}).render_as_string(hide_password=True)


def explained(error: Exception, url: URL) -> str:
    """What the database said and what to do about it, on one line and without secrets."""
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    reason = lines[0] if lines else type(cause).__name__
    if url.password:
        reason = reason.replace(str(url.password), "***")
    if "not a database" in reason:
        remedy = "give the path of a new file or of a SQLite database"
    elif "readonly" in reason or "unable to open" in reason:
        remedy = "give a path that this user may write to"
    else:
        remedy = "see that it is reachable, that its user has the rights and its disk has space; then try again"
    return f"the database {shown(url)} refused: {reason}; {remedy}"
