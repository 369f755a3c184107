"""A store that fails: waited for while that is of use, and then told as what it is."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from dynarch.search import outage
from dynarch.search.outage import IN_VAIN, Outage
from dynarch.spaces.errors import StoreError

AWAY = StoreError("the database is away")


class World:
    """A store that answers from some look on, progress, and a clock that moves a second a look."""

    def __init__(self) -> None:
        self.looks = 0
        self.back_at = 1
        self.achieved = 0
        self.stopping = threading.Event()
        self._seconds = count()

    def ask(self) -> None:
        self.looks += 1
        if self.looks < self.back_at:
            raise StoreError("still away")

    def outage(self, patience_seconds: float = 10.0) -> Outage:
        return Outage(
            self.ask,
            lambda: self.achieved,
            stopping=self.stopping,
            patience_seconds=patience_seconds,
            clock=lambda: float(next(self._seconds)),
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    return World()


def test_a_store_that_comes_back_is_used_again(world: World) -> None:
    world.back_at = 5
    world.outage().wait(AWAY)
    assert world.looks == 5


def test_patience_ends_with_the_error_that_began_it(world: World) -> None:
    world.back_at = 1000
    with pytest.raises(StoreError) as told:
        world.outage(patience_seconds=10.0).wait(AWAY)
    assert told.value is AWAY
    assert 5 <= world.looks <= 12  # the clock moves a second a look


def test_whoever_wants_to_stop_is_not_made_to_wait(world: World) -> None:
    world.back_at = 1000
    world.stopping.set()
    with pytest.raises(StoreError):
        world.outage().wait(AWAY)
    assert world.looks == 1


def test_failing_again_and_again_without_any_progress_is_in_vain(world: World) -> None:
    """The first failure says nothing; after it come as many tries as are allowed."""
    waiting = world.outage()
    for _ in range(IN_VAIN):
        waiting.wait(AWAY)
    with pytest.raises(StoreError):
        waiting.wait(AWAY)


def test_progress_makes_up_for_earlier_failures(world: World) -> None:
    waiting = world.outage()
    for achieved in range(4 * IN_VAIN):
        world.achieved = achieved
        waiting.wait(AWAY)
