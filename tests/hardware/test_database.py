"""Opening, upgrading and failing, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.orm import DeclarativeBase, Session

from dynarch.hardware.database import RETRY_DELAYS_SECONDS, Component, Database
from dynarch.hardware.database import access as database_access
from dynarch.hardware.table import LATENCY_TABLE
from dynarch.hardware.table.rows import TableBase
from dynarch.search.ledger import LEDGER, Ledger
from dynarch.search.ledger.rows import LedgerBase
from dynarch.spaces.errors import NewerSchemaError, StoreError
from dynarch.tests.databases import BACKENDS, at_once, fresh_url, open_and_count

COMPONENTS: tuple[tuple[Component, type[DeclarativeBase]], ...] = (
    (LEDGER, LedgerBase),
    (LATENCY_TABLE, TableBase),
)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, tmp_path)


def no_pause(seconds: float) -> None:
    assert seconds > 0


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
    engine.dispose()
    return names


def add_revision(component: Component, folder: Path, body: str) -> Component:
    """The component as the next version of dynarch would have it, with one more migration."""
    migrations = folder / "next"
    shutil.copytree(component.migrations, migrations)
    lines = ('"""More."""', "from alembic import op", "revision = '0002'", "down_revision = '0001'")
    (migrations / "versions" / "r0002_more.py").write_text("\n".join((*lines, "def upgrade():", body)))
    return replace(component, migrations=migrations, head="0002")


@pytest.mark.parametrize(("component", "base"), COMPONENTS, ids=lambda value: getattr(value, "name", ""))
def test_migrations_make_the_tables_that_the_rows_describe(
    url: str, component: Component, base: type[DeclarativeBase]
) -> None:
    Database.open(url, component=component).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"include_object": lambda _o, name, kind, *_: kind != "table" or name in base.metadata.tables}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("component", [LEDGER, LATENCY_TABLE], ids=lambda component: component.name)
def test_the_declared_head_is_the_last_migration(component: Component) -> None:
    assert ScriptDirectory(str(component.migrations)).get_heads() == [component.head]


def test_components_share_a_database_with_strangers(url: str) -> None:
    execute(url, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    execute(url, "INSERT INTO alembic_version VALUES ('of a stranger')", "CREATE TABLE runs (id INTEGER)")
    for component, _ in COMPONENTS:
        Database.open(url, component=component).close()
    ours = {name for name in tables(url) if name.startswith("dynarch_")}
    assert tables(url) - ours == {"alembic_version", "runs"}
    engine = create_engine(url)
    with engine.connect() as connection:
        stranger = connection.execute(text("SELECT version_num FROM alembic_version"))
        assert stranger.scalars().all() == ["of a stranger"]
    engine.dispose()


def test_at_head_nothing_is_migrated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger.open(url).close()

    def refuse(*_: object) -> None:
        raise AssertionError("there was nothing to upgrade")

    monkeypatch.setattr(command, "upgrade", refuse)
    Ledger.open(url).close()


def test_opening_leaves_logging_alone(tmp_path: Path) -> None:
    mine = logging.getLogger("dynarch.test")
    before = (logging.root.level, list(logging.root.handlers), mine.disabled)
    Ledger.open(tmp_path / "a.db").close()
    assert (logging.root.level, list(logging.root.handlers), mine.disabled) == before


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    Ledger.open(url).close()
    execute(url, "UPDATE dynarch_ledger_version SET version_num = '9999'")
    with pytest.raises(NewerSchemaError, match=r"'9999'.*'0001'.*upgrade dynarch"):
        Ledger.open(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM dynarch_ledger_version")).scalar() == "9999"
    engine.dispose()


def test_an_upgrade_keeps_the_rows(url: str, tmp_path: Path) -> None:
    with Ledger.open(url) as ledger:
        ledger.create_search("a", name="kept", spec={}, seed=0, created_at=1.0)
    body = "    op.execute('ALTER TABLE dynarch_search ADD COLUMN colour TEXT')"
    later = Database.open(url, component=add_revision(LEDGER, tmp_path, body))
    row = later.read(lambda session: session.execute(text("SELECT name, colour FROM dynarch_search")).one())
    later.close()
    assert tuple(row) == ("kept", None)
    with pytest.raises(NewerSchemaError):  # and the version that is now the old one does not touch it
        Ledger.open(url)


def test_an_upgrade_that_fails_leaves_nothing_behind(url: str, tmp_path: Path) -> None:
    Ledger.open(url).close()
    before = tables(url)
    body = "    op.execute('CREATE TABLE half (id INTEGER)')\n    op.execute('NONSENSE')"
    with pytest.raises(StoreError, match="NONSENSE"):
        Database.open(url, component=add_revision(LEDGER, tmp_path, body))
    assert tables(url) == before
    Ledger.open(url).close()


def test_threads_open_a_new_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda i: Database.open(url, component=COMPONENTS[i % 2][0]), range(6)))
    for database in opened:
        database.close()
    assert {LEDGER.version_table, LATENCY_TABLE.version_table} <= tables(url)


def test_processes_open_a_new_database_at_once(url: str) -> None:
    assert at_once(open_and_count, [url], [url], [url]) == [0, 0, 0]


def test_sqlite_is_set_up_for_several_writers(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "c.db"
    database = Database.open(file, component=LEDGER)
    names = ("foreign_keys", "synchronous", "journal_mode", "busy_timeout")
    found = database.read(lambda session: {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in names})
    database.close()
    assert found == {"foreign_keys": 1, "synchronous": 2, "journal_mode": "wal", "busy_timeout": 30_000}


def test_a_locked_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_access, "BUSY_SECONDS", 0.001)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            other.rollback()

    ledger = Ledger.open(tmp_path / "a.db", pause=pause)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.create_search("a", name="a", spec={}, seed=0, created_at=0.0)
    assert tuple(pauses) == RETRY_DELAYS_SECONDS[:3]

    other.execute("BEGIN IMMEDIATE")
    assert ledger.search("a").name == "a"  # readers do not wait for a writer
    assert len(pauses) == 3
    with pytest.raises(StoreError, match="database is locked"):
        ledger.request_cancel("a")
    assert tuple(pauses[3:]) == RETRY_DELAYS_SECONDS
    other.close()
    ledger.close()


def test_dropped_connections_are_replaced(tmp_path: Path) -> None:
    url = fresh_url("postgresql", tmp_path)
    drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    drop_ours = f"{drop} AND datname = current_database()"
    with Ledger.open(url, pause=no_pause) as ledger:
        ledger.create_search("a", name="a", spec={}, seed=0, created_at=0.0)
        execute(url, drop_ours)
        assert ledger.search("a").name == "a"
        drops = iter([lambda: execute(url, drop_ours)])
        _rename_and(ledger, lambda: next(drops, lambda: None)())  # lost half-way, done over from its beginning
        assert ledger.search("a").name == "ab"


def _rename_and(ledger: Ledger, action: Callable[[], None]) -> None:
    def rename(session: Session) -> None:
        session.execute(text("UPDATE dynarch_search SET name = name || 'b'"))
        action()
        session.execute(text("SELECT 1"))

    ledger.database.write(rename)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT nothing FROM nowhere",
        "INSERT INTO dynarch_event VALUES (NULL, 'absent', 0, '', '')",
        "NONSENSE",
    ],
)
def test_no_error_of_the_library_leaks(url: str, statement: str) -> None:
    with Ledger.open(url) as ledger, pytest.raises(StoreError) as caught:
        ledger.database.write(lambda session: session.execute(text(statement)))
    assert "\n" not in str(caught.value)


def test_an_error_rolls_back(url: str) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with Ledger.open(url) as ledger:
        ledger.create_search("a", name="a", spec={}, seed=0, created_at=0.0)
        with pytest.raises(Stop):
            _rename_and(ledger, stop)
        assert ledger.search("a").name == "a"
        with pytest.raises(StoreError):  # does not fit in 64 bits
            ledger.create_search("b", name="b", spec={}, seed=2**70, created_at=0.0)
        assert [search.id for search in ledger.searches()] == ["a"]
