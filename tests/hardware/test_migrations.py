"""Databases of earlier versions keep every row when this one opens them; what was released stays as it was."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Float,
    Integer,
    MetaData,
    Table,
    create_engine,
    insert,
    inspect,
    select,
)
from sqlalchemy.orm import DeclarativeBase

from dynarch.hardware.database import Component, Database
from dynarch.hardware.table import LATENCY_TABLE
from dynarch.hardware.table.rows import TableBase
from dynarch.search.ledger import LEDGER
from dynarch.search.ledger.rows import LedgerBase
from dynarch.tests.databases import BACKENDS, fresh_url

BASES: dict[str, type[DeclarativeBase]] = {LEDGER.name: LedgerBase, LATENCY_TABLE.name: TableBase}
STATES = {"status": "running", "state": "finished", "source": "measured"}  # columns that take one of a few words


def revisions(component: Component) -> list[str]:
    """All that were ever released, the oldest first."""
    scripts = ScriptDirectory(str(component.migrations)).walk_revisions()
    return [script.revision for script in reversed(list(scripts))]


EVERY = [(component, each) for component in (LEDGER, LATENCY_TABLE) for each in revisions(component)]


def tables_of(connection: Connection, component: Component) -> list[Table]:
    """Ours, those first that others refer to."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name.startswith("dynarch_") and name != component.version_table)
    return list(found.sorted_tables)


def row_of(table: Table) -> dict[str, Any]:
    """Something in every column; all texts and all numbers are the same, so whatever refers to a key finds it."""
    return {column.name: _value(column.name, column.type) for column in table.columns}


def _value(name: str, kind: object) -> Any:
    if name in STATES:
        return STATES[name]
    if isinstance(kind, JSON):
        return {"kept": [1, 2.5, None]}
    if isinstance(kind, Boolean):
        return True
    return 1.0 if isinstance(kind, Float) else 1 if isinstance(kind, Integer) else "x"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("component", "revision"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_rows_of_every_released_schema_survive(
    tmp_path: Path, backend: str, component: Component, revision: str
) -> None:
    url = fresh_url(backend, tmp_path)
    Database.open(url, component=replace(component, head=revision)).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        before = tables_of(connection, component)
        for table in before:
            connection.execute(insert(table).values(row_of(table)))
    Database.open(url, component=component).close()
    with engine.connect() as connection:
        for table in before:
            assert [row._asdict() for row in connection.execute(select(table))] == [row_of(table)], table.name
        base = BASES[component.name]
        options = {"include_object": lambda _o, name, kind, *_: kind != "table" or name in base.metadata.tables}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), base.metadata) == []
    engine.dispose()


# What a release has made stands in databases of users, so its script may never make anything else: write a new one.
RELEASED = {
    (LEDGER.name, "0001"): "1b71d36c9571e38c",
    (LATENCY_TABLE.name, "0001"): "f3dd74502df7e650",
    (LATENCY_TABLE.name, "0002"): "f95ffa89a3f0ef66",
}


@pytest.mark.parametrize(("component", "revision"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_what_was_released_makes_the_same_tables_for_ever(tmp_path: Path, component: Component, revision: str) -> None:
    Database.open(tmp_path / "a.db", component=replace(component, head=revision)).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        inspector = inspect(connection)
        columns = [
            (table.name, column["name"], str(column["type"]), column["nullable"])
            for table in tables_of(connection, component)
            for column in inspector.get_columns(table.name)
        ]
    engine.dispose()
    digest = hashlib.sha256(repr(sorted(columns)).encode()).hexdigest()[:16]
    assert digest == RELEASED[component.name, revision]
