"""`dynarch export`, on a search that a test wrote and a network that it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from dynarch import Cpu, Problem, SearchService, Strategy
from dynarch.evaluators.from_scratch import planned_costs, save_candidate
from dynarch.search.front_commands import NOTHING_FOUND
from dynarch.service import app
from dynarch.spaces.errors import DataError, SpecError, UnknownNameError
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.space import build
from dynarch.tests.inline_searches import FOUR, small_data
from dynarch.tests.search.bundles import check_equal, runner_of
from dynarch.tests.written_searches import metrics_of, write_search

GOOD, FAST = metrics_of(0.75, {"one": 2.0}), metrics_of(0.5, {"one": 1.0})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> SearchService:
    made = SearchService(tmp_path_factory.mktemp("exported"))
    problem = Problem(space=FOUR, data=small_data(), devices={"one": Cpu()}, strategy=Strategy(name="written"))
    write_search(made.storage, "a", problem, (GOOD, FAST), front=(0, 1), created_at=2.0)
    write_search(made.storage, "empty", problem, (GOOD,), front=())
    point, signature = made.get("a").front()[0], problem.data.signature
    torch.manual_seed(0)
    network = build(point.architecture, signature).eval()
    save_candidate(point.folder, network, planned_costs(point.architecture, signature))
    return made


def call(service: SearchService, *arguments: object) -> Result:
    line = ["export", *map(str, arguments), "--storage", str(service.storage.folder)]
    return CliRunner().invoke(app, line, env={"COLUMNS": "200"})


def test_a_point_is_written_registered_and_routes(service: SearchService, tmp_path: Path) -> None:
    service.storage.open_tracker().start("a", "a", "{}", {})
    folder = tmp_path / "bundle"
    options = ("--runtime", "torch", "--weights-licence", "CC0-1.0", "--register", "digits", "--json")
    result = call(service, "a", "0.0", folder, *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["runtimes"] == ["torch"]
    assert told["model"] == "models:/digits/1"
    assert MlflowClient(service.storage.tracking_uri).get_model_version("digits", "1").run_id
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["point"] == "0.0"
    assert manifest["devices"] == ["one"]
    assert manifest["claims"]["tune"]["latency_ms@one"] == 2.0
    point = next(each for each in service.get("a").front() if each.label == "0.0")
    routed = point.load()
    x = random_inputs(routed.network.signature, 8, torch.Generator().manual_seed(1))
    check_equal(routed, x, runner_of(folder).Router(folder, sha256=told["sha256"]), batches=(8, 1))


def test_a_person_is_told_where_and_how(service: SearchService, tmp_path: Path) -> None:
    result = call(service, "a", "0.1", tmp_path / "bundle", "--runtime", "torch")
    assert result.exit_code == 0, result.output
    assert f"written to {tmp_path / 'bundle'}, for torch" in result.stdout
    assert "run.py inputs.npy" in result.stdout


def test_what_is_not_there_is_said(service: SearchService, tmp_path: Path) -> None:
    result = call(service, "a", "9.9", tmp_path / "bundle")
    assert isinstance(result.exception, UnknownNameError)
    assert "(known: 0.0, 0.1)" in str(result.exception)
    assert call(service, "empty", "0.0", tmp_path / "bundle").exit_code == NOTHING_FOUND
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert isinstance(call(service, "a", "0.0", tmp_path / "full").exception, SpecError)
    assert not (tmp_path / "bundle").exists()


def test_a_point_without_its_network_cannot_be_exported(service: SearchService, tmp_path: Path) -> None:
    point = service.get("a").front()[0]
    weights = point.folder / "weights.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:10])
        with pytest.raises(DataError, match="does not hold a trained candidate"):
            point.export(tmp_path / "bundle")
    finally:
        weights.write_bytes(kept)
