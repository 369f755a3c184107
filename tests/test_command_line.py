"""The command line: what it prints, what it refuses and how, and the examples that users copy."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from dynarch import SearchService, load_spec
from dynarch.search.ledger import Ledger
from dynarch.service import main
from dynarch.tests.tiny_searches import (
    assert_recorded_once,
    run_command,
    shared_storage,
    tiny_data,
    tiny_spec,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
Ended = tuple[int, str, str]
Call = Callable[..., Ended]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """`dynarch` in this process: exit code, output, errors. It must not start Ray."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("Ray was started")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dynarch", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    monkeypatch.setattr(ray, "init", refuse)
    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def assert_refused(ended: Ended, pattern: str) -> None:
    """Exit code 1 and one line that says what is wrong, where, and what to do."""
    code, _, err = ended
    assert code == 1
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert re.search(pattern, err), err


# -- mistakes in a spec ---------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str]] = {
    # what is replaced in a good spec, by what, and what must be said
    "no toml": ("[search]", "[search", r"tiny\.toml: is not valid TOML \(.*line 2.*\); correct it"),
    "section": ("[search]", "[serch]", r"serch: 'serch' is not known; did you mean 'search'\?"),
    "option": ("seed =", "seeds =", r"search\.seeds: 'seeds' is not known; did you mean 'seed'\?"),
    "family": ("early_exit]", "early_exits]", r"space\.families\.early_exits: .* did you mean 'early_exit'\?"),
    "backbone": ("residual]", "residul]", r"space\.backbones\.residul: .* did you mean '.*residual'\?"),
    "objective": ("rungs = false", 'objectives = ["acuracy"]', r"search\.objectives\.0: .* did you mean 'accuracy'\?"),
    "objective of a device": (
        "rungs = false",
        'objectives = ["latency_ms@phone"]',
        r"search\.objectives\.0.*phone.*cpu",
    ),
    "sampler": ("rungs = false", 'sampler = "tpee"', r"search\.sampler: .* did you mean 'tpe'\? \(known: nsga2"),
    "device": ('kind = "cpu"', 'kind = "cpi"', r"devices\.cpu\.kind: 'cpi' is not known; did you mean 'cpu'\?"),
    "device option": ('kind = "cpu"', 'kind = "cpu"\ncores = 2', r"devices\.cpu\.cores: 'cores' is not known"),
    "empty range": ("width = [4]", "width = []", r"space\.backbones\.residual\.width: needs at least one option"),
    "impossible range": ("max_exits = 2", "max_exits = 0", r"space\.families\.early_exit\.max_exits: must be between"),
    "wrong type": ("width = [4]", 'width = "wide"', r"space\.backbones\.residual\.width.*'wide'"),
    "no trials": ("trials = 5", "trials = 0", r"budget\.trials: must be between 1 and"),
    "too deep": ("stages = 3", "stages = 6", r"space\.backbones: images of 8 x 8 cannot be halved 5 times; use fewer"),
    "no bound": (
        "[devices.cpu]",
        '[[constraints]]\nmetric = "accuracy"\n[devices.cpu]',
        r"constraints\.0\.maximum: give either minimum or maximum",
    ),
    "constraint on nothing": (
        "[devices.cpu]",
        '[[constraints]]\nmetric = "speed"\nmaximum = 1\n[devices.cpu]',
        r"constraints\.0\.metric: 'speed' is not known",
    ),
    "impossible constraint": (
        "[devices.cpu]",
        '[[constraints]]\nmetric = "accuracy"\nminimum = 1.5\n[devices.cpu]',
        r"constraints\.0\.minimum: accuracy is never above 1; lower the bound",
    ),
    "unreachable constraint": (
        "[devices.cpu]",
        '[[constraints]]\nmetric = "latency_ms"\nmaximum = 1e-6\n[devices.cpu]',
        r"constraints\.0\.maximum: .* cannot be met: the cheapest network .* needs 0\.\d+; raise the bound",
    ),
    "data that is not there": ("patterns.npz", "elsewhere.npz", r"data.*elsewhere\.npz.*No such file"),
    "data of no known kind": (
        "patterns.npz",
        "patterns.csv",
        r"data: must be one of 'digits', .* or the path of an \.npz",
    ),
    "splits too large": (
        "[space.backbones",
        "[data.splits]\ntest = 0.9\n[space.backbones",
        r"data\.splits\.calibrate: the shares must leave 5 %",
    ),
    "splits too small": (
        "[space.backbones",
        "[data.splits]\ntest = 0.01\n[space.backbones",
        r"data\.splits\.test: must have at least 20 inputs, but 300 inputs give 3; bring more data or raise",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_spec_is_one_line_with_its_place(call: Call, tmp_path: Path, mistake: str) -> None:
    old, new, said = MISTAKES[mistake]
    spec = tiny_spec(tmp_path)
    text = spec.read_text()
    assert text.count(old) == 1
    spec.write_text(text.replace(old, new))
    assert_refused(call("search", spec, "--storage", shared_storage()), said)


BAD_DATA: dict[str, tuple[Callable[[np.ndarray, np.ndarray], dict[str, Any]], str]] = {
    "nan": (lambda x, y: {"x": np.where(x == x[7], np.nan, x), "y": y}, r"data.*1 inputs are not \(first: number 7\)"),
    "infinite": (lambda x, y: {"x": np.where(x == x[7], np.inf, x), "y": y}, r"data.*must be finite.*clean them"),
    "negative label": (lambda x, y: {"x": x, "y": y - 1}, r"data.*labels must be 0 \.\. classes - 1, but got -1"),
    "absent label": (lambda x, y: {"x": x, "y": 2 * y}, r"data.*\[1, 3\] never occur; renumber them"),
    "too few labels": (lambda x, y: {"x": x, "y": y[:-1]}, r"data.*has 300 inputs and 299 labels"),
    "other names": (lambda x, y: {"images": x, "labels": y}, r"must hold arrays x and y .* but has"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data_is_refused_before_anything_starts(call: Call, tmp_path: Path, fault: str) -> None:
    spoil, said = BAD_DATA[fault]
    spec, data = tiny_spec(tmp_path), tiny_data()
    np.savez(tmp_path / "patterns.npz", **spoil(data.x, data.y))
    assert_refused(call("search", spec, "--storage", shared_storage()), said)


def test_a_spec_that_is_not_there_leaves_nothing_behind(call: Call, tmp_path: Path) -> None:
    storage = tmp_path / "results"
    refused = call("search", tmp_path / "no.toml", "--storage", storage)
    assert_refused(refused, r"no\.toml: cannot be read \(No such file or directory\); give the path of a TOML file")
    assert not storage.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_absent_is_named_with_a_remedy(call: Call, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    spec.write_text(spec.read_text().replace('kind = "cpu"', 'kind = "cuda"'))
    assert_refused(call("search", spec, "--storage", shared_storage()), r"(?i)cuda.*;")


# -- mistakes about the storage -------------------------------------------------------------------------------


def test_a_storage_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    refused = call("search", spec, "--storage", spec / "below")
    assert_refused(refused, r"storage '.*below' cannot be written \(Not a directory\); name another folder")


def test_a_database_that_is_none(call: Call, tmp_path: Path) -> None:
    (tmp_path / "dynarch.db").write_text("not a database, but long enough to look at" * 40)
    assert_refused(call("status", "--storage", tmp_path), r"dynarch\.db.*;")


def test_a_database_address_that_is_none(call: Call, tmp_path: Path) -> None:
    assert_refused(call("status", "--storage", tmp_path, "--database", "postgres//nowhere"), "postgres//nowhere")


def test_a_database_of_a_newer_dynarch(call: Call, tmp_path: Path) -> None:
    Ledger.open(SearchService(tmp_path).storage.ledger_url).close()
    with sqlite3.connect(tmp_path / "dynarch.db") as connection:
        connection.execute("UPDATE dynarch_ledger_version SET version_num = '9999'")
    connection.close()
    assert_refused(call("search", tiny_spec(tmp_path), "--storage", tmp_path), r"'9999'.*upgrade dynarch")


@pytest.mark.parametrize("name", ["status", "front", "resume", "cancel"])
def test_an_unknown_search(call: Call, name: str) -> None:
    assert_refused(call(name, "nobody", "--storage", shared_storage()), "no search has the id 'nobody'.*latest ones")


@pytest.mark.parametrize("name", ["front", "resume", "cancel"])
def test_a_storage_without_any_search(call: Call, tmp_path: Path, name: str) -> None:
    assert_refused(call(name, "--storage", tmp_path), "there is no search in .*; launch one with dynarch search SPEC")


# -- what it does ---------------------------------------------------------------------------------------------


def test_help_names_every_command(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert {"search", "status", "front", "resume", "cancel", "profile", "ui"} <= set(re.findall(r"[a-z]+", out))


def test_ui_serves_this_machine_alone(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def serve(line: list[str]) -> int:
        started.append(line)
        return 0

    monkeypatch.setattr(subprocess, "call", serve)
    code, out, _ = call("ui", "--port", 5999, "--storage", shared_storage())
    assert code == 0
    assert "http://127.0.0.1:5999/#/experiments/" in out
    (line,) = started
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--port") + 1] == "5999"
    assert line[line.index("--backend-store-uri") + 1].endswith(f"{shared_storage().resolve()}/mlflow.db")


# -- the examples ---------------------------------------------------------------------------------------------

SMALLER = {
    "trials = 24": "trials = 4",
    "epochs = 18": "epochs = 2",
    "front = 12": "front = 2\npoints = 4",
    "width = [8, 16]": "width = [4]",
    "depth = [1, 2]": "depth = [1]",
    "minimum = 0.85": "minimum = 0.2",  # two epochs teach little
}


def test_the_spec_of_the_demo_is_the_problem_of_the_demo() -> None:
    problem = load_spec(EXAMPLES / "digits.toml")
    assert (problem.strategy.name, problem.budget.trials, problem.budget.workers) == ("digits", 24, 2)
    assert [member.name for member in problem.space.backbones] == ["residual", "inverted_residual"]
    assert (problem.data.name, len(problem.data.x), problem.data.classes) == ("digits", 1797, 10)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A smaller demo in a storage of its own: its folder, and how the command ended."""
    folder = tmp_path_factory.mktemp("demo")
    text = (EXAMPLES / "digits.toml").read_text()
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "small.toml").write_text(text)
    return folder / "results", run_command(folder, "search", "small.toml", "--storage", "results")


def test_a_smaller_demo_runs_through(demo: tuple[Path, Ended]) -> None:
    storage, (code, out, err) = demo
    # Other tests may run beside the timing of its front, and that is what a user wants to be told.
    warned = [line for line in err.splitlines() if "than when the table was measured" not in line]
    assert (code, warned) == (0, [])
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100 or all(
        line.startswith(("search ", "wrote ")) for line in lines if len(line) > 100
    )
    for expected in ("searching 4/4", "mean ms", "work", "static", "Why it ended: the budget of 4 candidates is spent"):
        assert expected in out
    wrote = [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]
    assert [Path(file).name for file in wrote] == [
        "front.html",
        "front.png",
        "front.csv",
        "pictures.html",
        "report.json",
    ]
    assert all((storage.parent / file).exists() for file in wrote)
    assert lines[-1] == "open the MLflow UI: dynarch ui --storage results"
    service = SearchService(storage)
    assert_recorded_once(service, service.get().id, 4)


def test_nothing_but_the_search_itself_is_printed(demo: tuple[Path, Ended]) -> None:
    """Libraries have banners, and this is not their place."""
    _, (_, out, _) = demo
    assert not re.search(r"(?i)ray|tune|optuna|alembic|configuration for experiment", out.replace("tuned", ""))


def test_status_as_json(call: Call, demo: tuple[Path, Ended]) -> None:
    code, out, err = call("status", "--json", "--storage", demo[0])
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["name"], row["state"], row["trials"]) == ("digits", "finished", 4)
    assert row["counts"]["running"] == row["counts"]["proposed"] == 0
    assert sum(row["counts"].values()) == 4
    assert json.loads(call("status", row["id"], "--json", "--storage", demo[0])[1]) == [row]


def test_front_as_json(call: Call, demo: tuple[Path, Ended]) -> None:
    code, out, err = call("front", "--json", "--storage", demo[0])
    assert (code, err) == (0, "")
    front = SearchService(demo[0]).get().front()
    rows = json.loads(out)
    assert [row["point"] for row in rows] == [point.label for point in front]
    for row, point in zip(rows, front, strict=True):
        assert row["test"] == point.test
        assert row["measured"] == point.measured
        assert row["policy"] == point.policy.to_dict()
        assert row["architecture"] == point.architecture.to_mapping()
        assert (Path(row["folder"]) / "weights.safetensors").exists()


def test_what_a_search_has_measured_travels(call: Call, demo: tuple[Path, Ended], tmp_path: Path) -> None:
    file, other = tmp_path / "table.jsonl", tmp_path / "other"
    assert call("table", "export", file, "--storage", demo[0])[::2] == (0, "")
    assert call("table", "import", file, "--storage", other)[::2] == (0, "")
    again = tmp_path / "again.jsonl"
    assert call("table", "export", again, "--storage", other)[::2] == (0, "")
    assert again.read_bytes() == file.read_bytes()


def test_status_and_front_as_tables(call: Call, demo: tuple[Path, Ended]) -> None:
    service = SearchService(demo[0])
    code, out, _ = call("status", "--storage", demo[0])
    assert code == 0
    assert "finished" in out
    code, out, _ = call("front", "--storage", demo[0])
    assert code == 0
    assert all(point.label in out for point in service.get().front())


def test_resuming_what_has_finished_only_brings_mlflow_up_to_date(call: Call, demo: tuple[Path, Ended]) -> None:
    code, out, err = call("resume", "--storage", demo[0])
    assert (code, err) == (0, "")
    assert "has finished; MLflow is complete (0 candidates written late)" in " ".join(out.split())


def test_cancelling_what_has_finished_changes_nothing(call: Call, demo: tuple[Path, Ended]) -> None:
    code, out, _ = call("cancel", "--storage", demo[0])
    assert (code, SearchService(demo[0]).get().status().state) == (0, "finished")
    assert "is finished" in out
