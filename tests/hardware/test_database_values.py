"""Where a database may be, and what may be stored in it."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dynarch.hardware.database import RETRY_DELAYS_SECONDS, Database, plain_json, plain_text
from dynarch.search.ledger import LEDGER
from dynarch.spaces.errors import StoreError
from dynarch.tests.databases import fresh_url


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
    assert plain_json({"loss": [0.5, math.nan, math.inf]}, "v", nan_as_none=True) == {"loss": [0.5, None, None]}


def test_text_without_what_databases_refuse() -> None:
    assert plain_text("a\x00b\ud800é\n") == "ab?é\n"
