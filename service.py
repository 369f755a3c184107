"""The face of dynarch: `SearchService` for Python, `dynarch` for the command line."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, final

import typer
from rich.console import Console

from .hardware.device import AbstractDevice
from .hardware.devices import device_from_dict
from .search.display import Display
from .search.export_command import export
from .search.front_commands import compare, front
from .search.handle import LOG_WARNING, Search, Status, Warn
from .search.options import DatabaseOption, IdArgument, JsonOption, StorageOption
from .search.problem import Problem
from .search.profiling import Profiler
from .search.report import front_table, read_report, report_files
from .search.report_rows import FrontReport
from .search.spec_commands import init, schema
from .search.spec_file import load_spec
from .search.state_commands import cancel, status
from .search.storage import DEFAULT_STORAGE, REPORT, Storage
from .search.table_commands import app as table_app
from .search.tracking_store import link, serve_command
from .spaces.errors import DynarchError, StoreError
from .spaces.space import Space


@final
class SearchService:
    """Launches searches and looks after them.

    Args:
        storage: folder for artefacts and, unless `database` says otherwise, for the ledger.
        database: URL of ledger, latency table, study and MLflow, such as `postgresql://...`; None: SQLite files.
        tracking: URI of MLflow, if it is kept elsewhere.
        ray: address of a Ray cluster, or "auto"; None: what the search says, or a small one here for each search.

    Raises:
        StoreError: if the folder cannot be written.

    Examples:
        >>> from dynarch import Problem, SearchService  # doctest: +SKIP
        >>> search = SearchService().launch(Problem())  # doctest: +SKIP
        >>> search.wait()  # doctest: +SKIP
    """

    def __init__(
        self,
        storage: str | Path = DEFAULT_STORAGE,
        *,
        database: str | None = None,
        tracking: str | None = None,
        ray: str | None = None,
    ) -> None:
        self.storage = Storage(Path(storage), database, tracking)
        self.storage.prepare()
        self._ray = ray

    def launch(self, problem: Problem, *, warn: Warn = LOG_WARNING) -> Search:
        """Record a search and run it in the background of this process.

        Args:
            warn: told what does not end the search but should be known; by default the logger `dynarch`.
        """
        search_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.storage.keep_data(problem.data)
        self.storage.keep_models(problem.space)
        with self.storage.open_ledger() as ledger:
            ledger.create_search(
                search_id,
                name=problem.strategy.name,
                spec=problem.to_mapping(),
                seed=problem.strategy.seed,
                created_at=time.time(),
                data_id=problem.data.id,
            )
        return self.get(search_id).resume(warn=warn)

    def list(self) -> tuple[Status, ...]:
        """All searches, the newest last."""
        with self.storage.open_ledger() as ledger:
            ids = [record.id for record in ledger.searches()]
        return tuple(self.get(search_id).status() for search_id in ids)

    def get(self, search_id: str | None = None) -> Search:
        """A search by its id; None: the newest.

        Raises:
            SearchNotFoundError: if there is none.
            SpecError: if there is no search at all.
        """
        return Search(self.storage, self.storage.newest_search() if search_id is None else search_id, ray=self._ray)

    def profile(
        self,
        space: Space,
        device: AbstractDevice,
        *,
        data: object = "digits",
        watcher: Callable[[str, int, int], None] | None = None,
    ) -> str:
        """Measure everything that a space can need on a device; the id of the table version."""
        problem = Problem(space=space, data=data, devices={"device": device})
        with self.storage.open_table() as table:
            profiler = Profiler(space, problem.data.signature, table, seed=0, progress=watcher)
            return profiler.book(problem.devices)[0].first[1].table_version

    def ui_command(self, port: int = 5000) -> Sequence[str]:
        """The command that serves the MLflow UI over this service's store, on this machine alone."""
        return serve_command(self.storage.tracking_uri, self.storage.artifact_root, port)

    def ui_link(self, port: int = 5000) -> str:
        """Where the UI shows the fronts."""
        return link(f"http://127.0.0.1:{port}", self.storage.open_tracker().experiment_id)


# -- command line --------------------------------------------------------------------------------------------

