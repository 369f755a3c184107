"""Candidates that never end, and places that cannot be written: the one is a failure, the other nobody's fault."""

from __future__ import annotations

import errno
import os
import re
import resource
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dynarch.evaluators import evaluators
from dynarch.evaluators.atomic import replacing
from dynarch.evaluators.from_scratch import FromScratch
from dynarch.search.candidate import Message, candidate_folder
from dynarch.search.testing import run_inline
from dynarch.search.watchdog import NOTE, Watchdog
from dynarch.search.worker import Assignment, Worker
from dynarch.spaces.errors import EvaluationFailed
from dynarch.tests.databases import start
from dynarch.tests.inline_searches import FOUR, Driven, Tabular, architecture_of, quick_folder, small_problem

LIMIT_SECONDS = 0.5


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


# -- a candidate that hangs -----------------------------------------------------------------------------------


def hang(number: int, epoch: int) -> None:
    """In native code that never lets another thread of the interpreter run: an expression that backtracks for ever."""
    if epoch == 2:
        re.match(r"(a+)+$", "a" * 60 + "b")


def assignment_of(folder: Path, mishap: object) -> tuple[Assignment, Tabular]:
    evaluator = Tabular(mishap)  # type: ignore[arg-type]
    search = Driven(folder, small_problem(space=FOUR, trials=1, rungs=False), evaluator)
    with search.enter() as engine:
        candidate = engine.propose()
        assert candidate is not None
        shared = search.assignment(engine)
    return Assignment(**{**vars(shared), "limit_seconds": LIMIT_SECONDS}), evaluator


def take_on(folder: Path, shared: Assignment, evaluator: Tabular) -> Message:
    """One attempt at candidate 0, as a fresh worker makes it."""
    evaluators.EVALUATORS = (evaluator,)
    (evaluation,) = Driven(folder, small_problem(space=FOUR, trials=1, rungs=False), evaluator).evaluations()
    worker = Worker(shared)
    worker.assign(0, architecture_of(evaluation), candidate_folder(0))
    return worker.step()


def attempt(ready: Connection, folder: Path) -> None:
    """In a process of its own, which the watchdog ends."""
    shared, evaluator = assignment_of(folder, hang)
    ready.send("begun")
    take_on(folder, shared, evaluator)
    ready.send("it came to an end")


def test_a_candidate_that_hangs_is_ended_and_its_next_worker_records_the_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, connection = start(attempt, folder)
    assert connection.poll(120)
    assert connection.recv() == "begun"
    process.join(60)
    assert process.exitcode == 1  # of the watchdog; it would be 0, or below 0 for a signal
    with pytest.raises(EOFError):  # it had nothing more to say
        connection.recv()
    monkeypatch.setattr(evaluators, "EVALUATORS", evaluators.EVALUATORS)
    shared, evaluator = assignment_of(folder, hang)
    message = take_on(folder, shared, evaluator)
    assert message.state == "failed"
    assert message.cause is not None
    assert message.cause.startswith("it ran for more than the 0.00833 minutes that budget.candidate_minutes allows")
    assert re.search(r", and hung at \S+\.py:\d+$", message.cause)
    assert not (folder / candidate_folder(0)).exists()


def test_who_is_merely_slow_is_told_between_two_epochs(tmp_path: Path) -> None:
    now = [0.0]
    dog = Watchdog(tmp_path / "c", 60.0, clock=lambda: now[0])
    with dog:
        now[0] = 59.0
        dog.check()
        now[0] = 61.0
        with pytest.raises(EvaluationFailed, match=r"more than the 1 minutes that budget\.candidate_minutes allows$"):
            dog.check()
    with pytest.raises(EvaluationFailed), dog:  # nor is it entered again
        pytest.fail("it was entered")
    assert not (tmp_path / "c" / NOTE).exists()


def test_a_worker_that_was_killed_leaves_an_empty_note_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / NOTE).touch()
    with Watchdog(tmp_path, 60.0):
        pass
    assert not (tmp_path / NOTE).exists()


def test_a_watchdog_that_is_left_bites_nobody(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 0.05):
        pass
    time.sleep(0.1)


# -- a full disk ----------------------------------------------------------------------------------------------


class Disk:
    """What a full disk says to whoever writes checkpoints; it has room again after so many refusals."""

    refusals: ClassVar[int] = 0

    @classmethod
    def open(cls, path: Path, *arguments: Any, **options: Any) -> object:
        if path.name.endswith(".partial") and cls.refusals > 0:
            cls.refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return OPEN(path, *arguments, **options)


OPEN = Path.open


def test_a_full_disk_ends_the_search_and_no_candidate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all that are left would fail one after the other, and be on record as having failed."""
    search = Driven(folder, small_problem(space=FOUR, trials=2, epochs=2, rungs=False), FromScratch())
    monkeypatch.setattr(Path, "open", lambda *a, **o: Disk.open(*a, **o))
    monkeypatch.setattr(Disk, "refusals", 1)
    with search.enter() as engine:
        run_inline(engine, search.assignment(engine))
        assert engine.blocked == "the search's folder cannot be written (No space left on device)"
    assert [each.state for each in search.evaluations()] == ["running"]
    search.run()
    assert [(each.state, each.epochs_done) for each in search.evaluations()] == [("finished", 2)] * 2
    assert not list(folder.rglob("*.partial"))


def write_beyond(ready: Connection, file: Path) -> None:
    """Let the system refuse for real: a limit on the size of files says what a full disk says, by another number."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with replacing(file) as stream:
            stream.write(b"x" * 5000)
            stream.flush()
    except OSError as error:
        ready.send(error.errno)
    else:
        ready.send(None)


def test_what_could_not_be_written_whole_is_not_there_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    process, connection = start(write_beyond, tmp_path / "a")
    assert connection.poll(120)
    assert connection.recv() == errno.EFBIG
    process.join(60)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
