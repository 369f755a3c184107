"""The search in MLflow: a parent run a search, a nested run a candidate, the front as tags and files.

MLflow is a view, never the truth: every method may fail with `StoreError` and be called again later.
What is written twice is written once: runs are found by the tags `dynarch.search_id` and
`dynarch.number`. Only `MlflowClient` is used, so the caller's own MLflow state is left alone.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, final

# MLflow reads these while it is imported or called. What the caller has set stays.
_ENVIRONMENT = {
    "MLFLOW_CONFIGURE_LOGGING": "false",  # else it takes over the loggers of alembic and sqlalchemy
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default retries for minutes while a search waits
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of no use here, and four more processes
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402 - after its environment
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.store.db import utils as mlflow_database  # noqa: E402

from ..spaces.errors import StoreError  # noqa: E402
from .tracking_records import (  # noqa: E402
    KIND,
    NUMBER,
    PARETO,
    SEARCH_ID,
    STATUS,
    CandidateRun,
    Reconciled,
    State,
    Step,
    key,
    param_values,
    tag_values,
)
from .tracking_store import (  # noqa: E402
    artifact_location,
    check_store,
    link,
    remedy,
    serve_command,
    shared_view,
    shown,
)

__all__ = ["CandidateRun", "MLflowTracker", "Reconciled", "link", "serve_command"]

_MAX_METRICS, _MAX_PARAMS, _MAX_TAGS = 800, 100, 100  # of one request, which may hold 1000 in all
_PAGE = 1000
_OPEN = ("RUNNING", "SCHEDULED")

for _name, _level in (
    ("mlflow", logging.ERROR),
    ("mlflow.store.db.utils", logging.CRITICAL),  # prints a traceback of what it also raises
    ("urllib3.connectionpool", logging.ERROR),  # a line for each retry of a server that is away
    ("alembic.runtime.migration", logging.WARNING),  # a line for each of MLflow's many migrations
):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(_level)


@final
class MLflowTracker:
    """Writes searches into one experiment of an MLflow store.

    Args:
        uri: `sqlite:////path/mlflow.db`, `postgresql+psycopg://...` or `http://...`.
        experiment: name of the experiment, made if there is none.
        artifact_root: folder of the files of a new experiment; beside a SQLite database if not given.
        clock: seconds since the epoch.

    Raises:
        StoreError: if the store cannot be opened. So do all methods if it cannot be written.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        *,
        artifact_root: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_store(uri)
        self._uri, self._clock = uri, clock
        self._search_ids: dict[str, str] = {}  # by parent run
        with self._asking("open the experiment"), _impatient():
            self._client = MlflowClient(uri)
            self.experiment_id: str = self._open(experiment, artifact_location(uri, artifact_root))

    def _open(self, name: str, location: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                self._client.create_experiment(name, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
            found = self._client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise StoreError(
                f"an experiment must not be in MLflow's trash, but {name!r} is; restore it or name another"
            )
        tag, view = shared_view()
        if found.tags.get(tag) != view:
            self._client.set_experiment_tag(found.experiment_id, tag, view)
        return str(found.experiment_id)

    def start(
        self, search_id: str, name: str, spec_text: str, params: Mapping[str, str], *, known: str | None = None
    ) -> str:
        """Open the parent run of a search, or set it running again; gives its run id.

        Args:
            known: the run that it had, if there was one; others of the same search go to MLflow's trash.
        """
        with self._asking(f"start search {search_id}"):
            runs = list(self._find(search_id, "search"))
            run = next((each for each in runs if each.info.run_id == known), runs[0] if runs else None)
            for double in runs:  # a request that was answered too late, and was sent again
                if double is not run:
                    self._client.delete_run(double.info.run_id)
            if run is None:
                tags = {SEARCH_ID: search_id, KIND: "search", "mlflow.source.name": "dynarch"}
                run = self._client.create_run(self.experiment_id, self._now_ms(), tags, name)
            else:
                self._client.update_run(run.info.run_id, status="RUNNING", name=name)
            run_id = str(run.info.run_id)
            self._log(run_id, params=_params(params, run.data.params))
            suffix = "json" if spec_text.lstrip().startswith("{") else "yaml"
            self._client.log_text(run_id, spec_text, f"spec.{suffix}")
        self._search_ids[run_id] = search_id
        return run_id

    def log_candidate(
        self,
        parent_run_id: str,
        record: CandidateRun,
        run_id: str | None = None,
        *,
        maybe_exists: bool = False,
    ) -> str:
        """Write one ended candidate as a nested run and end that run; gives its run id.

        Args:
            run_id: the run to complete, if it is known.
            maybe_exists: look for a run of that number first, as after a crash; a fresh candidate
                need not pay for that.
        """
        with self._asking(f"log candidate {record.number}"):
            search_id = self._search_id(parent_run_id)
            run = self._client.get_run(run_id) if run_id else None
            if run is None and maybe_exists:
                run = next(iter(self._find(search_id, "candidate", record.number)), None)
            tags = record.run_tags(search_id, parent_run_id)
            if run is None:
                first = {PARETO: "false"} | tags  # until `tag_front` says otherwise
                started = record.started_at_ms
                run = self._client.create_run(self.experiment_id, started, first, record.run_name)
                tags = {}
            known = str(run.info.run_id)
            self._log(known, _candidate_metrics(record), _params(record.params, run.data.params), tags)
            self._client.set_terminated(known, STATUS[record.state], record.ended_at_ms)
        return known

    def log_progress(self, parent_run_id: str, steps: Sequence[Step]) -> None:
        """Write how the search stood at these steps."""
        with self._asking("log progress"):
            metrics = [each for step in steps for each in _metrics(step.metrics, step.at_ms, step.number)]
            self._log(parent_run_id, metrics)

    def log_report(
        self,
        parent_run_id: str,
        files: Mapping[str, Path],
        summary_markdown: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Attach the files of a report, its summary as the run's note, its totals as metrics."""
        with self._asking("log the report"):
            for path in files.values():
                self._client.log_artifact(parent_run_id, str(path))
            tables = [{"path": path.name, "type": "table"} for name, path in files.items() if name == "front.json"]
            note = {"mlflow.note.content": summary_markdown, **(tags or {})}
            note |= {"mlflow.loggedArtifacts": json.dumps(tables)} if tables else {}
            self._log(parent_run_id, _metrics(metrics, self._now_ms(), 0), tags=note)

    def tag_front(self, parent_run_id: str, numbers: Collection[int]) -> tuple[int, ...]:
        """Tag every candidate `pareto` "true" or "false"; gives the numbers of the front that have no run."""
        with self._asking("tag the front"):
            missing = set(numbers)
            for run in self._find(self._search_id(parent_run_id), "candidate"):
                number = int(run.data.tags[NUMBER])
                missing.discard(number)
                member = "true" if number in numbers else "false"
                if run.data.tags.get(PARETO) != member:
                    self._client.set_tag(run.info.run_id, PARETO, member)
        return tuple(sorted(missing))

    def finish(self, parent_run_id: str, status: State) -> None:
        """End the parent run."""
        with self._asking("finish the search"):
            self._client.set_terminated(parent_run_id, STATUS[status], self._now_ms())

    def reconcile(self, search_id: str, terminal: Mapping[int, State]) -> Reconciled:
        """Bring the runs of a search in line with `terminal`, the ended candidates by number.

        Runs left open are ended, second runs of a number are moved to MLflow's trash.
        """
        with self._asking(f"reconcile search {search_id}"):
            runs: dict[int, list[Any]] = {}
            for run in self._find(search_id, "candidate"):
                runs.setdefault(int(run.data.tags[NUMBER]), []).append(run)
            kept = {number: self._keep_one(found) for number, found in runs.items()}
            ended = [number for number in terminal.keys() & kept if kept[number].info.status in _OPEN]
            for number in ended:
                run_id, status = kept[number].info.run_id, STATUS[terminal[number]]
                self._client.set_terminated(run_id, status, self._now_ms())
        return Reconciled(
            ended=tuple(sorted(ended)),
            deduplicated=tuple(sorted(number for number, found in runs.items() if len(found) > 1)),
            missing=tuple(sorted(terminal.keys() - kept.keys())),
            unknown=tuple(sorted(kept.keys() - terminal.keys())),
        )

    def _keep_one(self, runs: Sequence[Any]) -> Any:
        """The fullest run, of equals the oldest; the others go to the trash."""
        best = max(runs, key=lambda run: (run.info.status not in _OPEN, len(run.data.metrics)))
        for run in runs:
            if run is not best:
                self._client.delete_run(run.info.run_id)
        return best

    def _find(self, search_id: str, kind: str, number: int | None = None) -> Iterator[Any]:
        """The runs of a search, oldest first."""
        wanted = {SEARCH_ID: search_id, KIND: kind} | ({} if number is None else {NUMBER: str(number)})
        query = " and ".join(f"tags.`{tag}` = {_quoted(value)}" for tag, value in wanted.items())
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                query,
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _search_id(self, parent_run_id: str) -> str:
        if parent_run_id not in self._search_ids:
            run = self._client.get_run(parent_run_id)
            self._search_ids[parent_run_id] = str(run.data.tags[SEARCH_ID])
        return self._search_ids[parent_run_id]

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """One request, or as many as MLflow's limits ask for."""
        marks = [RunTag(name, value) for name, value in tag_values(tags or {}).items()]
        parts = ((metrics, _MAX_METRICS), (params, _MAX_PARAMS), (marks, _MAX_TAGS))
        for request in range(max(-(-len(items) // size) for items, size in parts)):
            chunk = [items[request * size : (request + 1) * size] for items, size in parts]
            self._client.log_batch(run_id, *chunk)

    def _now_ms(self) -> int:
        return round(1000 * self._clock())

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn whatever MLflow lets through (its own, requests', the database's) into a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            message = " ".join(str(error).split()).replace(self._uri, shown(self._uri))
            advice = remedy(self._uri, message)
            raise StoreError(f"MLflow at {shown(self._uri)} could not {what}: {message[:200]}; {advice}") from error


@contextmanager
def _impatient() -> Iterator[None]:
    """Have MLflow try a database three times; its ten take two minutes over a wrong password."""
    patience = mlflow_database.MAX_RETRY_COUNT
    mlflow_database.MAX_RETRY_COUNT = 3
    try:
        yield
    finally:
        mlflow_database.MAX_RETRY_COUNT = patience


def _quoted(value: str) -> str:
    if "'" in value and '"' in value:
        raise StoreError(f"a search id holds one kind of quotes at most, but got {value!r}; give another")
    return f'"{value}"' if "'" in value else f"'{value}'"


def _params(params: Mapping[str, str], known: Mapping[str, str]) -> list[Any]:
    return [Param(name, value) for name, value in param_values(params, known).items()]


def _metrics(metrics: Mapping[str, float], at_ms: int, step: int) -> list[Any]:
    return [Metric(key(name), value, at_ms, step) for name, value in metrics.items() if isfinite(value)]


def _candidate_metrics(record: CandidateRun) -> list[Any]:
    """All of one time, so that MLflow knows a repetition as such."""
    return [Metric(name, value, record.ended_at_ms, step) for name, value, step in record.points()]
