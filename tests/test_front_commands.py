"""`dynarch front`, `dynarch compare` and the frame, on searches that a test wrote; and a notebook without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from dynarch import Cpu, Problem, SearchService, Strategy
from dynarch.evaluators.score_table import ScoreTable, ScoreTables
from dynarch.search.candidate import candidate_folder
from dynarch.search.frame import columns
from dynarch.search.front_commands import NOTHING_FOUND
from dynarch.search.options import known_ids
from dynarch.service import app
from dynarch.spaces.errors import DataError, SpecError, UnknownNameError
from dynarch.tests.inline_searches import FOUR, small_data
from dynarch.tests.written_searches import metrics_of, write_search

FAST, GOOD = metrics_of(0.5, {"one": 1.0, "four": 4.0}), metrics_of(0.75, {"one": 2.0, "four": 2.0})
LOST = metrics_of(0.25, {"one": 3.0, "four": 8.0})  # not on the front
BETTER = metrics_of(0.875, {"one": 2.0, "four": 2.0})


def measured(ms: float) -> dict[str, dict[str, float]]:
    return {device: {"latency_ms": ms, "latency_p95_ms": 2 * ms} for device in ("one", "four")}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(
        space=FOUR,
        data=small_data(),
        devices={"one": Cpu(), "four": Cpu(batch=4)},
        strategy=Strategy(name="written"),
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> SearchService:
    made = SearchService(tmp_path_factory.mktemp("written"))
    points, timed = (FAST, GOOD, LOST), (measured(1.5), measured(2.5))
    write_search(made.storage, "a", problem, points, front=(0, 1), tested=(FAST, GOOD), measured=timed, created_at=3.0)
    write_search(made.storage, "b", problem, (BETTER,), front=(0,), tested=(BETTER,), measured=timed[:1])
    write_search(made.storage, "empty", problem, (LOST,), front=())
    objectives = ("accuracy", "latency_ms@four")
    write_search(made.storage, "other", replace(problem, objectives=objectives), (GOOD,), front=(0,))
    return made


def call(service: SearchService, *arguments: object) -> Result:
    line = [*map(str, arguments), "--storage", str(service.storage.folder)]
    return CliRunner().invoke(app, line, env={"COLUMNS": "200"})


def labels(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [row["point"] for row in json.loads(result.stdout)]


# -- front ----------------------------------------------------------------------------------------------------


def test_the_front_on_a_device_of_the_search(service: SearchService) -> None:
    assert labels(call(service, "front", "--json")) == ["0.0", "0.1"]  # the newest, fastest first
    assert labels(call(service, "front", "a", "--json", "--device", "four")) == ["0.1", "0.0"]
    shown = call(service, "front", "a", "--device", "four").stdout
    first = next(line for line in shown.splitlines() if "0.1" in line)
    assert "2.000" in first
    assert shown.index("0.1 ") < shown.index("0.0 ")


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        (("--max-latency-ms", 1.5), ["0.0"]),  # measured latencies are 1.5 and 2.5
        (("--max-latency-ms", 2.5), ["0.0", "0.1"]),
        (("--min-accuracy", 0.75), ["0.1"]),
        (("--max-latency-ms", 2.5, "--min-accuracy", 0.51), ["0.1"]),
    ],
)
def test_bounds_leave_out_what_breaks_them(service: SearchService, bounds: tuple[Any, ...], kept: list[str]) -> None:
    assert labels(call(service, "front", "a", "--json", *bounds)) == kept


def test_nothing_to_show_has_an_exit_code_of_its_own(service: SearchService) -> None:
    for search in (("a", "--max-latency-ms", 0.1), ("empty",)):
        found = call(service, "front", *search, "--json")
        assert (found.exit_code, json.loads(found.stdout)) == (NOTHING_FOUND, [])
        assert "no point to show" in found.stderr


def test_a_promise_is_judged_on_the_certify_split(service: SearchService) -> None:
    """Nine of ten early decisions are wrong where the whole network is right, so only a drop of 0.95 is promised."""
    missing = call(service, "front", "a", "--max-drop", 0.95)
    assert isinstance(missing.exception, DataError)
    assert "restore the storage" in str(missing.exception)
    home = service.get("a").folder / candidate_folder(0)
    n = 200
    correct = np.stack([np.arange(n) % 10 == 0, np.ones(n)], axis=1).astype(np.int64)
    ScoreTables((ScoreTable({"max_prob": np.ones((n, 1), dtype=np.float32)}, correct, np.ones(n, np.int64)),)).save(
        home / "certify.npz"
    )
    assert labels(call(service, "front", "a", "--json", "--max-drop", 0.95)) == ["0.0", "0.1"]
    assert call(service, "front", "a", "--json", "--max-drop", 0.5).exit_code == NOTHING_FOUND


def test_a_device_that_the_search_lacks_is_named(service: SearchService) -> None:
    with pytest.raises(UnknownNameError, match=r"'five' is not known.*four, one"):
        service.get("a").front(device="five")


# -- compare --------------------------------------------------------------------------------------------------


def test_two_fronts_under_one_reference(service: SearchService) -> None:
    """Reference (0, 8), ideal (1, 0), box 8.

    A: 0.5 from 1 to 2 ms, 0.75 from 2 to 8: (0.5 + 4.5) / 8 = 0.625. B: 0.875 from 2 to 8: 5.25 / 8 = 0.65625.
    """
    found = json.loads(call(service, "compare", "a", "b", "--json").stdout)
    assert (found["hypervolume_a"], found["hypervolume_b"]) == pytest.approx((0.625, 0.65625))
    assert (found["split"], found["objectives"]) == ("test", ["accuracy", "latency_ms@one"])
    beaten = {(point["search"], point["point"]): point["beaten_by"] for point in found["points"]}
    assert beaten == {("A", "0.0"): [], ("A", "0.1"): ["0.0"], ("B", "0.0"): []}
    shown = call(service, "compare", "a", "b").stdout
    assert "A: a, hypervolume 0.6250, 1 of 2 points unbeaten by the other" in shown
    assert "B: b, hypervolume 0.6562, 1 of 1 points unbeaten by the other" in shown


def test_a_front_beats_itself_nowhere(service: SearchService) -> None:
    found = service.get("a").compare(service.get("a"))
    assert found.hypervolume_a == found.hypervolume_b
    assert (found.unbeaten("A"), found.unbeaten("B")) == (2, 2)


def test_what_cannot_be_compared_says_why(service: SearchService) -> None:
    for other, reason in (("empty", "has no front"), ("other", "has the objectives accuracy, latency_ms@four")):
        with pytest.raises(SpecError, match=reason):
            service.get("a").compare(service.get(other))


# -- frame ----------------------------------------------------------------------------------------------------


def test_a_frame_has_a_row_a_point_and_names_its_units(service: SearchService) -> None:
    frame = service.get("a").frame()
    assert tuple(frame.columns) == columns(("one", "four"))
    assert list(frame["label"]) == ["0.0", "0.1", "0.2"]
    assert list(frame["front"]) == [True, True, False]
    assert list(frame["predicted_mean_ms@four"]) == [4.0, 2.0, 8.0]
    assert list(frame["predicted_worst_ms@one"]) == [3.0, 6.0, 9.0]
    assert list(frame["measured_p95_ms@one"][:2]) == [3.0, 5.0]
    assert frame["test_accuracy"].isna().tolist() == [False, False, True]
    # wilson of 75 of 100: (0.75 + z²/200 ± z·sqrt(0.75·0.25/100 + z²/40000)) / (1 + z²/100), z = 1.959964
    assert frame["test_accuracy_low"][1] == pytest.approx(0.6569, abs=1e-4)
    assert frame["test_accuracy_high"][1] == pytest.approx(0.8245, abs=1e-4)
    assert set(frame["stage"]) == {"full"}
    assert list(frame["certify_accuracy"]) == [0.375, 0.625, 0.125]


def test_a_notebook_needs_no_ray(service: SearchService, tmp_path: Path) -> None:
    script = f"""
