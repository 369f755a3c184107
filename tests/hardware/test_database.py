"""Opening, upgrading and failing, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.orm import DeclarativeBase

from dynarch.hardware.database import RETRY_DELAYS_SECONDS, Component, Database, plain_json, plain_text
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
        options = {
            "include_object": lambda _o, name, kind, *_: kind != "table" or name in base.metadata.tables
        }
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
    with later.session() as session:
        row = session.execute(text("SELECT name, colour FROM dynarch_search")).one()
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
    with database.session(write=False) as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar() for name in ("foreign_keys", "synchronous")
        }
        found |= {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "busy_timeout")
        }
    database.close()
    assert found == {"foreign_keys": 1, "synchronous": 2, "journal_mode": "wal", "busy_timeout": 30_000}


@pytest.mark.parametrize("address", ["{}/x.db", "sqlite:///{}/x.db"])
def test_a_path_and_a_url_are_the_same_file(tmp_path: Path, address: str) -> None:
    Database.open(address.format(tmp_path), component=LEDGER).close()
    assert (tmp_path / "x.db").stat().st_size > 0


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that the present user may read and not write; for root, as another user meanwhile."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_an_unwritable_folder_is_refused(unwritable: Path) -> None:
    with pytest.raises(StoreError, match=r"must be writable, but: Permission denied; give a path"):
        Database.open(unwritable / "a.db", component=LEDGER)
    with pytest.raises(StoreError, match=r"must be writable"):
        Database.open(unwritable / "deeper" / "a.db", component=LEDGER)
    assert list(unwritable.iterdir()) == []


def test_places_that_are_no_database_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at as one. " * 20)
    with pytest.raises(StoreError, match=r"file is not a database; give the path of a new file"):
        Database.open(tmp_path / "notes.txt", component=LEDGER)
    with pytest.raises(StoreError, match="must be writable, but: File exists"):
        Database.open(tmp_path / "notes.txt" / "a.db", component=LEDGER)
    with pytest.raises(StoreError, match="must be writable, but: Is a directory"):
        Database.open(tmp_path, component=LEDGER)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite://", "must be a file"),
        (":memory:", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file:x?mode=ro", "must be a file"),
        ("mysql://me:s3cret@host/x", "SQLite or PostgreSQL, but got 'mysql'"),
        ("postgresql://me:s3cret@host:port/x", "cannot be read"),
        ("://me:s3cret@host/x", "cannot be read"),
    ],
)
def test_addresses_of_nothing_are_refused_without_their_secrets(address: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Database.open(address, component=LEDGER)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_waited_for_and_its_password_kept() -> None:
    pauses: list[float] = []
    address = "postgresql://me:s3cret@127.0.0.1:1/x?sslpassword=0ther&connect_timeout=2"
    with pytest.raises(StoreError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/x refused") as caught:
        Database.open(address, component=LEDGER, pause=pauses.append)
    assert tuple(pauses) == RETRY_DELAYS_SECONDS
    assert "s3cret" not in str(caught.value)
    assert "0ther" not in str(caught.value)


def test_a_wrong_database_name_is_not_waited_for(tmp_path: Path) -> None:
    address = fresh_url("postgresql", tmp_path).replace("/test", "/absent")
    with pytest.raises(StoreError, match="does not exist"):
        Database.open(address, component=LEDGER, pause=lambda _: pytest.fail("waited in vain"))


def test_a_locked_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_access, "_BUSY_TIMEOUT_MS", 1)
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
        # Inside a transaction nothing can be done over, so it fails, and as our own error.
        with pytest.raises(StoreError, match="terminating connection"):
            _rename_and(ledger, lambda: execute(url, drop_ours))
        assert ledger.search("a").name == "a"


def _rename_and(ledger: Ledger, action: Callable[[], None]) -> None:
    with ledger.database.session() as session:
        session.execute(text("UPDATE dynarch_search SET name = 'b'"))
        action()
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT nothing FROM nowhere",
        "INSERT INTO dynarch_event VALUES (NULL, 'absent', 0, '', '')",
        "NONSENSE",
    ],
)
def test_no_error_of_the_library_leaks(url: str, statement: str) -> None:
    with (
        Ledger.open(url) as ledger,
        pytest.raises(StoreError) as caught,
        ledger.database.session() as session,
    ):
        session.execute(text(statement))
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


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (True, True),
        ({"a": (1, 2.5, "x"), "b": {}}, {"a": [1, 2.5, "x"], "b": {}}),
        ([], []),
    ],
)
def test_plain_values_are_stored_as_they_are(value: object, stored: object) -> None:
    assert plain_json(value, "v") == stored


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"v: a stored number must be finite, but got nan"),
        ({"a": [1, -math.inf]}, r"v\.a\[1\]: a stored number must be finite"),
        ({"a": {1: 2}}, r"v\.a: the keys of a stored map must be text, but got 1"),
        ({"a": {1, 2}}, r"v\.a: .* but got set"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_path(value: Mapping[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        plain_json(value, "v")


def test_nan_may_become_none() -> None:
    assert plain_json({"loss": [0.5, math.nan, math.inf]}, "v", nan_as_none=True) == {
        "loss": [0.5, None, None]
    }


def test_text_without_what_databases_refuse() -> None:
    assert plain_text("a\x00b\ud800é\n") == "ab?é\n"
