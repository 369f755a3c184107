"""The contract of decision schemes, as a test suite; imports pytest, so no facade may import it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ..decision import AbstractDecision
from ..exit_step import judge
from ..probes import check_gradients

Scored = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class DecisionContract:
    """What every decision scheme keeps to; the fixture `decision` supplies one."""

    @pytest.fixture
    def exits(self) -> list[Tensor]:
        """Logits `64 x 5` of four exits, tried one after the other."""
        g = torch.Generator().manual_seed(0)
        return [2 * torch.randn(64, 5, generator=g) for _ in range(4)]

    @pytest.fixture
    def learned(self, decision: AbstractDecision) -> nn.Module | None:
        """What the scheme learns of an exit, somewhere on its way; None if it learns nothing."""
        made = decision.build(5)
        g = torch.Generator().manual_seed(1)
        for weight in () if made is None else made.parameters():
            weight.data += 0.3 * torch.randn(weight.shape, generator=g)
        return made

    @pytest.fixture
    def scored(self, decision: AbstractDecision, learned: nn.Module | None) -> Scored:
        """The scheme with what it learned."""
        return lambda logits, state: decision.score(logits, state, learned)

    def test_says_what_it_is(self, decision: AbstractDecision) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", decision.name)
        assert re.search(r"\d{4}", decision.source), "a source has a year"
        assert getattr(type(decision), "__final__", False), "concrete classes are final"

    def test_what_is_learned_is_a_probability_and_can_be_learned(
        self, decision: AbstractDecision, learned: nn.Module | None, scored: Scored, exits: list[Tensor]
    ) -> None:
        assert (learned is not None) == decision.learns
        if learned is not None:
            score, _ = scored(exits[0], None)
            assert bool(((score >= 0) & (score <= 1)).all())
            check_gradients([], learned, scores=[score])

    def test_one_finite_score_an_input(self, decision: AbstractDecision, scored: Scored, exits: list[Tensor]) -> None:
        state = None
        for logits in exits:
            score, state = scored(logits, state)
            assert score.shape == (64,)
            assert bool(torch.isfinite(score).all())
            assert (state is not None) == decision.remembers
            assert state is None or state.shape[0] == 64, "one row for each input"

    def test_rows_stay_apart(self, scored: Scored, exits: list[Tensor]) -> None:
        """Compaction keeps some rows of logits and state; what it keeps must score as before."""
        state, kept, rows = None, None, torch.arange(64)
        for logits in exits:
            whole, state = scored(logits, state)
            score, kept = scored(logits[rows], kept)
            # Matrix products of few rows may end in other last bits than those of many.
            torch.testing.assert_close(score, whole[rows], rtol=1e-5, atol=1e-6)
            stay = torch.arange(1, len(rows), 2)  # every second one leaves
            rows, kept = rows[stay], None if kept is None else kept[stay]

    def test_one_input_is_judged_like_many(
        self, decision: AbstractDecision, learned: nn.Module | None, scored: Scored, exits: list[Tensor]
    ) -> None:
        threshold = float(scored(exits[0], None)[0].detach().median()) + 1e-3
        many, _ = judge(decision, exits[0], None, threshold, learned)
        assert isinstance(many, Tensor)
        alone = [judge(decision, row, None, threshold, learned)[0] for row in torch.split(exits[0], 1)]
        assert alone == many.tolist()

    def test_scores_do_not_depend_on_a_common_offset(self, scored: Scored, exits: list[Tensor]) -> None:
        torch.testing.assert_close(scored(exits[0] + 3, None)[0], scored(exits[0], None)[0], rtol=0, atol=1e-5)

    def test_sharper_answers_never_score_less(self, scored: Scored, exits: list[Tensor]) -> None:
        assert bool((scored(2 * exits[0], None)[0] >= scored(exits[0], None)[0] - 1e-6).all())
