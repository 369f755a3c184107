"""Options: what commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .handle import Search
from .storage import Storage

StorageOption = Annotated[str, typer.Option(help="Folder for results.", envvar="DYNARCH_STORAGE")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="Database URL; default: SQLite in the folder.", envvar="DYNARCH_DATABASE")
]
IdArgument = Annotated[str | None, typer.Argument(help="Id of the search; default: the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def held(search_id: str | None, storage: str, database: str | None) -> Search:
    """The search that a command is about; None: the newest.

    Raises:
        SearchNotFoundError, SpecError: if there is none.
    """
    place = Storage(Path(storage), database)
    place.prepare()
    return Search(place, place.newest_search() if search_id is None else search_id)
