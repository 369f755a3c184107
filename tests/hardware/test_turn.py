"""One stopwatch at a time: in one process, between processes, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dynarch.hardware.turn import turn
from dynarch.spaces.errors import StoreError

HOLD = """
import sys, time, pathlib
from dynarch.hardware.turn import turn
with turn(folder=pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
# The package without what its first file imports: these processes need the turn alone.
BARE = """
import sys, types
package = sys.modules["dynarch"] = types.ModuleType("dynarch")
package.__path__ = [sys.argv[2]]
"""
ROOT = Path(__file__).resolve().parents[2]


class GaveUp(Exception):
    pass


def give_up(_: str) -> None:
    raise GaveUp


def test_the_second_waits_until_the_first_is_done(tmp_path: Path) -> None:
    told: list[str] = []
    first = turn(folder=tmp_path)
    first.__enter__()

    def pause(_: float) -> None:
        if len(told) == 3:
            first.__exit__(None, None, None)

    with turn(folder=tmp_path, on_wait=told.append, pause=pause):
        assert told == [str(os.getpid())] * 3, "who holds it is told"
        with pytest.raises(GaveUp), turn(folder=tmp_path, on_wait=give_up):
            pytest.fail("two have it")
    with turn(folder=tmp_path, on_wait=give_up):
        pass


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(GaveUp), turn(folder=tmp_path):
        raise GaveUp
    with turn(folder=tmp_path, on_wait=give_up):
        pass


def test_a_kill_gives_it_back(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", BARE + HOLD, str(tmp_path), str(ROOT)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(GaveUp), turn(folder=tmp_path, on_wait=give_up):
            pytest.fail("two have it")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with turn(folder=tmp_path, on_wait=give_up):
        pass


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"absent/dynarch-stopwatch-.* gave 'No such file"),
        turn(folder=tmp_path / "absent"),
    ):
        pytest.fail("it is held")
    with turn(folder=tmp_path):
        (lock,) = tmp_path.iterdir()
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="needs a lock that is a file of its own"), turn(folder=tmp_path):
        pytest.fail("it is held")
    assert not (tmp_path / "elsewhere").exists()
