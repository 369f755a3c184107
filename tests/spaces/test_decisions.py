from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dynarch.spaces.decision import AbstractDecision
from dynarch.spaces.decisions import DECISIONS, Entropy, Margin, MaxProbability, Patience, decision
from dynarch.spaces.errors import UnknownNameError
from dynarch.spaces.exit_step import judge
from dynarch.tests import oracles


def one_hot(classes: list[int], of: int = 4) -> Tensor:
    """Logits whose largest entry is the class given."""
    return functional.one_hot(torch.tensor(classes), of).float()


@pytest.mark.parametrize("scheme", DECISIONS, ids=lambda scheme: scheme.name)
def test_scores_by_hand(scheme: AbstractDecision) -> None:
    rows = torch.stack([torch.tensor(oracles.PROBABILITIES).log(), torch.full((4,), 7.0), 200 * one_hot([2])[0]])
    expected = [table[scheme.name] for table in (oracles.SCORES, oracles.UNIFORM_SCORES, oracles.CERTAIN_SCORES)]
    assert scheme.score(rows, None, scheme.build(4))[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_two_classes_and_many() -> None:
    assert MaxProbability().score(torch.tensor([[0.0, math.log(3)]]), None)[0].item() == pytest.approx(3 / 4)
    assert Margin().score(torch.tensor([[0.0, math.log(3)]]), None)[0].item() == pytest.approx(1 / 2)
    # Two of 16 classes with probability 1/2 each (the others less than e^-80): 1 bit of 4.
    rows = torch.full((1, 16), -80.0)
    rows[0, 3] = rows[0, 9] = 0
    assert Entropy().score(rows, None)[0].item() == pytest.approx(3 / 4)


def test_patience_counts_runs_of_equal_answers() -> None:
    # One row an input, one column an exit.
    answers = [[1, 1, 1, 1], [0, 1, 1, 2], [3, 3, 0, 0], [2, 0, 2, 0]]
    runs = [[1, 2, 3, 4], [1, 1, 2, 1], [1, 2, 1, 2], [1, 1, 1, 1]]
    state = None
    for exit_index in range(4):
        score, state = Patience().score(one_hot([row[exit_index] for row in answers]), state)
        assert score.tolist() == [float(row[exit_index]) for row in runs]


def test_patience_of_those_who_stay_is_kept_by_compaction() -> None:
    _, state = Patience().score(one_hot([0, 1, 2, 3]), None)
    assert state is not None
    stay = torch.tensor([1, 3])
    score, state = Patience().score(one_hot([1, 0]), state[stay])
    assert score.tolist() == [2.0, 1.0]
    assert state is not None
    assert state.tolist() == [[1.0, 2.0], [0.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_patience_tells_many_classes_apart(dtype: torch.dtype) -> None:
    # bfloat16 has 8 significant bits: 256 and 257 would be one number, as 2048 and 2049 in float16.
    for first, second in ((256, 257), (2048, 2049), (50_000, 50_001)):
        logits = torch.zeros(2, 50_002, dtype=dtype)
        logits[0, first] = logits[1, second] = 1
        _, state = Patience().score(logits, None)
        score, _ = Patience().score(logits.flip(0), state)
        assert score.tolist() == [1.0, 1.0], (first, second)
        score, _ = Patience().score(logits, state)
        assert score.tolist() == [2.0, 2.0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_patience_is_the_length_of_the_last_run(answers: list[int]) -> None:
    state = None
    for number, answer in enumerate(answers, start=1):
        score, state = Patience().score(one_hot([answer]), state)
        different = [index for index in range(number) if answers[index] != answer]
        assert score.item() == number - 1 - max(different, default=-1)


@pytest.mark.parametrize("scheme", DECISIONS, ids=lambda scheme: scheme.name)
def test_leaving_needs_more_than_the_threshold(scheme: AbstractDecision) -> None:
    logits = one_hot([1, 1])
    learned = scheme.build(4)
    score = scheme.score(logits, None, learned)[0][0].item()
    assert judge(scheme, logits[:1], None, score, learned)[0] is False
    assert judge(scheme, logits[:1], None, score - 1e-3, learned)[0] is True
    many, _ = judge(scheme, logits, None, score, learned)
    assert isinstance(many, Tensor)
    assert many.tolist() == [False, False]


def test_unknown_scheme_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'entropy'") as caught:
        decision("entropie", "policy.decision")
    assert caught.value.path == "policy.decision"
    assert all(decision(scheme.name) is scheme for scheme in DECISIONS)
