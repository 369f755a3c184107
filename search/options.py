"""Options: what commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..spaces.errors import DynarchError
from .handle import Search
from .storage import DEFAULT_STORAGE, Storage


def known_ids(context: typer.Context, incomplete: str) -> list[str]:
    """The searches whose ids begin so, the newest first, for the shell; to look is not to make a storage."""
    given = context.params
    place = Storage(Path(given.get("storage") or DEFAULT_STORAGE), given.get("database"))
    if place.database_file is not None and not place.database_file.is_file():
        return []
    try:
        with place.open_ledger() as ledger:
            records = sorted(ledger.searches(), key=lambda record: -record.created_at)
    except DynarchError:
        return []
    return [record.id for record in records if record.id.startswith(incomplete)]


StorageOption = Annotated[str, typer.Option(help="Folder for results.", envvar="DYNARCH_STORAGE")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="Database URL; default: SQLite in the folder.", envvar="DYNARCH_DATABASE")
]
IdArgument = Annotated[
    str | None, typer.Argument(help="Id of the search; default: the newest.", autocompletion=known_ids)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def held(search_id: str | None, storage: str, database: str | None) -> Search:
    """The search that a command is about; None: the newest.

    Raises:
        SearchNotFoundError, SpecError: if there is none.
    """
    place = Storage(Path(storage), database)
    place.prepare()
    return Search(place, place.newest_search() if search_id is None else search_id)
