"""The embedded texts and sequences do what their rules say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynarch.evaluators.data import EMBEDDED, Data, drifts, load_data, opinions
from dynarch.evaluators.data.drifts import DIRECTIONS, LONGEST, SHORTEST, STRENGTHS, bayes_accuracy, right
from dynarch.evaluators.data.opinions import BAYES_ACCURACY, BLAME, NEGATORS, PRAISE, tendency
from dynarch.spaces.errors import DataError

OPINIONS, DRIFTS = opinions(), drifts()


def decoded(data: Data) -> list[list[str]]:
    words = ("", "", *(data.words or ()))
    return [[words[int(number)] for number in row if number] for row in data.x]


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_is_the_same_every_time(name: str) -> None:
    first, again = load_data(name), EMBEDDED[name]()
    assert first.id == again.id
    assert first.name == name


@pytest.mark.parametrize("make", [opinions, drifts])
def test_seeds_and_sizes(make: object) -> None:
    assert callable(make)
    assert make(48, seed=1).id != make(48, seed=2).id
    assert len(make(48).x) == 48
    with pytest.raises(DataError, match="or more, but got 3"):
        make(3)


# -- opinions -------------------------------------------------------------------------------------------------


def test_the_rule_of_opinions_by_hand() -> None:
    assert tendency(["the", "film", "was", "not", "dull", "and", "funny"]) == 2
    assert tendency(["good", "but", "never", "good"]) == 0
    assert tendency(["hardly", "bright", "stale"]) == -2
    assert tendency(["not", "the", "dull", "film"]) == -1, "a negator stands right before what it turns around"


def test_who_follows_the_rule_of_opinions_is_as_good_as_can_be() -> None:
    data = OPINIONS
    totals = np.array([tendency(text) for text in decoded(data)])
    assert set(np.abs(totals).tolist()) == {1, 3}
    agree = (totals > 0) == (data.y == 1)
    for hard in (False, True):
        kind = np.abs(totals) == (1 if hard else 3)
        assert kind.sum() == len(data.y) / 2
        # Labels are turned around independently: a mean of n such is within 4 deviations of its expectation.
        deviation = math.sqrt(BAYES_ACCURACY * (1 - BAYES_ACCURACY) / kind.sum())
        assert abs(agree[kind].mean() - BAYES_ACCURACY) < 4 * deviation


def test_easy_opinions_are_settled_early_and_hard_ones_are_open_to_the_end() -> None:
    for text in decoded(OPINIONS)[:400]:
        verdict, third = tendency(text), math.ceil(len(text) / 2)
        cues = [place for place, word in enumerate(text) if word in (*PRAISE, *BLAME)]
        assert len(cues) == 3
        if abs(verdict) == 3:
            assert tendency(text[:third]) == verdict
            assert cues[-1] < third
        else:
            assert tendency(text[: cues[-1] - 1]) == 0
            assert cues[-1] >= len(text) - 3


def test_opinions_need_the_order_of_words() -> None:
    """Without negators a text of three clauses, each negated with 0.4, seems to say what it says seldom enough.

    The sign of the sum without negators: an easy text's clauses seem right with 0.6 each, most of the three with
    0.6^3 + 3 * 0.6^2 * 0.4 = 0.648.
    """
    data = OPINIONS
    texts = decoded(data)
    seeming = np.array([tendency([word for word in text if word not in NEGATORS]) for text in texts])
    easy = np.array([abs(tendency(text)) == 3 for text in texts])
    expected = 0.648 * BAYES_ACCURACY + 0.352 * (1 - BAYES_ACCURACY)
    accuracy = ((seeming > 0) == (data.y == 1))[easy].mean()
    assert abs(accuracy - expected) < 4 * math.sqrt(expected * (1 - expected) / easy.sum())


# -- drifts ---------------------------------------------------------------------------------------------------


def guesses(data: Data, steps: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The best guess from the first steps: the signs of both sums."""
    sums = data.x[:, :steps, 1:].sum(1) @ DIRECTIONS.T
    made: np.ndarray[tuple[int], np.dtype[np.int64]] = 2 * (sums[:, 0] > 0) + (sums[:, 1] > 0)
    return made


def test_who_adds_up_the_drifts_is_as_good_as_can_be() -> None:
    data = DRIFTS
    expected = bayes_accuracy()
    assert expected == pytest.approx(0.929, abs=5e-4)  # by the formula, with a table of the normal distribution
    accuracy = (guesses(data, LONGEST) == data.y).mean()
    assert abs(accuracy - expected) < 4 * math.sqrt(expected * (1 - expected) / len(data.y))


def test_strong_drifts_are_settled_early_and_weak_ones_are_not() -> None:
    data = DRIFTS
    strength = np.array(STRENGTHS)[np.arange(len(data.y)) // 4 % 3]
    for s in STRENGTHS:
        for steps in (2, 6, 12):
            rows, chance = strength == s, right(s, steps)
            accuracy = (guesses(data, steps) == data.y)[rows].mean()
            assert abs(accuracy - chance) < 4 * math.sqrt(chance * (1 - chance) / rows.sum()) + 1e-9
    # Φ(1.2 √5)² = Φ(2.683)² = 0.99635²; Φ(0.3 √24)² = Φ(1.470)² = 0.92922²
    assert right(1.2, 5) == pytest.approx(0.9927, abs=2e-4)
    assert right(0.3, 24) == pytest.approx(0.8634, abs=2e-4)


def test_drifts_have_unequal_lengths() -> None:
    data = DRIFTS
    lengths = data.x[..., 0].sum(1)
    assert set(lengths.tolist()) == set(range(SHORTEST, LONGEST + 1))
    assert np.bincount(data.y).tolist() == [750] * 4
    assert pytest.approx(np.eye(2)) == DIRECTIONS @ DIRECTIONS.T
