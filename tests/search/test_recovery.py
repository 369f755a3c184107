"""Every start is a resume: whatever died when, the study and the folder come to what the ledger says."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from dynarch.evaluators.from_scratch import CHECKPOINT
from dynarch.search.candidate import candidate_folder
from dynarch.search.recovery import NOTES, sweep
from dynarch.search.testing import Hook, Killed, Moment
from dynarch.tests.inline_searches import FOUR, ID, Driven, quick_folder, small_problem

STRIDE = 7  # of the commits at which somebody dies here, as there are about 150; `benchmarks/chaos.py` draws any


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def die_at(number: int) -> Hook:
    """A hook that dies when candidate `number` has been trained to its first rung."""

    def hook(moment: Moment) -> None:
        if (moment.number, moment.when) == (number, "sent"):
            raise Killed(f"at {moment}")

    return hook


def told(search: Driven) -> Counter[tuple[object, ...]]:
    """What the study knows, without numbers: orphans take some."""
    return Counter((t.candidate, t.state, t.extra) for t in search.study().trials() if not t.orphan)


def told_of_candidates(search: Driven) -> Counter[tuple[object, ...]]:
    """The same without questions that came to no candidate, of which the ledger keeps nothing."""
    return Counter({key: count for key, count in told(search).items() if key[0] is not None})


@contextmanager
def at_commits(count: list[int], *, die_at: int | None = None) -> Iterator[None]:
    """Count the commits of all databases, and die just before one of them takes place."""

    def before(connection: Connection) -> None:
        count[0] += 1
        if count[0] == die_at:
            connection.invalidate()  # as the death of a process does, which takes its locks along
            raise Killed(f"before commit {die_at}")

    event.listen(Engine, "commit", before)
    try:
        yield
    finally:
        event.remove(Engine, "commit", before)


def test_a_death_at_any_commit_changes_nothing() -> None:
    """The same candidates, each trained once, and a study that knows the same: orphans cost nobody his question."""
    problem = small_problem(space=FOUR, trials=3, sampler="random")
    with quick_folder() as made:
        whole, commits = Driven(made / "whole", problem), [0]
        with at_commits(commits):
            whole.run()
        assert commits[0] > 50  # or the deaths below would be none
        for number in range(1, commits[0] + 1, STRIDE):
            search = Driven(made / f"killed{number}", problem)
            with at_commits([0], die_at=number), pytest.raises(Killed):
                search.run()
            ended = {each.number for each in search.evaluations() if each.terminal}
            before = search.trained()
            search.run()
            assert not ended & {candidate for candidate, _ in search.trained()[len(before) :]}
            assert search.record() == whole.record(), f"after a death before commit {number}"
            assert told(search) == told(whole), f"after a death before commit {number}"
            assert len(set(search.trained())) == len(search.trained())


# -- the study is lost ----------------------------------------------------------------------------------------


@pytest.fixture
def halted(folder: Path) -> Driven:
    """A search of six candidates that died when the fourth was at work."""
    search = Driven(folder, small_problem(trials=6, sampler="random"))
    with pytest.raises(Killed):
        search.run(die_at(3))
    assert [each.terminal for each in search.evaluations()] == [True, True, True, False]
    return search


def empty(study: Path) -> None:
    """A study of which nobody knows anything any more."""
    with closing(sqlite3.connect(study)) as connection, connection:
        for table in ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes"):
            connection.execute(f"DELETE FROM {table}")


def test_a_study_that_was_lost_is_made_again_from_the_ledger(halted: Driven, folder: Path) -> None:
    before = told_of_candidates(halted)
    empty(folder / "study.db")
    with halted.enter():
        assert told_of_candidates(halted) == before
    halted.run()
    trials = [t for t in halted.study().trials() if not t.extra and t.candidate is not None]
    assert sorted(trial.candidate or 0 for trial in trials) == list(range(6))
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    params = {each.number: dict(each.params) for each in halted.evaluations()}
    assert {t.candidate: halted.study().params(t.number) for t in trials} == params


def test_a_death_while_the_study_is_made_again_is_one_more_resume(halted: Driven, folder: Path) -> None:
    before = told_of_candidates(halted)
    commits = [0]
    for die_at in range(1, 40, 4):
        empty(folder / "study.db")
        with at_commits(commits, die_at=commits[0] + die_at), pytest.raises(Killed), halted.enter():
            raise Killed("it had been made before")
        with halted.enter():
            assert told_of_candidates(halted) == before, f"after a death before commit {die_at}"


def test_a_study_that_is_older_than_the_ledger_is_told_again(halted: Driven, folder: Path) -> None:
    """As after a copy was put back in which the last ended candidate is still running."""
    before = told_of_candidates(halted)
    (last,) = [each.optuna_trial for each in halted.evaluations() if each.number == 2]
    with closing(sqlite3.connect(folder / "study.db")) as connection, connection:
        connection.execute("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = ?", [last])
    with halted.enter():
        assert told_of_candidates(halted) == before


# -- what is left in the folder ---------------------------------------------------------------------------------


def test_what_the_dead_left_is_swept(folder: Path) -> None:
    search = Driven(folder, small_problem(trials=10))
    with pytest.raises(Killed):
        search.run(die_at(9))
    states = {each.number: each.state for each in search.evaluations()}
    assert {"finished", "stopped", "running"} == set(states.values())
    for number in states:
        (folder / candidate_folder(number)).mkdir(parents=True, exist_ok=True)
        (folder / candidate_folder(number) / CHECKPOINT).touch()
        (folder / candidate_folder(number) / "weights.safetensors.7.partial").touch()
    (folder / "book.json.7.partial").touch()
    (folder / NOTES / "tune-abc").mkdir(parents=True)
    with search.ledger() as ledger:
        sweep(folder, ledger, ID, checkpoint=CHECKPOINT)
    assert [file.parent.name for file in folder.rglob("*.partial")] == ["00009"]  # somebody may still write there
    assert not list((folder / NOTES).iterdir())
    kept = {int(file.parent.name) for file in folder.rglob(CHECKPOINT)}
    assert kept == {number for number, state in states.items() if state == "running"}
