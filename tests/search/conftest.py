"""A search on record, a real MLflow store, and outages of it: for the tests of what is written there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dynarch import Problem
from dynarch.search.ledger import Ledger
from dynarch.tests.search.recorded import Open, Outages
from dynarch.tests.tiny_searches import shared_service, tiny_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return tiny_problem()


@pytest.fixture
def ledger(tmp_path: Path, problem: Problem, search_id: str) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        opened.create_search(search_id, name="tiny", spec=problem.to_mapping(), seed=0, created_at=1.0)
        opened.set_hypervolume_reference(search_id, (0.0, 8.0))
        yield opened


@pytest.fixture
def search_id(request: pytest.FixtureRequest) -> str:
    """One for each test, as they share an MLflow store: to make one takes MLflow seconds."""
    return str(request.node.name)


@pytest.fixture(scope="module")
def open_tracker() -> Open:
    storage = shared_service().storage
    tracker = storage.open_tracker()
    return lambda: tracker


@pytest.fixture
def outages(open_tracker: Open) -> Outages:
    return Outages(open_tracker)