app = typer.Typer(
    name="dynarch",
    help="Search for dynamic neural networks: trained, really routed, timed on the device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(table_app)
out = Console()
err = Console(stderr=True)

TrackingOption = Annotated[
    str | None, typer.Option(help="MLflow URI; default: the database.", envvar="DYNARCH_TRACKING")
]
RayOption = Annotated[str | None, typer.Option(help="Address of a Ray cluster, or 'auto'.", envvar="DYNARCH_RAY")]


def _version(asked: bool) -> None:
    if asked:
        out.print(version("dynarch"))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def search(
    spec: Annotated[Path, typer.Argument(help="TOML file that describes the search.")],
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    tracking: TrackingOption = None,
    ray: RayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a search and print its front."""
    problem = load_spec(spec)
    service = SearchService(storage, database=database, tracking=tracking, ray=ray)
    _follow(service, service.launch(problem, warn=_warn), as_json)


@app.command()
def resume(
    search_id: IdArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    tracking: TrackingOption = None,
    ray: RayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a search that was interrupted or whose driver died; of a finished one, bring MLflow up to date."""
    service = SearchService(storage, database=database, tracking=tracking, ray=ray)
    held = service.get(search_id)
    if held.status().state == "finished":
        written = held.sync()
        if as_json:
            _print_ended(held, read_report(held.folder / REPORT))
        else:
            out.print(f"search {held.id} has finished; MLflow is complete ({written} candidates written late)")
        return
    _follow(service, held.resume(warn=_warn), as_json)


@app.command()
def profile(
    space: Annotated[Path, typer.Option(help="TOML file whose space (and data) is to be measured.")],
    device: Annotated[str, typer.Option(help="Kind of device.")] = "cpu",
    batch: Annotated[int, typer.Option(help="Inputs at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every part that a space can need; a profile that was interrupted goes on where it was."""
    problem = load_spec(space, only=("space", "data"))
    chosen = device_from_dict({"kind": device, "batch": batch, "threads": threads}, "device")
    service = SearchService(storage, database=database)
    try:
        with Display(err if as_json else out) as display:
            made = service.profile(problem.space, chosen, data=problem.data, watcher=display.note)
    except KeyboardInterrupt:
        _warn("interrupted, what was measured is kept; the same command goes on from there")
        raise typer.Exit(130) from None
    found = chosen.environment().environment_id
    if as_json:
        out.print_json(json.dumps({"environment": found, "table_version": made, "device": chosen.name}))
        return
    _say(f"environment {found}; see: dynarch table show {found[:6]} --storage {storage}")
    _say(f"table version {made} for {chosen.name}")


@app.command()
def ui(
    storage: StorageOption = DEFAULT_STORAGE,
    database: DatabaseOption = None,
    tracking: TrackingOption = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 5000,
) -> None:
    """Serve the MLflow UI over the results, on this machine alone."""
    service = SearchService(storage, database=database, tracking=tracking)
    out.print(f"fronts: {service.ui_link(port)}", soft_wrap=True, highlight=False)
    raise typer.Exit(subprocess.call(service.ui_command(port)))


for command in (status, front, compare, export, cancel, init, schema):
    app.command()(command)


def main() -> NoReturn:
    """The `dynarch` command.

    Exit code 0 if all went well, 1 for errors that are told on one line, 2 for a command line that is none, 3 if there
    is nothing to show, 130 for Ctrl-C and SIGTERM; what is recorded is kept then."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except DynarchError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow(service: SearchService, running: Search, as_json: bool) -> None:
    """Show progress until the search of this process ends, then its front; as JSON, all but that goes to stderr."""
    shown = err if as_json else out
    shown.print(f"search {running.id} in {service.storage.folder}", highlight=False)
    try:
        with Display(shown) as display:
            running.watch(display.show)
            report = running.wait()
    except KeyboardInterrupt:
        text = f"interrupted, everything is saved; continue with: {service.storage.resume_command(running.id)}"
        err.print(text, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except StoreError as error:
        hint = f"what is recorded is kept; continue with: {service.storage.resume_command(running.id)}"
        raise StoreError(f"{error}; {hint}") from error
    if as_json:
        _print_ended(running, report)
        return
    if report is None:
        state = running.status()
        out.print(f"search {state.id} is {state.state}: {state.reason}", highlight=False)
        return
    _print_report(service, running, report)


def _print_report(service: SearchService, ended: Search, report: FrontReport) -> None:
    out.print(front_table(report, min(out.width, 120)))
    for note in report.notes:
        out.print(f"- {note}", highlight=False)
    for file in ("front.html", "front.png", "front.csv", "pictures.html", "report.json"):
        out.print(f"wrote {ended.folder / 'report' / file}", highlight=False, soft_wrap=True)
    out.print(f"open the MLflow UI: dynarch ui --storage {service.storage.folder}", highlight=False)


def _print_ended(ended: Search, report: FrontReport | None) -> None:
    told = {**asdict(ended.status()), "report": None}
    if report is not None:
        told["report"] = json.loads(report_files(ended.folder / REPORT)["report.json"].read_text(encoding="utf-8"))
    out.print_json(json.dumps(told))


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _warn(text: str) -> None:
    err.print(text, style="yellow", markup=False, highlight=False)


if __name__ == "__main__":
    main()