import sys
from dynarch import SearchService
search = SearchService({str(service.storage.folder)!r}).get("a")
print(len(search.front()), len(search.frame()), search.status().state)
print(sorted(name for name in ("ray", "mlflow") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 3 finished", "[]"]


def test_a_table_fits_eighty_columns_and_cuts_no_number(service: SearchService) -> None:
    line = ["front", "a", "--storage", str(service.storage.folder)]
    shown = CliRunner().invoke(app, line, env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for number in ("1.000", "1.500", "2.500", "37.5", "62.5", "75.0"):
        assert number in shown


def test_the_shell_completes_ids(service: SearchService, tmp_path: Path) -> None:
    def offered(storage: Path, begun: str) -> list[str]:
        context = typer.Context(typer.main.get_command(app))
        context.params = {"storage": str(storage)}
        return known_ids(context, begun)

    assert offered(service.storage.folder, "") == ["a", "b", "empty", "other"]  # the newest first
    assert offered(service.storage.folder, "e") == ["empty"]
    assert offered(tmp_path / "nowhere", "") == []
    assert not (tmp_path / "nowhere").exists()


def test_a_command_line_that_is_none_has_an_exit_code_of_its_own(service: SearchService) -> None:
    for line in (("frnt",), ("front", "--max-latency", "1"), ("front", "--min-accuracy", "2"), ("compare", "a")):
        assert call(service, *line).exit_code == 2
