"""The tracker against a real MLflow store: one run a candidate whatever dies, and a front to ask for."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import mlflow
import pytest
from mlflow import MlflowClient

from dynarch.search.tracking import CandidateRun, MLflowTracker, Reconciled, link, serve_command
from dynarch.search.tracking_records import Step
from dynarch.search.tracking_store import shared_view, shown
from dynarch.spaces.errors import StoreError


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('a store')}/mlflow.db"


@pytest.fixture(scope="module")
def tracker(uri: str) -> MLflowTracker:
    """One store for all tests: to make one takes MLflow seconds. Each test has a search of its own."""
    return MLflowTracker(uri, "dynarch", clock=lambda: 1000.0)


@pytest.fixture(scope="module")
def client(uri: str, tracker: MLflowTracker) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def parent(tracker: MLflowTracker, request: pytest.FixtureRequest) -> str:
    return tracker.start(request.node.name, "a search", "{}", {"seed": "0"})


def candidate(number: int) -> CandidateRun:
    return CandidateRun(
        number=number,
        architecture_id="3f9a1c77d20be451",
        state="finished",
        cause="",
        params={"early_exit.count": "2"},
        metrics={"accuracy": 0.9, "latency_ms": 0.25},
        curves={"loss": [(1, 2.0), (2, 1.0)], "accuracy": [(1, 0.5), (2, 0.75)]},
        tags={"family": "early_exit"},
        started_at_ms=1_000,
        ended_at_ms=3_000,
    )


def children(client: MlflowClient, tracker: MLflowTracker, parent: str, extra: str = "") -> list[Any]:
    query = f"tags.mlflow.parentRunId = '{parent}'{extra}"
    return list(client.search_runs([tracker.experiment_id], query, max_results=1000))


def numbers(runs: Sequence[Any]) -> list[int]:
    return sorted(int(run.data.tags["dynarch.number"]) for run in runs)


def test_a_candidate_is_one_nested_run(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    run_id = tracker.log_candidate(parent, candidate(7))
    (run,) = children(client, tracker, parent)
    assert run.info.run_id == run_id
    assert run.info.run_name == "0007 3f9a1c77"
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000, 3_000)
    assert run.data.params == {"early_exit.count": "2"}
    assert run.data.metrics == {"accuracy": 0.9, "latency_ms": 0.25, "loss": 1.0}
    # the final accuracy follows the curve, or MLflow would show the curve's last value as the result
    history = client.get_metric_history(run_id, "accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.75), (3, 0.9)]
    assert run.data.tags.items() >= {"family": "early_exit", "pareto": "false", "dynarch.number": "7"}.items()


@pytest.mark.parametrize(("state", "status"), [("finished", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")])
def test_the_state_of_a_candidate_is_that_of_its_run(
    tracker: MLflowTracker, client: MlflowClient, parent: str, state: Any, status: str
) -> None:
    run = client.get_run(tracker.log_candidate(parent, replace(candidate(1), state=state, cause="no memory")))
    assert run.info.status == status
    assert run.data.tags["dynarch.cause"] == "no memory"


def test_a_candidate_written_twice_is_there_once(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    first = tracker.log_candidate(parent, candidate(1))
    client.set_tag(first, "pareto", "true")
    changed = replace(candidate(1), params={"early_exit.count": "changed", "late": "1"})
    assert tracker.log_candidate(parent, changed, maybe_exists=True) == first
    assert tracker.log_candidate(parent, candidate(1), first) == first
    (run,) = children(client, tracker, parent)
    assert run.data.params == {"early_exit.count": "2", "late": "1"}  # MLflow lets no parameter change
    assert run.data.tags["pareto"] == "true"
    assert len(client.get_metric_history(first, "loss")) == 2


def test_a_run_cut_short_is_completed(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    tags = candidate(5).run_tags(client.get_run(parent).data.tags["dynarch.search_id"], parent)
    cut = client.create_run(tracker.experiment_id, tags=tags)  # and then the process died
    assert tracker.log_candidate(parent, candidate(5), maybe_exists=True) == cut.info.run_id
    (run,) = children(client, tracker, parent)
    assert (run.info.status, run.data.metrics["accuracy"]) == ("FINISHED", 0.9)


def test_a_search_started_twice_is_one_parent(tracker: MLflowTracker, client: MlflowClient) -> None:
    first = tracker.start("it's twice", "name", "a: 1", {"seed": "0"})
    tracker.finish(first, "stopped")
    assert client.get_run(first).info.status == "KILLED"
    assert tracker.start("it's twice", "name", "a: 1", {"seed": "1", "epochs": "3"}) == first
    run = client.get_run(first)
    assert (run.info.status, run.data.params) == ("RUNNING", {"seed": "0", "epochs": "3"})
    assert [file.path for file in client.list_artifacts(first)] == ["spec.yaml"]


def test_another_tracker_finds_the_search_of_a_parent(
    tracker: MLflowTracker, client: MlflowClient, uri: str, parent: str
) -> None:
    tracker.log_candidate(parent, candidate(1))
    other = MLflowTracker(uri, "dynarch")
    assert other.experiment_id == tracker.experiment_id
    other.log_candidate(parent, candidate(1), maybe_exists=True)
    assert numbers(children(client, tracker, parent)) == [1]


def test_exactly_the_front_is_tagged(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    for number in range(5):
        tracker.log_candidate(parent, candidate(number))
    assert tracker.tag_front(parent, {1, 3}) == ()
    assert tracker.tag_front(parent, {3, 4, 9}) == (9,)  # the front moved on; 9 was never written
    assert numbers(children(client, tracker, parent, " and tags.pareto = 'true'")) == [3, 4]
    assert numbers(children(client, tracker, parent, " and tags.pareto = 'false'")) == [0, 1, 2]


def test_more_than_a_request_holds(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    record = replace(
        candidate(1),
        params={f"p{i}": "x" * 7000 if i == 0 else "1" for i in range(205)},
        curves={"loss": [(step, float(step)) for step in range(1700)]},
        tags={f"t{i}": "1" for i in range(130)} | {"long": "y" * 9000},
        metrics={"top-1 (%)": 1.0, "broken": float("nan"), "endless": float("inf")},
    )
    run = client.get_run(tracker.log_candidate(parent, record))
    assert len(run.data.params) == 205
    assert len(run.data.params["p0"]) == 6000  # MLflow's limit
    assert len(run.data.tags["long"]) == 8000  # MLflow's limit
    assert run.data.tags["t129"] == "1"
    assert run.data.metrics == {"top-1 ___": 1.0, "loss": 1699.0}
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1700


def test_progress_is_a_curve_of_the_parent(tracker: MLflowTracker, client: MlflowClient, parent: str) -> None:
    for step, volume in enumerate((0.25, 0.5)):
        tracker.log_progress(parent, [Step(step, {"hypervolume": volume, "done": step}, 1_000_000)])
    history = client.get_metric_history(parent, "hypervolume")
    assert [(m.step, m.value, m.timestamp) for m in history] == [(0, 0.25, 1_000_000), (1, 0.5, 1_000_000)]


def test_a_report_hangs_on_the_parent(
    tracker: MLflowTracker, client: MlflowClient, parent: str, tmp_path: Path
) -> None:
    (tmp_path / "front.csv").write_text("label\n1.0\n")
    tracker.log_report(parent, {"front.csv": tmp_path / "front.csv"}, "# A front" + "." * 9000, {"front_size": 1})
    assert {file.path for file in client.list_artifacts(parent)} == {"front.csv", "spec.json"}
    run = client.get_run(parent)
    assert run.data.tags["mlflow.note.content"].startswith("# A front")
    assert run.data.metrics["front_size"] == 1
    with pytest.raises(StoreError, match="could not log the report"):
        tracker.log_report(parent, {"x": tmp_path / "absent"}, "", {})


def test_files_lie_beside_the_database(tracker: MLflowTracker, client: MlflowClient, uri: str, parent: str) -> None:
    folder = Path(uri.removeprefix("sqlite:///")).parent
    assert (folder / "mlflow-artifacts" / parent / "artifacts" / "spec.json").read_text() == "{}"


def test_reconcile_ends_what_died_and_drops_what_is_double(
    tracker: MLflowTracker, client: MlflowClient, parent: str
) -> None:
    search_id = client.get_run(parent).data.tags["dynarch.search_id"]
    whole = tracker.log_candidate(parent, candidate(1))
    tracker.log_candidate(parent, candidate(4))
    for number in (1, 2, 3):  # 1 a second time, 2 and 3 cut short
        client.create_run(tracker.experiment_id, tags=candidate(number).run_tags(search_id, parent))
    found = tracker.reconcile(search_id, {0: "finished", 1: "finished", 2: "failed"})
    assert found == Reconciled(ended=(2,), deduplicated=(1,), missing=(0,), unknown=(3, 4))
    runs = children(client, tracker, parent)
    states = {int(run.data.tags["dynarch.number"]): run.info.status for run in runs}
    assert states == {1: "FINISHED", 2: "FAILED", 3: "RUNNING", 4: "FINISHED"}
    assert whole in {run.info.run_id for run in runs}
    assert tracker.reconcile(search_id, {1: "finished", 2: "failed"}) == Reconciled(unknown=(3, 4))


def test_the_experiment_opens_on_a_scatter(tracker: MLflowTracker, client: MlflowClient) -> None:
    tags = client.get_experiment(tracker.experiment_id).tags
    name, value = shared_view()
    (card,) = json.loads(tags[name])["compareRunCharts"]
    assert (card["type"], card["xaxis"]["key"], card["yaxis"]["key"]) == ("SCATTER", "latency_ms", "accuracy")
    assert tags[name] == value
    page = "http://host:5000/#/experiments/12/runs?workflowType=machine_learning&compareRunsMode=CHART"
    assert link("http://host:5000/", "12") == f"{page}&viewStateShareKey={name.rpartition('.')[2]}"


def test_the_callers_mlflow_is_left_alone(tracker: MLflowTracker, uri: str, parent: str) -> None:
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() != uri


def test_an_experiment_in_the_trash_is_not_written_to(tracker: MLflowTracker, client: MlflowClient, uri: str) -> None:
    client.delete_experiment(MLflowTracker(uri, "thrown away").experiment_id)
    with pytest.raises(StoreError, match=r"trash.*'thrown away'.*restore it"):
        MLflowTracker(uri, "thrown away")


def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_away_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="start the MLflow server") as caught:
        MLflowTracker(f"http://127.0.0.1:{closed_port()}", "dynarch")
    assert "\n" not in str(caught.value)


def test_a_database_that_is_away_is_refused_at_once_and_keeps_its_password() -> None:
    with pytest.raises(StoreError, match="start the database server") as caught:
        MLflowTracker(f"postgresql+psycopg://me:secret@127.0.0.1:{closed_port()}/x?password=secret", "dynarch")
    assert "secret" not in str(caught.value)
    assert shown("mysql://me:a:b@host/x") == "mysql://me:***@host/x"


def test_what_mlflow_says_reaches_the_caller_as_a_store_error(tracker: MLflowTracker) -> None:
    calls: Mapping[str, Callable[[], object]] = {
        "log candidate 1": lambda: tracker.log_candidate("0" * 32, candidate(1)),
        "log progress": lambda: tracker.log_progress("0" * 32, [Step(0, {"done": 1}, 0)]),
        "tag the front": lambda: tracker.tag_front("0" * 32, ()),
        "finish the search": lambda: tracker.finish("0" * 32, "finished"),
    }
    for what, call in calls.items():
        with pytest.raises(StoreError, match=f"could not {what}: .*not found"):
            call()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite:///{0}/text.db", "file is not a database.*give a tracking URI"),
        ("sqlite:///{0}/text.db/mlflow.db", "cannot be opened"),
        ("sqlite://", "a tracking URI is"),
        ("file://{0}", "a tracking URI is"),
        ("databricks", "a tracking URI is"),
    ],
)
def test_an_address_that_holds_no_store_is_refused(address: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be read as the head of one" * 20)
    with pytest.raises(StoreError, match=message):
        MLflowTracker(address.format(tmp_path), "dynarch")


def test_a_reader_does_not_block_a_search(uri: str, tracker: MLflowTracker, parent: str) -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        tracker.log_progress(parent, [Step(0, {"done": 1}, 0)])  # would wait for the reader in rollback mode


@pytest.mark.slow
def test_a_locked_database_is_a_store_error(uri: str, tracker: MLflowTracker, parent: str) -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked.*stop the other process"):
            tracker.log_progress(parent, [Step(0, {"done": 1}, 0)])
        other.rollback()
    tracker.log_progress(parent, [Step(0, {"done": 1}, 0)])


@pytest.mark.slow
def test_nothing_is_printed(tmp_path: Path) -> None:
    script = f"""
