"""What stands around the MLflow client and needs no MLflow: addresses, the server's command, the chart.

The ready-made chart is an undocumented form of MLflow 3.17; should a later one not read it, the
experiment opens on its ordinary page.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ..spaces.errors import StoreError

_SQLITE = "sqlite:///"
_SERVERS = {"postgresql": 5432, "mysql": 3306}
_WAIT_SECONDS = 5.0
_VIEW = "pareto"
_SECTION, _CARD = "dynarch-section", "dynarch-pareto"


def shown(uri: str) -> str:
    """`uri` without password and options, fit for a message."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    login, at, place = parts.netloc.rpartition("@")
    hidden = login.partition(":")[0] + (":***" if ":" in login else "")
    return urlunsplit(parts._replace(netloc=hidden + at + place, query=""))


def check_store(uri: str) -> None:
    """Refuse at once what MLflow would only refuse after minutes of retries.

    A SQLite file is put into write-ahead mode, so that a server may read while a search writes.

    Raises:
        StoreError: if the scheme is not served here, or the file or the server cannot be reached.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme == "sqlite" and _sqlite_path(uri):
        _check_sqlite(uri, Path(_sqlite_path(uri)))
    elif scheme in _SERVERS:
        _check_server(uri, _SERVERS[scheme])
    elif scheme not in ("http", "https"):
        raise StoreError(
            "a tracking URI is sqlite:////path/mlflow.db, postgresql+psycopg://... or http://..., "
            f"but got {shown(uri)!r}; give one of these"
        )


def _sqlite_path(uri: str) -> str:
    return uri.removeprefix(_SQLITE).partition("?")[0] if uri.startswith(_SQLITE) else ""


def _check_sqlite(uri: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
            with suppress(sqlite3.OperationalError):  # in use by another: it stays in its mode
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"MLflow at {uri} cannot be opened: {error}; {remedy(uri, str(error))}") from error


def _check_server(uri: str, port: int) -> None:
    parts = urlsplit(uri)
    if not parts.hostname:  # a Unix socket, named in the query
        return
    try:
        socket.create_connection((parts.hostname, parts.port or port), timeout=_WAIT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise StoreError(f"MLflow at {shown(uri)} cannot be reached: {error}; {remedy(uri, '')}") from error


def remedy(uri: str, message: str) -> str:
    """What to do when MLflow at `uri` failed with `message`."""
    if "database is locked" in message:
        return "stop the other process that holds the database, or give the search one of its own"
    if "out-of-date database schema" in message:
        return f"back the database up and run: mlflow db upgrade {shown(uri)}"
    if uri.startswith("http"):
        return "start the MLflow server or give another tracking URI; the search can write this again later"
    if uri.startswith("sqlite"):
        return "give a tracking URI whose file is a SQLite database in a writable folder"
    return "start the database server or give another tracking URI; the search can write this again later"


def artifact_location(uri: str, artifact_root: Path | None) -> str | None:
    """Where a new experiment keeps its files; None leaves it to a server.

    Without a root they lie beside a SQLite database, not in whatever folder the process runs in.
    """
    path = _sqlite_path(uri)
    if artifact_root is None and path:
        artifact_root = Path(path).parent / "mlflow-artifacts"
    return None if artifact_root is None else artifact_root.resolve().as_uri()


def serve_command(uri: str, artifact_root: Path | None, port: int) -> list[str]:
    """The command that serves the tracking store `uri` and its pages on http://127.0.0.1:`port`."""
    location = artifact_location(uri, artifact_root)
    root = [] if location is None else ["--default-artifact-root", location]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, *root]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def link(ui_base_url: str, experiment_id: str) -> str:
    """The address of an experiment's page, opened on the Pareto scatter."""
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={_VIEW}"
    return f"{ui_base_url.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def shared_view() -> tuple[str, str]:
    """The experiment tag, name and value, that holds the scatter of accuracy over latency."""
    card = {
        "type": "SCATTER",
        "uuid": _CARD,
        "runsCountToCompare": 100,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        "displayName": "Accuracy over latency (ms)",
        "xaxis": {"key": "latency_ms", "type": "METRIC"},
        "yaxis": {"key": "accuracy", "type": "METRIC"},
    }
    section = {"uuid": _SECTION, "name": "Pareto front", "display": True, "isReordered": False}
    section |= {"columns": 1, "cardHeight": 420}  # else one chart takes a third of the page
    columns = [
        *("tags.`pareto`", "tags.`stage`", "tags.`family`", "tags.`backbone`"),
        *("metrics.`accuracy`", "metrics.`latency_ms`", "params.`network`"),
    ]
    state = {
        "orderByKey": "tags.`pareto`",  # a page holds a hundred runs: the front is on the first
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",  # else only ten runs are drawn
        "runsVisibilityMap": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "autoRefreshEnabled": False,
        "compareRunCharts": [card],
        "compareRunSections": [section],
    }
    return f"mlflow.sharedViewState.{_VIEW}", json.dumps(state, separators=(",", ":"))
