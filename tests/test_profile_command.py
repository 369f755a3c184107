"""`dynarch profile`: what it measures, what it says, and what it refuses before it makes anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynarch import Cpu, SearchService, Space
from dynarch.hardware.device import AbstractDevice
from dynarch.hardware.drift import Refreshed
from dynarch.search import profiling
from dynarch.service import app
from dynarch.spaces.errors import DeviceUnavailableError, DynarchError, SpecError
from dynarch.tests.tiny_searches import SPACE, shared_storage, tiny_spec


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["profile", *map(str, words)])


def said(*words: object) -> list[str]:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output.strip().splitlines()


def refused(*words: object) -> DynarchError:
    """The error, which the command line prints on one line."""
    result = run(*words)
    assert isinstance(result.exception, DynarchError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return result.exception


def test_a_second_profile_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something was measured again")

    spec = tiny_spec(tmp_path)
    version = said("--space", spec, "--storage", shared_storage())[-1]
    assert re.fullmatch(r"table version \w+ for cpu b1 t1 float32 eager", version)
    monkeypatch.setattr(profiling, "FreshProcess", lambda *_: refuse)
    monkeypatch.setattr(profiling, "observe", refuse)
    monkeypatch.setattr(profiling, "refresh", lambda *_: Refreshed(None))  # a busy machine may look like another one
    assert said("--space", spec, "--storage", shared_storage())[-1] == version


def test_only_the_space_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices of the search may be elsewhere, and its budget is not spent; what nobody knows is refused."""
    profiled: list[tuple[Space, AbstractDevice]] = []

    def note(_: SearchService, space: Space, device: AbstractDevice, *, data: object, watcher: object) -> str:
        profiled.append((space, device))
        return "of-a-test"

    monkeypatch.setattr(SearchService, "profile", note)
    spec = tiny_spec(tmp_path)
    elsewhere = spec.read_text().replace('kind = "cpu"', 'kind = "cuda"\nindex = 77')
    spec.write_text(elsewhere.replace("trials = 5", "trials = 0"))
    lines = said("--space", spec, "--batch", 4, "--storage", tmp_path / "results")
    assert profiled == [(SPACE, Cpu(batch=4))]
    found = Cpu().environment().environment_id
    assert lines[0].startswith(f"environment {found}; see: dynarch table show {found[:6]} --storage")
    assert lines[1] == "table version of-a-test for cpu b4 t1 float32 eager"
    spec.write_text("[serch]\n" + spec.read_text())
    assert "serch: 'serch' is not known; did you mean 'search'" in str(refused("--space", spec))


def test_an_interrupt_is_told_with_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: SearchService, space: Space, device: AbstractDevice, *, data: object, watcher: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchService, "profile", interrupt)
    result = run("--space", tiny_spec(tmp_path), "--storage", tmp_path / "results")
    assert result.exit_code == 130
    assert "interrupted, what was measured is kept; the same command goes on from there" in result.output


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("--device", "gpu"), SpecError, "device.kind: 'gpu' is not known"),
        (("--batch", 0), SpecError, "device.batch: must be an integer of at least 1, but got 0"),
        (("--threads", 0), SpecError, "device.threads: must be an integer of at least 1"),
        (("--threads", 4096), DeviceUnavailableError, "threads <= visible cores must hold, but got threads=4096"),
    ],
)
def test_a_device_that_is_not_there_makes_no_storage(
    tmp_path: Path, words: tuple[object, ...], kind: type[DynarchError], message: str
) -> None:
    error = refused("--space", tiny_spec(tmp_path), "--storage", tmp_path / "none", *words)
    assert isinstance(error, kind)
    assert message in str(error)
    assert not (tmp_path / "none").exists()
