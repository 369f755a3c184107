"""A bundle as a model of MLflow: loaded, registered, and answering requests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient
from torch import Tensor

from dynarch.search.bundle.bundle import Bundle, write_bundle
from dynarch.search.tracking import MLflowTracker
from dynarch.search.tracking_model import register, save_served
from dynarch.spaces.errors import SpecError, StoreError
from dynarch.spaces.families import EarlyExit
from dynarch.tests.search.bundles import more_inputs, routed_example

EXITS = EarlyExit(max_exits=2, heads=("linear",))
WAIT_SECONDS = 240.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a network with early exits."""
    return write_bundle(routed_example(EXITS)[0], tmp_path_factory.mktemp("served") / "bundle", runtimes=("torch",))


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the MLflow model."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_served(bundle, folder)
    return folder


def inputs() -> tuple[Tensor, list[int], list[int]]:
    """Inputs that leave at several exits, the classes and the exits."""
    routed, x = routed_example(EXITS)
    expected = routed.route(x)
    assert len(set(expected.exit_taken.tolist())) > 1
    return x, expected.logits.argmax(1).tolist(), expected.exit_taken.tolist()


def test_the_model_answers_as_the_network_routes(model: Path) -> None:
    x, predicted, taken = inputs()
    loaded = mlflow.pyfunc.load_model(str(model))
    made = loaded.predict(x.numpy())
    assert made["prediction"] == predicted
    assert made["exit_taken"] == taken
    assert not list(model.rglob("*.pkl")), "code is text, nothing is pickled"


def test_a_bundle_that_was_changed_is_not_loaded(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    manifest = next((tmp_path / "model" / "artifacts").rglob("manifest.json"))
    manifest.write_text(manifest.read_text().replace('"threshold": ', '"threshold": -1'))
    with pytest.raises(ValueError, match=r"manifest\.json of .* is not the one with digest"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


def test_a_runtime_that_is_not_there_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"export\.runtime: must be one of torch, but got 'onnxruntime'"):
        save_served(bundle, tmp_path / "model", runtime="onnxruntime")


def test_versions_of_a_registered_model_count_up(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MLflowTracker(uri, "dynarch")
    with pytest.raises(StoreError, match="must have a run of search a"):
        register(tracker, uri, "a", bundle, "digits")
    tracker.start("a", "a", "{}", {})
    assert register(tracker, uri, "a", bundle, "digits") == "models:/digits/1"
    assert register(tracker, uri, "a", bundle, "digits") == "models:/digits/2"
    x, predicted, taken = inputs()
    place = MlflowClient(uri).get_model_version_download_uri("digits", "2")
    made = mlflow.pyfunc.load_model(place).predict(x.numpy())
    assert made["prediction"] == predicted
    assert made["exit_taken"] == taken


@pytest.mark.slow  # two processes load torch and MLflow; the tests above hold all but the way through HTTP
def test_the_server_answers_with_prediction_and_exit(model: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for its server there
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        x, predicted, taken = inputs()
        for piece in (slice(0, 1), slice(0, 16)):
            made = _ask(f"http://127.0.0.1:{port}/invocations", {"inputs": x[piece].tolist()})["predictions"]
            assert made["prediction"] == predicted[piece]
            assert made["exit_taken"] == taken[piece]
        routed, _ = routed_example(EXITS)
        more = more_inputs(routed, 256)
        made = _ask(f"http://127.0.0.1:{port}/invocations", {"inputs": more.tolist()})["predictions"]
        assert made["exit_taken"] == routed.route(more).exit_taken.tolist()
    finally:
        os.killpg(server.pid, 15)  # the session that we started: the server's workers are in it
        server.wait(60)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def _ask(url: str, body: object) -> dict[str, dict[str, list[int]]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        made: dict[str, dict[str, list[int]]] = json.loads(answer.read())
    return made
