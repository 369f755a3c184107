"""Token pruning: what the network's query does not attend to goes no further."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from ...backbone import Outline
from ...block_family import dashed
from ...plan import Plan
from ...shorter import AbstractShorteningChoice, AbstractShorteningFamily
from ...spec import AbstractSpec
from ...token_reduction import AbstractReduction, PruneTokens
from ...tokens import TransformerBlock


@final
@dataclass(frozen=True)
class TokenPruningChoice(AbstractShorteningChoice):
    """Before which blocks tokens are pruned, how far, and what becomes of them.

    Args:
        blocks: numbers of the blocks, ascending from 1.
        shares: of the tokens that stay before each of these blocks, ascending to 1.
        fuse: whether the mean of those that go, weighted by attention, stays as one more.
    """

    fuse: bool


@final
@dataclass(frozen=True)
class TokenPruning(AbstractShorteningFamily):
    """Before some blocks only the share of tokens stays that the query attends to most; padding goes first.

    Class tokens always stay. Of a set of shares, the knob `token_pruning` names the one that holds for all inputs, by
    what may be spent; in training each input takes one at random, so that one network has all these operating points.
    Nothing is added that would have to learn: the next block's own attention says what matters.

    Args:
        placement: before which blocks, of those after the first; to choose from.
        shares: sets of shares of the tokens before a block to choose from, that ascend to 1.
        fuse: whether what goes is fused into one more token; to choose from.

    Source: Liang, Ge, Tong, Song, Wang, Xie, "Not All Patches are What You Need: Expediting Vision Transformers via
        Token Reorganizations", ICLR 2022; Rao, Zhao, Liu, Lu, Zhou, Hsieh, "DynamicViT: Efficient Vision Transformers
        with Dynamic Token Sparsification", NeurIPS 2021 (shares at several depths).
    """

    name: ClassVar[str] = "token_pruning"
    source: ClassVar[str] = "Liang et al., ICLR 2022"
    choice_type: ClassVar[type[AbstractSpec]] = TokenPruningChoice

    fuse: tuple[bool, ...] = (False, True)

    def cuts(self, outline: Outline) -> Iterator[TokenPruningChoice]:
        """All: rows of other lengths are other segments."""
        return self.cover(outline)

    @classmethod
    def reduction(cls, choice: AbstractShorteningChoice, block: TransformerBlock, query: str) -> AbstractReduction:
        """By the attention of that block."""
        assert isinstance(choice, TokenPruningChoice)
        return PruneTokens(block, query, fuse=choice.fuse)

    @classmethod
    def apply(cls, choice: TokenPruningChoice, plan: Plan) -> None:
        """Fork, and prune before each block."""
        cls.shorten(choice, plan, drawn=True, prepare=None)

    @classmethod
    def describe(cls, choice: TokenPruningChoice) -> str:
        """Such as `keeps 0.5-0.75-1 tokens before 1,3, fused`."""
        return f"keeps {dashed(choice.shares)} tokens before {choice.places}{', fused' if choice.fuse else ''}"
