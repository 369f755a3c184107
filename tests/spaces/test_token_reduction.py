"""Pruning and merging of tokens, by hand: which stay, what they become, what padding does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.token_reduction import MergeTokens, PruneTokens, kept_of, query_attention
from dynarch.spaces.tokens import TransformerBlock, with_mass

WIDTH = 2


def block() -> TransformerBlock:
    """One head of width 2; keys and queries are the tokens themselves, nothing is normalised."""
    made = TransformerBlock(WIDTH, 1, 4, weighted=True).eval()
    made.norm1 = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        made.qkv.weight.copy_(torch.eye(WIDTH).repeat(3, 1))
        made.qkv.bias.zero_()
    return made


def tokens(*rows: tuple[float, float, float]) -> Tensor:
    """One input; mass and two values a token."""
    return torch.tensor([rows], dtype=torch.float32)


@pytest.mark.parametrize(
    ("count", "share", "query", "kept"),
    [(9, 0.5, "mean", 4), (9, 0.5, "class", 4), (3, 0.1, "mean", 1), (3, 0.1, "class", 2), (1, 0.5, "class", 1)],
)
def test_a_share_is_rounded_down_but_something_stays(count: int, share: float, query: str, kept: int) -> None:
    assert kept_of(count, share, query) == kept


def test_the_query_attends_by_the_formula() -> None:
    x = tokens((1, math.sqrt(2), 0), (1, 1, 5), (2, 2, 0), (0, 9, 0))
    # The class token asks for the first value: logits sqrt(2) * (sqrt(2), 1, 2) / sqrt(2), the third with ln 2 more.
    parts = torch.tensor([math.exp(math.sqrt(2)), math.e, 2 * math.exp(2), 0])
    torch.testing.assert_close(query_attention(block(), x, "class")[0], parts / parts.sum())
    # The mean of all by mass: first values (sqrt(2) + 1 + 4) / 4, second ones 5 / 4.
    a, b = (math.sqrt(2) + 5) / 4 / math.sqrt(2), 5 / 4 / math.sqrt(2)
    parts = torch.tensor([math.exp(a * math.sqrt(2)), math.exp(a + 5 * b), 2 * math.exp(2 * a), 0])
    torch.testing.assert_close(query_attention(block(), x, "mean")[0], parts / parts.sum())


def pruned(x: Tensor, share: float, *, query: str = "class", fuse: bool = False) -> Tensor:
    module = PruneTokens(block(), query, fuse=fuse)
    module.share = share
    return module(x)  # type: ignore[no-any-return]


X = tokens((1, 1, 0), (1, 0, 7), (1, 3, 1), (1, 1, 2), (1, 2, 3))  # the class token attends by the first value


def test_those_stay_that_the_query_attends_to_in_their_order() -> None:
    assert pruned(X, 0.6)[0, :, 1:].tolist() == [[1, 0], [3, 1], [2, 3]]
    assert pruned(X, 0.4)[0, :, 1:].tolist() == [[1, 0], [3, 1]]
    assert torch.equal(pruned(X, 1.0), X)


def test_the_rest_is_fused_by_attention() -> None:
    made = pruned(X, 0.6, fuse=True)
    assert made.shape == (1, 4, 3)
    # Values (0, 7) and (1, 2) in proportion to exp(0) and exp(1 / sqrt(2)).
    share = math.exp(1 / math.sqrt(2)) / (1 + math.exp(1 / math.sqrt(2)))
    assert made[0, 3].tolist() == pytest.approx([1, share, 7 * (1 - share) + 2 * share])


def test_a_class_token_stays_whatever_it_attends_to() -> None:
    x = tokens((1, -1, 0), (1, 2, 0), (1, -3, 0), (1, -2, 1))
    assert pruned(x, 0.5)[0, :, 1].tolist() == [-1, -3]
    assert pruned(x, 0.25, query="mean").shape == (1, 1, 3)


@pytest.mark.parametrize("query", ["class", "mean"])
def test_padding_goes_first(query: str) -> None:
    x = tokens((1, 1, 0), (1, -5, 0), (1, 2, 0), (0, 50, 0), (0, 60, 0))
    made = pruned(x, 0.6, query=query, fuse=True)
    assert made[0, :3].tolist() == x[0, :3].tolist()
    assert made[0, 3].tolist() == [0, 0, 0], "what is fused of nothing is padding"
    short = pruned(x, 0.8, query=query)
    assert short[0, :, 0].tolist() == [1, 1, 1, 0], "presence is handed on"


def merged(x: Tensor, share: float, *, query: str = "mean") -> Tensor:
    module = MergeTokens(block(), query)
    module.share = share
    return module(x)  # type: ignore[no-any-return]


def test_the_nearest_become_one_with_their_match() -> None:
    # Of the tokens 0, 2, 4 the cosines with 1 and 3 are: 0 and 1 (match 3); 1 (match 1) and 0; 0.6 and 0.8 (match 3).
    x = tokens((1, 0, 2), (1, 1, 0), (3, 5, 0), (2, 0, 4), (1, 6, 8))
    one = merged(x, 0.8)  # one goes: 0 or 2 are both as near as can be; the first of them in one sort or another
    assert one.shape == (1, 4, 3)
    two = merged(x, 0.6)
    # 0 joins 3: mass 3, (1 * 2 + 2 * 4) / 3; 2 joins 1: mass 4, (1 * 1 + 3 * 5) / 4; 4 stays, in front.
    assert two[0].tolist() == [[1, 6, 8], pytest.approx([4, 4, 0]), pytest.approx([3, 0, 10 / 3])]
    assert merged(x, 0.1).shape == (1, 2, 3), "no more than every second one can go"
    assert torch.equal(merged(x, 1.0), x)


def test_several_can_join_one() -> None:
    x = tokens((1, 1, 0), (1, 1, 0), (1, 2, 0), (1, 0, 1), (2, 3, 0))
    made = merged(x, 0.4)
    assert made[0].tolist() == [pytest.approx([5, (1 + 1 + 2 + 2 * 3) / 5, 0]), [1, 0, 1]]


def test_sums_of_masses_and_of_weighed_values_stay() -> None:
    torch.manual_seed(0)
    x = with_mass(torch.randint(0, 3, (4, 9)).float(), torch.randn(4, 9, WIDTH))
    for share in (0.9, 0.7, 0.5):
        made = merged(x, share)
        assert made.shape == (4, max(math.floor(share * 9), 4), 3)
        torch.testing.assert_close(made[..., 0].sum(1), x[..., 0].sum(1))
        torch.testing.assert_close((made[..., :1] * made[..., 1:]).sum(1), (x[..., :1] * x[..., 1:]).sum(1))


def test_a_class_token_is_merged_with_nobody() -> None:
    x = tokens((1, 1, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1))
    made = merged(x, 0.5, query="class")
    assert made.shape == (1, 3, 3), "of the tokens 0 and 2 only one can go"
    assert made[0, 0].tolist() == [1, 1, 0]
    assert made[0, 2].tolist() == pytest.approx([2, 0.5, 1])


def test_padding_is_merged_first() -> None:
    x = tokens((1, 1, 0), (1, 1, 0), (0, 0, 9), (1, 0, 1), (1, 0, 1), (0, 5, 5))
    made = merged(x, 0.9)
    assert made[0].tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]]
