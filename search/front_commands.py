"""`dynarch front` and `dynarch compare`: what searches found."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..hardware.devices import device_from_dict
from .comparison import Comparison
from .front_point import points_table
from .guaranteed import guaranteed
from .options import DatabaseOption, IdArgument, JsonOption, StorageOption, held, known_ids
from .storage import DEFAULT_STORAGE

NOTHING_FOUND = 3  # exit code
out = Console()
err = Console(stderr=True)


def front(
    search_id: IdArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    device: Annotated[
        str | None,
        typer.Option(help="Name of a device of the search; or kind of another device, whose parts are timed now."),
    ] = None,
    table: Annotated[str | None, typer.Option(help="Environment in the latency table; nothing is timed.")] = None,
    batch: Annotated[int, typer.Option(help="Inputs at a time on that other device or table.")] = 1,
    max_latency_ms: Annotated[float | None, typer.Option(help="Leave out what is slower.", min=0)] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Leave out what is worse.", min=0, max=1)] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Leave out what may lose more accuracy, as a fraction, than its network run whole.", min=0),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of that promise, for all points at once.", min=0, max=1)] = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Show the front of a search, or what it is on another device or table; nothing is trained.

    Exit code 3 if there is no such point.
    """
    search = held(search_id, storage, database)
    named = device if device in search.devices and batch == 1 else None
    other = None if device is None or named else device_from_dict({"kind": device, "batch": batch}, "device")
    points = search.front(
        device=named or other, table=table, batch=batch, max_latency_ms=max_latency_ms, min_accuracy=min_accuracy
    )
    if max_drop is not None:
        points = guaranteed(points, max_drop=max_drop, confidence=confidence, method="learn_then_test")
    if as_json:
        out.print_json(json.dumps([point.to_mapping() for point in points]))
    elif points:
        out.print(points_table(points, named))
    if points:
        return
    state = search.status().state
    bounded = any(bound is not None for bound in (max_latency_ms, min_accuracy, max_drop))
    reason = f"search {search.id} is {state}"
    if state == "finished":
        reason = "nothing keeps these bounds" if bounded else "the front is empty"
    err.print(f"no point to show: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(NOTHING_FOUND)


def compare(
    a: Annotated[str, typer.Argument(help="Id of a search.", autocompletion=known_ids)],
    b: Annotated[str, typer.Argument(help="Id of the search to compare it with.", autocompletion=known_ids)],
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the fronts of two searches: hypervolume under one reference, and which points beat which."""
    found = held(a, storage, database).compare(held(b, storage, database))
    if as_json:
        out.print_json(json.dumps(found.to_mapping()))
        return
    out.print(_comparison_table(found))
    for name, volume, search in (("A", found.hypervolume_a, found.a), ("B", found.hypervolume_b, found.b)):
        of = sum(each.search == name for each in found.points)
        unbeaten = found.unbeaten("A" if name == "A" else "B")
        text = f"{name}: {search}, hypervolume {volume:.4f}, {unbeaten} of {of} points unbeaten by the other"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        err.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _comparison_table(found: Comparison) -> Table:
    title = f"on the {found.split} split, latencies predicted"
    table = Table("", "point", "network", *found.objectives, "beaten by", title=title)
    for each in found.points:
        values = [f"{value:.4g}" for value in each.values]
        cells = (each.search, each.point, each.network, *values, " ".join(each.beaten_by) or "-")
        table.add_row(*(Text(cell) for cell in cells))
    return table