from dynarch.search.tracking import MLflowTracker
tracker = MLflowTracker("sqlite:///{tmp_path}/mlflow.db", "dynarch")
tracker.finish(tracker.start("s", "n", "a: 1", {{}}), "finished")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.fixture
def server(uri: str, tracker: MLflowTracker) -> Iterator[str]:
    port = closed_port()
    process = subprocess.Popen(serve_command(uri, None, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with suppress(URLError):
                urllib.request.urlopen(f"{base}/health", timeout=1)
                break
            time.sleep(0.25)
        yield base
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_the_server_shows_what_was_written(tracker: MLflowTracker, parent: str, server: str, tmp_path: Path) -> None:
    assert urllib.request.urlopen(f"{server}/health", timeout=10).read() == b"OK"
    page = urllib.request.urlopen(link(server, tracker.experiment_id), timeout=10).read()
    assert b"<title>MLflow</title>" in page
    remote = MLflowTracker(server, "dynarch")
    assert remote.experiment_id == tracker.experiment_id
    run_id = remote.log_candidate(parent, candidate(1))
    assert tracker.log_candidate(parent, candidate(1), maybe_exists=True) == run_id
    (tmp_path / "front.csv").write_text("label\n")
    remote.log_report(parent, {"front.csv": tmp_path / "front.csv"}, "note", {"front_size": 0})
    address = f"{server}/get-artifact?run_uuid={parent}&path=front.csv"
    assert urllib.request.urlopen(address, timeout=10).read() == b"label\n"
