"""Whole networks under the stopwatch, and what an entry of the table still lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.profile import Due, time_network
from dynarch.spaces.errors import DataError

MS = 1_000_000


# Visits by the processes that made them, of an entry that needs three rounds for each of two processes.
@pytest.mark.parametrize(
    ("visited", "due"),
    [
        ({}, Due(first=0, now=3, in_all=6)),
        ({"a": 3}, Due(first=3, now=3, in_all=3)),
        ({"a": 2}, Due(first=2, now=3, in_all=4)),  # killed in its third round: another one goes on after the next
        ({"a": 2, "b": 3}, Due(first=5, now=1, in_all=1)),
        ({"a": 3, "b": 1}, Due(first=4, now=2, in_all=2)),
        ({"a": 3, "b": 3}, Due(first=6, now=0, in_all=0)),
        ({"a": 1, "b": 1, "c": 1, "d": 3}, Due(first=6, now=0, in_all=0)),
        ({"a": 7}, Due(first=7, now=1, in_all=1)),  # of an older dynarch, which had one process
    ],
)
def test_what_is_due(visited: Mapping[str, int], due: Due) -> None:
    assert Due.of(visited, rounds=3, processes=2) == due


def test_time_network_takes_the_fastest_round_of_each_input() -> None:
    now = 0
    calls: Counter[int] = Counter()

    def run(index: int) -> None:
        nonlocal now
        calls[index] += 1
        # Input i takes i + 1 ms, and ten times that until it has been run twice.
        now += (index + 1) * MS * (10 if calls[index] <= 2 else 1)

    times = time_network(run, 4, rounds=3, device=Cpu(), clock=lambda: now, warmup_calls=0)
    assert times.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert set(calls.values()) == {3}


def test_time_network_interleaves_in_a_new_order_each_round() -> None:
    order: list[int] = []
    time_network(order.append, 10, rounds=2, device=Cpu(), seed=1, clock=lambda: len(order), warmup_calls=0)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_time_network_refuses_nothing_to_time() -> None:
    for n, rounds in ((0, 1), (1, 0)):
        with pytest.raises(DataError):
            time_network(lambda index: None, n, rounds=rounds, device=Cpu())
