"""`dynarch export`: a point of the front as a folder that runs without dynarch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..spaces.errors import UnknownNameError
from .front_commands import NOTHING_FOUND, err, out
from .options import DatabaseOption, JsonOption, StorageOption, held, known_ids
from .storage import DEFAULT_STORAGE


def export(
    search_id: Annotated[str, typer.Argument(metavar="SEARCH", help="Id of a search.", autocompletion=known_ids)],
    point: Annotated[str, typer.Argument(metavar="POINT", help="Label of a point, as `dynarch front` shows it.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="torch or onnxruntime; may be repeated. Default: torch, and onnxruntime where it can."),
    ] = None,
    weights_licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the manifest.")] = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also make it the next version of this model in MLflow.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a point of the front as a folder that runs without dynarch: programs, weights, manifest and runner.

    Exit code 3 if the search has no front.
    """
    search = held(search_id, storage, database)
    points = {each.label: each for each in search.front()}
    if not points:
        err.print("no point to export: the front is empty", style="yellow", markup=False, highlight=False)
        raise typer.Exit(NOTHING_FOUND)
    if point not in points:
        raise UnknownNameError("point", point, points)
    made = points[point].export(folder, runtimes=runtime, weights_licence=weights_licence)
    for note in made.notes:
        err.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    model = None if register is None else search.register(made, register)
    if as_json:
        out.print_json(json.dumps({**made.to_mapping(), "model": model}))
        return
    for line in (
        f"{points[point]}",
        f"written to {made.folder}, for {' and '.join(made.runtimes)}",
        f"manifest sha256 {made.sha256}",
        f"try: python {made.folder / 'run.py'} inputs.npy",
        "" if model is None else f"registered; serve it: mlflow models serve -m {model} --env-manager local",
    ):
        if line:
            out.print(line, markup=False, highlight=False, soft_wrap=True)
