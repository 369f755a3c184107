"""Token merging: tokens that are alike become one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...block_family import dashed
from ...plan import Plan
from ...shorter import AbstractShorteningChoice, AbstractShorteningFamily
from ...spec import AbstractSpec, require
from ...token_reduction import AbstractReduction, MergeTokens
from ...tokens import TransformerBlock

LEAST = 0.5  # every second token can go, and no more


@final
@dataclass(frozen=True)
class TokenMergingChoice(AbstractShorteningChoice):
    """Before which blocks tokens are merged, how far, and whether training does so too.

    Args:
        blocks: numbers of the blocks, ascending from 1.
        shares: of the tokens that are left before each of these blocks, ascending to 1.
        trained: whether tokens are merged in training.
    """

    trained: bool

    def check_options(self) -> None:
        """No share below a half."""
        rule = "must be at least 0.5, as each token is merged with one of the other half"
        require(min(self.shares, default=1.0) >= LEAST, "shares", f"{rule}, but got {list(self.shares)}")
        super().check_options()


@final
@dataclass(frozen=True)
class TokenMerging(AbstractShorteningFamily):
    """Before some blocks the tokens that are most alike become one, with the mass of both; padding goes first.

    Attention to a token is in proportion to its mass, so that nothing need be trained anew: by default networks are
    trained without merging, and the knob `token_merging` names how many tokens are left, for all inputs alike.

    Args:
        placement: before which blocks, of those after the first; to choose from.
        shares: sets of shares of the tokens before a block to choose from, from 0.5 on, that ascend to 1.
        trained: whether training merges tokens too, each input by a share drawn at random; to choose from.

    Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster", ICLR 2023.
    """

    name: ClassVar[str] = "token_merging"
    source: ClassVar[str] = "Bolya et al., ICLR 2023"
    choice_type: ClassVar[type[AbstractSpec]] = TokenMergingChoice
    learning: ClassVar[tuple[str, ...]] = ("trained",)

    trained: tuple[bool, ...] = (False,)

    def cuts(self, outline: Outline) -> Iterator[TokenMergingChoice]:
        """All: rows of other lengths are other segments."""
        return self.cover(outline)

    @classmethod
    def reduction(cls, choice: AbstractShorteningChoice, block: TransformerBlock, query: str) -> AbstractReduction:
        """By the keys of that block."""
        return MergeTokens(block, query)

    @classmethod
    def apply(cls, choice: TokenMergingChoice, plan: Plan) -> None:
        """Fork, merge before each block, and let blocks look at masses from then on."""
        cls.shorten(choice, plan, drawn=choice.trained, prepare=_weigh)

    @classmethod
    def describe(cls, choice: TokenMergingChoice) -> str:
        """Such as `merges to 0.5-0.75-1 tokens before 1,3`."""
        trained = " in training too" if choice.trained else ""
        return f"merges to {dashed(choice.shares)} tokens before {choice.places}{trained}"


def _weigh(module: nn.Module) -> None:
    if isinstance(module, TransformerBlock):
        module.weighted = True
