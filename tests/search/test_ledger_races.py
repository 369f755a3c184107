"""Several writers of one ledger, writers that are killed, and callers that start over: one record all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynarch.search.ledger import Evaluation, Ledger, NewPoint, Point, Rung, Search
from dynarch.spaces.errors import SearchBusyError, StoreError
from dynarch.tests.databases import BACKENDS, at_once, fresh_url, open_and_count, start
from dynarch.tests.search.ledger_writers import finish, propose, race, stall_inside, take


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        opened.create_search("s", name="digits", spec={}, seed=7, created_at=1.0)
        yield opened


def test_a_search_has_one_driver(ledger: Ledger) -> None:
    assert ledger.acquire("s", "first", now=100.0, ttl_seconds=30.0).holder == "first"
    with pytest.raises(SearchBusyError, match="held by 'first', heard of 29 s ago") as caught:
        ledger.acquire("s", "second", now=129.0, ttl_seconds=30.0)
    assert caught.value.holder == "first"
    ledger.acquire("s", "first", now=120.0, ttl_seconds=30.0)  # by the same driver it is renewed
    ledger.heartbeat("s", "first", now=140.0)
    with pytest.raises(SearchBusyError):
        ledger.acquire("s", "second", now=169.0, ttl_seconds=30.0)
    assert ledger.acquire("s", "second", now=170.0, ttl_seconds=30.0).heartbeat_at == 170.0
    with pytest.raises(SearchBusyError, match="'first' has lost search 's' to second"):
        ledger.heartbeat("s", "first", now=171.0)
    assert not ledger.release("s", "first")
    assert ledger.release("s", "second")
    assert ledger.acquire("s", "first", now=172.0, ttl_seconds=30.0).holder == "first"


def test_two_processes_take_the_lease_at_once(url: str, ledger: Ledger) -> None:
    taken = at_once(take, [url, "first"], [url, "second"])
    assert sorted(taken) == [False, True]
    assert ledger.search("s").holder == ("first" if taken[0] else "second")


def test_two_processes_propose_and_finish_the_same_keys_at_once(url: str, ledger: Ledger) -> None:
    candidates = 25
    (numbers, won_0, verdicts_0), (others, won_1, verdicts_1) = at_once(
        race, [url, "0", candidates], [url, "1", candidates]
    )
    assert numbers == others
    assert verdicts_0 == verdicts_1
    assert sorted(won_0 + won_1) == sorted(numbers)
    evaluations = ledger.evaluations("s")
    assert [e.number for e in evaluations] == sorted(numbers)
    winner = {e.number: e.metrics["writer"] for e in evaluations if e.metrics}
    assert {number for number, writer in winner.items() if writer == "0"} == set(won_0)
    points = [(p.number, p.index, p.policy["writer"]) for p in ledger.points("s")]
    assert points == [(number, index, winner[number]) for number in sorted(numbers) for index in range(3)]
    assert len(ledger.rungs("s")) == candidates


def test_a_writer_that_is_killed_inside_leaves_nothing(url: str, ledger: Ledger) -> None:
    propose(ledger, 0)
    before = (ledger.search("s"), ledger.evaluations("s"))
    process, connection = start(stall_inside, url)
    assert connection.poll(120)
    assert connection.recv() == "inside"
    process.kill()
    process.join(60)
    assert (ledger.search("s"), ledger.evaluations("s")) == before
    assert finish(ledger, 0)  # and nothing is left locked


State = tuple[Search, tuple[Evaluation, ...], tuple[Rung, ...], tuple[Point, ...]]
Operation = Callable[[Ledger, str], object]
_NAMES = count()


def state_of(ledger: Ledger, search: str) -> State:
    """All that is recorded, without what counts rows and attempts."""
    return (
        replace(ledger.search(search), id=""),
        tuple(replace(e, id=0, search_id="", attempts=0) for e in ledger.evaluations(search)),
        tuple(replace(rung, sequence=0) for rung in ledger.rungs(search)),
        tuple(replace(point, id=0) for point in ledger.points(search)),
    )


def attempt(ledger: Ledger, search: str, operation: Operation) -> bool:
    try:
        operation(ledger, search)
    except StoreError:
        return False
    return True


def _finish(number: int, state: str, size: int) -> Operation:
    points = [NewPoint({"i": i, "of": state}, {"size": size}) for i in range(size)]
    return lambda ledger, search: ledger.finish(
        search,
        number,
        state=state,  # type: ignore[arg-type]
        finished_at=float(size),
        epochs_done=size,
        seconds=1.0,
        points=points,
    )


def operations() -> st.SearchStrategy[Operation]:
    number, small, flag = st.integers(0, 2), st.integers(0, 2), st.booleans()
    states = st.sampled_from(["finished", "stopped", "failed"])
    keys = st.sets(st.tuples(number, small), max_size=3)
    return st.one_of(
        st.builds(lambda n, a: lambda led, s: propose(led, n, architecture=f"a{a}", search=s), number, small),
        st.builds(lambda n: lambda led, s: led.start(s, n), number),
        st.builds(
            lambda n, e, k: lambda led, s: led.record_rung(s, n, e, points=[[e, k]], kept=k),
            number,
            small,
            flag,
        ),
        st.builds(_finish, number, states, small),
        st.builds(lambda n: lambda led, s: led.mark_told(s, n), number),
        st.builds(lambda n, r: lambda led, s: led.mark_logged(s, {n: f"r{r}"}), number, small),
        st.builds(lambda n, t: lambda led, s: led.link_trial(s, n, t), number, small),
        st.builds(lambda k: lambda led, s: led.mark_front(s, k), keys),
        st.builds(lambda t: lambda led, s: led.open_test(s, float(t)), small),
        st.builds(lambda k, v: lambda led, s: led.score_points(s, {key: {"error": v} for key in k}), keys, small),
        st.builds(lambda k, v: lambda led, s: led.record_measured(s, {key: {"ms": v} for key in k}), keys, small),
        st.builds(lambda v: lambda led, s: led.set_status(s, ("running", "scoring", "finished")[v]), small),
        st.builds(lambda v: lambda led, s: led.set_table(s, f"v{v}", correction_id=None), small),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(asked=st.lists(operations(), min_size=4, max_size=24), cut=st.integers(0, 24), ready=st.booleans())
def test_calls_made_again_from_the_start_change_nothing(
    ledger: Ledger, asked: list[Operation], cut: int, ready: bool
) -> None:
    once, again = (f"search {next(_NAMES)}" for _ in range(2))
    for search in (once, again):
        ledger.create_search(search, name="n", spec={}, seed=0, created_at=0.0)
    start_of_all: list[Operation] = []
    if ready:  # so that what needs finished points is reached often
        start_of_all = [lambda led, s, n=n: propose(led, n, search=s) for n in range(2)]  # type: ignore[misc]
        start_of_all += [_finish(0, "finished", 3)]
    done = [operation for operation in start_of_all + asked if attempt(ledger, once, operation)]
    for operation in done[:cut]:
        assert attempt(ledger, again, operation)
    middle = state_of(ledger, again)
    for operation in done[:cut]:
        attempt(ledger, again, operation)
    assert state_of(ledger, again) == middle
    for operation in done:
        attempt(ledger, again, operation)
    assert state_of(ledger, again) == state_of(ledger, once)


# -- somebody looks on ----------------------------------------------------------------------------------------


def test_looking_on_from_another_process_takes_nothing_away(tmp_path: Path) -> None:
    """As `dynarch status` in another terminal does, while the process of the search opens the ledger now and then.

    SQLite removes the write-ahead log when the last process that holds the database leaves it. So no process may
    lose its hold while it has the database open, or what it writes later is lost or torn.
    """
    url = f"sqlite:///{tmp_path / 'dynarch.db'}"
    with Ledger.open(url) as ledger:
        for number in range(3):
            ledger.create_search(str(number), name="tiny", spec={}, seed=0, created_at=0.0)
            Ledger.open(url).close()
            assert at_once(open_and_count, [url]) == [number + 1]
            assert (tmp_path / "dynarch.db-wal").exists()
