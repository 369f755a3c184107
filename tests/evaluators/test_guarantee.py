"""Guarantees against populations whose true drops are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dynarch.evaluators.guarantee import Drops, betting, conformal, drops, exact, learn_then_test, least_limit, p_value
from dynarch.evaluators.score_table import ScoreTable, ScoreTables
from dynarch.spaces.errors import SpecError
from dynarch.spaces.policy import Policy

LIMIT, CONFIDENCE = 0.02, 0.95
# Twelve policies, safest first; how many inputs in a thousand each loses, and how many it gains.
LOST = np.linspace(0, 60, 12) / 1000
GAINED = np.linspace(0, 10, 12) / 1000
TRUE_DROP = LOST - GAINED


def population(n: int, generator: np.random.Generator, *, easier: float = 1.0) -> Drops:
    """`n x 12` drops. One uniform number an input, so that who loses by a safe policy loses by all bolder ones.

    Args:
        easier: below 1, fewer are lost than in truth.
    """
    drawn = generator.uniform(size=(n, 1))
    found: Drops = (drawn < easier * LOST).astype(np.int64) - (drawn > 1 - GAINED).astype(np.int64)
    return found


def kept_promises(*, easier: float = 1.0, resplits: int = 100) -> int:
    """How often all policies that are passed really lose no more than the limit."""
    held = [
        learn_then_test(
            population(1500, np.random.default_rng(seed), easier=easier), limit=LIMIT, confidence=CONFIDENCE
        )
        for seed in range(resplits)
    ]
    assert max(held) > 0
    return sum(bool((TRUE_DROP[:count] <= LIMIT).all()) for count in held)


def test_the_promise_holds_on_95_of_100_resplits() -> None:
    assert kept_promises() >= 95


def test_the_check_can_fail() -> None:
    """Evidence from easier inputs than those that come: the promise does not hold, and the check above says so."""
    assert kept_promises(easier=0.5) < 80


def test_something_is_promised() -> None:
    """Policies that lose half of the limit are found by enough inputs."""
    drawn = [population(4000, np.random.default_rng(seed)) for seed in range(20)]
    held = [learn_then_test(losses, limit=LIMIT, confidence=CONFIDENCE) for losses in drawn]
    assert np.mean([TRUE_DROP[:count].max() for count in held]) > LIMIT / 2


def test_without_a_loss_by_hand() -> None:
    limit, none = 0.1, np.zeros(50, dtype=np.int64)
    stakes = (np.arange(200) + 0.5) / 200 / 0.9
    assert exact(none, limit) == pytest.approx(0.9**50)
    assert betting(none, limit) == pytest.approx(1 / np.mean((1 + stakes * limit) ** 50))
    assert betting(none, limit) > exact(none, limit), "no test can be surer than the exact one"
    assert p_value(none, limit) == pytest.approx(2 * 0.9**50)


def test_gains_count_against_losses_in_bets_alone() -> None:
    """Thirty lose and thirty gain: as many losses as the limit has, but no drop."""
    losses = np.zeros(1500, dtype=np.int64)
    losses[:30], losses[30:60] = 1, -1
    assert exact(losses, LIMIT) > 0.5
    assert p_value(losses, LIMIT) == pytest.approx(2 * betting(losses, LIMIT))
    assert p_value(losses, LIMIT) < 0.05


def test_the_value_grows_with_losses_and_falls_with_gains() -> None:
    def losses_of(lost: int, gained: int) -> Drops:
        losses = np.zeros(500, dtype=np.int64)
        losses[:lost], losses[lost : lost + gained] = 1, -1
        return losses

    values = [p_value(losses_of(lost, 0), LIMIT) for lost in (0, 2, 5, 20)]
    assert values == sorted(set(values))
    assert values[-1] == 1.0
    assert betting(losses_of(5, 4), LIMIT) < betting(losses_of(5, 0), LIMIT)


@pytest.mark.parametrize("lost", [LIMIT, 2 * LIMIT])
def test_a_drop_at_the_limit_is_passed_no_more_often_than_promised(lost: float) -> None:
    generator = np.random.default_rng(0)
    passed = [p_value((generator.uniform(size=400) < lost).astype(np.int64), LIMIT) <= 0.05 for _ in range(2000)]
    assert np.mean(passed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_conformal_holds_on_average_and_wastes_little() -> None:
    risks = []
    for seed in range(300):
        held = conformal(population(1500, np.random.default_rng(seed)), limit=LIMIT)
        risks.append(TRUE_DROP[held - 1] if held else 0.0)
    assert LIMIT / 2 < np.mean(risks) <= LIMIT


def test_nothing_is_promised_behind_the_first_failure() -> None:
    good, bad = np.zeros(1000, dtype=np.int64), np.ones(1000, dtype=np.int64)
    losses: NDArray[np.int64] = np.stack([good, bad, good], axis=1)
    assert learn_then_test(losses, limit=LIMIT, confidence=CONFIDENCE) == 1
    assert conformal(losses, limit=LIMIT) == 1, "the risk of the third is taken to be at least that of the second"


def test_the_least_limit_is_where_no_loss_just_suffices() -> None:
    least, none = least_limit(100, CONFIDENCE), np.zeros(100, dtype=np.int64)
    assert p_value(none, least * 1.001) <= 0.05 < p_value(none, least * 0.999)
    assert least == pytest.approx(1 - 0.025 ** (1 / 100))


def test_drops_are_against_the_whole_network() -> None:
    """One exit: inputs 0, 1, 3 leave. 0: both right; 1: only the end is; 2: stays; 3: only the exit is."""
    table = ScoreTable(
        scores={"max_prob": np.array([[0.9], [0.8], [0.1], [0.7]], dtype=np.float32)},
        predictions=np.array([[1, 1], [0, 1], [0, 1], [1, 0]]),
        labels=np.array([1, 1, 1, 1]),
    )
    found = drops(ScoreTables((table,)), [Policy.never(1), Policy("max_prob", (0.5,))])
    assert found.tolist() == [[0, 0], [0, 1], [0, 0], [0, -1]]


@pytest.mark.parametrize(
    ("limit", "confidence", "path"), [(0.0, 0.95, "max_drop"), (1.0, 0.95, "max_drop"), (0.1, 1.0, "confidence")]
)
def test_what_cannot_be_promised_is_refused(limit: float, confidence: float, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        learn_then_test(np.zeros((10, 1), dtype=np.int64), limit=limit, confidence=confidence)
    assert caught.value.path == path
