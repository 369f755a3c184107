"""A database that fails for a moment: whole transactions are done over, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from dynarch.hardware.database import RETRY_DELAYS_SECONDS, Database
from dynarch.hardware.table import LATENCY_TABLE
from dynarch.search.ledger import LEDGER, Evaluation, Ledger, Point
from dynarch.spaces.errors import StoreError
from dynarch.tests.databases import BACKENDS, fresh_url
from dynarch.tests.search.ledger_writers import POINTS, finish, propose

# What databases say in a moment of weakness.
WEAK = {"sqlite": ("disk I/O error", "database is locked"), "postgresql": ("deadlock detected",)}


@dataclass
class Weakness:
    """Makes statements of a database fail: those whose numbers are in `at`, counted from 0."""

    said: str
    at: set[int] = field(default_factory=set)
    seen: int = 0
    pauses: list[float] = field(default_factory=list)

    def plant(self, database: Database) -> None:
        """From now on."""

        def before(*_: object) -> None:
            self.seen += 1
            if self.seen - 1 in self.at:
                raise self.error(database)

        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(database._engine, name, before)
        self.seen = 0

    def error(self, database: Database) -> Exception:
        """What the driver of the database raises."""
        driver: Any = database._engine.dialect.loaded_dbapi
        error: Exception = driver.OperationalError(self.said)
        return error


@pytest.fixture(params=[(backend, said) for backend in BACKENDS for said in WEAK[backend]], ids=str)
def weak(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ledger, Weakness]]:
    """A ledger with one candidate at work, and the failure of its kind of database."""
    backend, said = request.param
    weakness = Weakness(said)
    with Ledger.open(fresh_url(backend, tmp_path), pause=weakness.pauses.append) as ledger:
        ledger.create_search("s", name="digits", spec={}, seed=7, created_at=1.0)
        propose(ledger, 0)
        ledger.start("s", 0)
        yield ledger, weakness


def recorded(ledger: Ledger) -> tuple[tuple[Evaluation, ...], list[Point]]:
    """All that is known of the candidates; PostgreSQL does not give an id twice, whatever became of the first."""
    return ledger.evaluations("s"), [replace(point, id=0) for point in ledger.points("s")]


def ordinary(url: str) -> tuple[tuple[tuple[Evaluation, ...], list[Point]], int]:
    """What stands in a ledger whose candidate ended without a failure, and how many statements that took."""
    with Ledger.open(url) as ledger:
        ledger.create_search("s", name="digits", spec={}, seed=7, created_at=1.0)
        propose(ledger, 0)
        ledger.start("s", 0)
        counting = Weakness("nothing")
        counting.plant(ledger.database)
        assert finish(ledger, 0)
        statements = counting.seen
        return recorded(ledger), statements


def test_an_ending_that_fails_anywhere_is_recorded_once(weak: tuple[Ledger, Weakness], tmp_path: Path) -> None:
    """Every attempt fails one statement later than the one before, until there is none left to fail."""
    ledger, weakness = weak
    expected, statements = ordinary(fresh_url(ledger.database.backend, tmp_path))
    assert 4 <= statements <= len(RETRY_DELAYS_SECONDS)  # the search, the evaluation, its update, its points
    at = 0
    for position in range(statements):
        at += position  # an attempt that fails at its statement `position` has executed as many before
        weakness.at.add(at)
        at += 1
    weakness.plant(ledger.database)
    assert finish(ledger, 0)  # by this call and no other
    assert tuple(weakness.pauses) == RETRY_DELAYS_SECONDS[:statements]
    assert recorded(ledger) == expected
    assert len(expected[1]) == len(POINTS)


def test_a_reading_that_fails_is_read_again(weak: tuple[Ledger, Weakness]) -> None:
    ledger, weakness = weak
    weakness.at = {0}
    weakness.plant(ledger.database)
    assert [each.number for each in ledger.evaluations("s")] == [0]
    assert tuple(weakness.pauses) == RETRY_DELAYS_SECONDS[:1]


def test_an_attempt_is_counted_once(weak: tuple[Ledger, Weakness]) -> None:
    """`start` is the one call of the ledger that may not be made twice."""
    ledger, weakness = weak
    weakness.at = {2}
    weakness.plant(ledger.database)
    assert ledger.start("s", 0).attempts == 2  # the first was made before anything failed
    assert len(weakness.pauses) == 1


def test_a_failure_that_lasts_is_told_in_the_end(weak: tuple[Ledger, Weakness]) -> None:
    ledger, weakness = weak
    weakness.at = set(range(1000))
    weakness.plant(ledger.database)
    with pytest.raises(StoreError, match=f"refused: {weakness.said}; see that it is reachable") as caught:
        finish(ledger, 0)
    assert "\n" not in str(caught.value)
    assert tuple(weakness.pauses) == RETRY_DELAYS_SECONDS
    weakness.at.clear()
    assert [each.state for each in ledger.evaluations("s")] == ["running"]
    assert ledger.points("s") == ()


def test_a_refusal_is_not_done_over(weak: tuple[Ledger, Weakness]) -> None:
    ledger, weakness = weak
    asked: list[None] = []

    def work(session: Session) -> None:
        asked.append(None)
        session.execute(text("INSERT INTO dynarch_event VALUES (NULL, 'absent', 0, '', '')"))

    with pytest.raises(StoreError):
        ledger.database.write(work)
    assert (len(asked), weakness.pauses) == (1, [])


def fail_once(commit: Callable[[Any], None], error: Exception) -> Callable[[Any], None]:
    failures = iter([error])

    def weak_commit(connection: Any) -> None:
        for failure in failures:
            raise failure
        commit(connection)

    return weak_commit


def test_a_commit_that_fails_is_done_over_where_it_certainly_failed(
    weak: tuple[Ledger, Weakness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says so. A server whose answer was lost may have committed; then nobody may start the work again."""
    ledger, weakness = weak
    dialect = ledger.database._engine.dialect
    monkeypatch.setattr(dialect, "do_commit", fail_once(dialect.do_commit, weakness.error(ledger.database)))
    if ledger.database.backend == "sqlite":
        assert ledger.start("s", 0).attempts == 2
        assert tuple(weakness.pauses) == RETRY_DELAYS_SECONDS[:1]
    else:
        with pytest.raises(StoreError, match="deadlock detected"):
            ledger.start("s", 0)
        assert weakness.pauses == []


@pytest.mark.parametrize("component", [LEDGER, LATENCY_TABLE], ids=lambda component: component.name)
def test_opening_a_database_that_fails_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: Any
) -> None:
    pauses: list[float] = []
    bring = Database._bring_to_head

    def weak_bring(database: Database) -> None:
        weakness = Weakness(WEAK["sqlite"][0], at={1} if not pauses else set())
        weakness.plant(database)
        bring(database)

    monkeypatch.setattr(Database, "_bring_to_head", weak_bring)
    Database.open(tmp_path / "a.db", component=component, pause=pauses.append).close()
    assert tuple(pauses) == RETRY_DELAYS_SECONDS[:1]
