"""`dynarch init` and `dynarch schema`: where a spec comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..evaluators.atomic import replacing
from ..spaces.errors import StoreError
from .options import JsonOption
from .spec_schema import spec_schema
from .spec_template import SPEC

out = Console()


def init(
    file: Annotated[Path, typer.Argument(help="File to write.")] = Path("search.toml"),
    data: Annotated[
        str, typer.Option(help="What the search is about: an embedded set, a file or a folder.")
    ] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented spec to start from; what is there is not replaced."""
    if file.exists() and not force:
        raise StoreError(f"{str(file)!r} is there already; name another file, or replace it with --force")
    text = SPEC.format(file=file, name=file.stem, source=json.dumps(data))
    try:
        with replacing(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise StoreError(f"{str(file)!r} cannot be written ({error.strerror}); name another file") from None
    if as_json:
        out.print_json(json.dumps({"file": str(file)}))
        return
    out.print(f"wrote {file}; run it with: dynarch search {file}", markup=False, highlight=False, soft_wrap=True)


def schema() -> None:
    """Print the JSON Schema of a spec, for editors and programs."""
    out.print_json(json.dumps(spec_schema()))
