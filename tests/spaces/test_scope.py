from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynarch.spaces.errors import SpecError
from dynarch.spaces.scope import Chance, Replay, Scalar, Scope, Suggester, enumerate_points
from dynarch.tests import oracles


def conditional(scope: Scope) -> tuple[tuple[str, ...], str | None]:
    count = scope.integer("count", 0, 2)
    exits = tuple((scope / "exit" / index).categorical("head", ("a", "b", "c")) for index in range(count))
    return exits, scope.categorical("rule", ("entropy", "max_prob")) if count else None


def plain(scope: Scope) -> tuple[bool, bool]:
    return scope.boolean("first"), scope.boolean("second")


def everything(scope: Scope) -> tuple[Scalar, ...]:
    return (
        scope.number("rate", 1e-4, 1e-1, log=True),
        scope.number("share", -1.0, 1.0),
        scope.integer("count", 3, 7),
        scope.categorical("mixed", (1, True, "1", 1.0)),
    )


def test_enumeration_finds_each_point_once() -> None:
    rows: tuple[tuple[Callable[[Scope], object], int], ...] = (
        (conditional, oracles.CONDITIONAL_POINTS),
        (plain, oracles.PLAIN_POINTS),
    )
    for space, number in rows:
        points = list(enumerate_points(space))
        assert len(points) == len({made for _, made in points}) == number
        for params, made in points:
            assert space(Scope(Replay(params))) == made


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_enumeration_agrees_with_brute_force() -> None:
    seen = set()
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())

    def objective(trial: optuna.Trial) -> float:
        seen.add(conditional(Scope(cast(Suggester, trial))))
        return 0.0

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study.optimize(objective)
    assert seen == {made for _, made in enumerate_points(conditional)}


def test_a_question_asked_twice_has_one_answer() -> None:
    points = list(enumerate_points(lambda scope: (scope.boolean("a"), scope.integer("n", 0, 1), scope.boolean("a"))))
    assert [made for _, made in points] == [
        (False, 0, False), (False, 1, False), (True, 0, True), (True, 1, True),
    ]  # fmt: skip


def test_continuous_numbers_cannot_be_enumerated() -> None:
    with pytest.raises(SpecError, match="cannot be enumerated; list values"):
        list(enumerate_points(lambda scope: scope.number("rate", 0, 1)))


def test_prefixes_add_up() -> None:
    chance = Chance(np.random.default_rng(0))
    (Scope(chance) / "early_exit" / 3).boolean("on")
    assert list(chance.params) == ["early_exit.3.on"]


def test_one_possible_answer_is_not_asked() -> None:
    chance = Chance(np.random.default_rng(0))
    scope = Scope(chance)
    assert scope.categorical("a", ("only",)) == "only"
    assert scope.integer("b", 4, 4) == 4
    assert scope.number("c", 0.5, 0.5) == 0.5
    assert not chance.params


@pytest.mark.parametrize("wanted", [1, True, "1", 1.0], ids=repr)
def test_equal_choices_of_different_type_stay_apart(wanted: Scalar) -> None:
    choices: tuple[Scalar, ...] = (1, True, "1", 1.0)  # 1 == True == 1.0 in Python
    made = Scope(Replay({"x": wanted})).categorical("x", choices)
    assert type(made) is type(wanted)
    assert made == wanted


@given(st.integers(0, 2**32 - 1))
def test_chance_stays_in_range_and_replays(seed: int) -> None:
    chance = Chance(np.random.default_rng(seed))
    made = everything(Scope(chance))
    rate, share, count, mixed = made
    assert isinstance(rate, float)
    assert 1e-4 <= rate <= 1e-1
    assert isinstance(share, float)
    assert -1 <= share <= 1
    assert count in range(3, 8)
    again = everything(Scope(Replay(chance.params)))
    assert again == made
    assert type(again[3]) is type(mixed)


def test_chance_reaches_both_ends_and_respects_the_scale() -> None:
    chance = Chance(np.random.default_rng(0))
    counts = [chance.suggest_int("n", 0, 3) for _ in range(200)]
    assert set(counts) == {0, 1, 2, 3}
    rates = [chance.suggest_float("r", 1e-4, 1.0, log=True) for _ in range(400)]
    # Log-uniform over four decades: half of it lies below the geometric mean 1e-2. Six standard deviations are 0.15.
    assert abs(sum(rate < 1e-2 for rate in rates) / 400 - 0.5) < 0.15


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rate": "0.01"}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": 0.01, "share": 0.0, "count": 8}, "count"),
        ({"rate": 0.01, "share": 0.0, "count": 3.5}, "count"),
        ({"rate": 0.01, "share": 0.0, "count": 3, "mixed": "2"}, "mixed"),
        ({"rate": 0.01, "share": 0.0, "count": 3, "mixed": None}, "mixed"),
    ],
)
def test_replay_refuses_what_does_not_fit(params: dict[str, Scalar], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        everything(Scope(Replay(params)))
    assert caught.value.path == path


def test_replay_refuses_an_equal_value_of_another_type() -> None:
    with pytest.raises(SpecError, match="must be one of"):
        Scope(Replay({"x": True})).categorical("x", (1, 2))


def test_replay_knows_what_was_used() -> None:
    replay = Replay({"first": True, "second": False, "third": 1})
    assert plain(Scope(replay)) == (True, False)
    assert replay.used == {"first", "second"}
