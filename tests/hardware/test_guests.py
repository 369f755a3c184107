"""One address for everybody: Optuna and MLflow beside our own tables, each where it disturbs nobody."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url, text

from dynarch.hardware.database import guest_options, guest_url, prepare_guest
from dynarch.search.samplers import Study
from dynarch.search.storage import STUDY_SCHEMA, TRACKING_SCHEMA, Storage
from dynarch.spaces.errors import StoreError
from dynarch.tests.databases import fresh_url

SCHEMAS = ("public", STUDY_SCHEMA, TRACKING_SCHEMA)


def test_a_schema_is_asked_for_in_the_address_and_options_are_kept() -> None:
    address = guest_url("postgresql://me:p%40ss@host/db?options=-cwork_mem%3D1MB&sslmode=require", "theirs")
    found = make_url(address)
    assert (found.drivername, found.password, found.database) == ("postgresql+psycopg", "p@ss", "db")
    assert found.query == {"options": "-cwork_mem=1MB -csearch_path=theirs", "sslmode": "require"}


def test_a_file_is_left_where_it_is(tmp_path: Path) -> None:
    assert guest_url(f"sqlite:///{tmp_path / 'a.db'}", "theirs") == f"sqlite:///{tmp_path / 'a.db'}"
    prepare_guest(f"sqlite:///{tmp_path / 'a.db'}", "theirs")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert guest_options(tmp_path / "a.db") == {"pool_pre_ping": False, "connect_args": {"timeout": 30.0}}


def test_several_make_a_schema_at_once(tmp_path: Path) -> None:
    url = fresh_url("postgresql", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: prepare_guest(url, "theirs"), range(4)))
    prepare_guest(url, "theirs")


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    with pytest.raises(StoreError) as told:
        prepare_guest("postgresql://me:secret@127.0.0.1:1/x", "theirs")
    assert "secret" not in str(told.value)


def test_one_address_serves_ledger_study_and_mlflow(tmp_path: Path) -> None:
    """Two of them keep a table `alembic_version` with contents of their own, and neither sees the other's."""
    url = fresh_url("postgresql", tmp_path)
    storage = Storage(tmp_path, url)
    for _ in range(2):  # the second time all of it is there
        storage.open_ledger().close()
        Study(storage.open_study_url(), "s", directions=("maximize",), sampler="random", seed=0)
        tracker = storage.open_tracker()
        tracker.start("s", "name", "{}", {"seed": "0"})
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = {schema: set(inspect(connection).get_table_names(schema=schema)) for schema in SCHEMAS}
        versions = {
            schema: connection.execute(text(f"SELECT version_num FROM {schema}.alembic_version")).scalar()
            for schema in (STUDY_SCHEMA, TRACKING_SCHEMA)
        }
    engine.dispose()
    assert {name.startswith("dynarch_") for name in tables["public"]} == {True}
    assert "trials" in tables[STUDY_SCHEMA]
    assert {"runs", "metrics"} <= tables[TRACKING_SCHEMA]
    assert len(set(versions.values())) == 2
