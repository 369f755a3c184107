"""`dynarch status` and `dynarch cancel`: how searches stand, and an end to one of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .handle import Search
from .options import DatabaseOption, IdArgument, JsonOption, StorageOption, held
from .storage import DEFAULT_STORAGE, Storage

out = Console()


def status(
    search_id: IdArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List searches, or show one."""
    searches = [held(search_id, storage, database)] if search_id else _all(storage, database)
    rows = [each.status() for each in searches]
    if as_json:
        out.print_json(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("search", "name", "state", "finished", "stopped", "failed", "open", "of")
    for row in rows:
        counts = row.counts
        numbers = (counts.done, counts.stopped, counts.failed, counts.running + counts.proposed, row.trials)
        table.add_row(row.id, row.name, row.state, *map(str, numbers))
    out.print(table)


def cancel(
    search_id: IdArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a running search to end; what is finished is kept."""
    search = held(search_id, storage, database)
    search.cancel()
    row = search.status()
    if as_json:
        out.print_json(json.dumps(asdict(row)))
        return
    out.print(f"search {row.id} is {row.state}; one that runs ends within seconds", highlight=False)


def _all(storage: str, database: str | None) -> list[Search]:
    place = Storage(Path(storage), database)
    place.prepare()
    with place.open_ledger() as ledger:
        ids = [record.id for record in ledger.searches()]
    return [Search(place, search_id) for search_id in ids]
