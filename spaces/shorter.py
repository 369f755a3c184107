"""Shorter rows of tokens: what families that drop or join tokens have in common."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from .backbone import Outline
from .block_family import AbstractBlockChoice, AbstractBlockFamily
from .fork_step import ForkStep, Variant
from .plan import Plan
from .spec import require
from .token_reduction import AbstractReduction, kept_of
from .tokens import TokenView, TransformerBlock

DECIDERS = ("fixed_top_k", "external_budget")


@dataclass(frozen=True)
class AbstractShorteningChoice(AbstractBlockChoice):
    """Before which blocks tokens go, and how many may stay.

    Args:
        blocks: numbers of the blocks, ascending.
        shares: of the tokens that stay before each of these blocks, ascending; the last one is 1. One of them holds for
            all inputs: an external budget.
    """

    shares: tuple[float, ...]

    def check_options(self) -> None:
        """Shares in order; no block before the first."""
        shares, rule = self.shares, "must ascend within (0, 1] and end in 1, two at least"
        fine = len(shares) >= 2 and list(shares) == sorted(set(shares)) and shares[0] > 0 and shares[-1] == 1
        require(fine, "shares", f"{rule}, but got {list(shares)}")
        require(self.blocks[0] >= 1, "blocks.0", "must be 1 or more: before the first block a query knows nothing yet")


@dataclass(frozen=True)
class AbstractShorteningFamily(AbstractBlockFamily):
    """A family that makes rows of tokens shorter, by one of several shares that a knob names.

    Backbones with so few tokens that two shares of a set would leave equally many are not offered it.

    Args:
        placement: before which blocks, of those after the first.
        shares: sets of shares to choose from.
    """

    wing: ClassVar[str] = "spatial"
    switches: ClassVar[str] = "token"
    forks: ClassVar[bool] = True
    fits: ClassVar[str] = "takes tokens and is not the first"

    placement: tuple[str, ...] = ("all", "late")
    shares: tuple[tuple[float, ...], ...] = ((0.5, 0.75, 1.0),)

    @classmethod
    @abc.abstractmethod
    def reduction(cls, choice: AbstractShorteningChoice, block: TransformerBlock, query: str) -> AbstractReduction:
        """What stands before a block."""

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All blocks of a transformer but the first."""
        return [index for index, shape in enumerate(outline.feature_shapes) if index and len(shape) == 2]

    def placements(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        """None, where shares are too close for so few tokens."""
        apart = all(distinct(shares, shape[0]) for shares in self.shares for shape in outline.feature_shapes[:1])
        return super().placements(outline) if apart else {}

    def schemes(self) -> tuple[str, ...]:
        """A fixed number stays, by what may be spent."""
        return DECIDERS

    @classmethod
    def shorten(
        cls, choice: AbstractShorteningChoice, plan: Plan, *, drawn: bool, prepare: Callable[[nn.Module], None] | None
    ) -> None:
        """Fork before the first of the blocks, and put what shortens before each.

        Args:
            choice: where and how far.
            plan: to edit.
            drawn: whether training draws shares.
            prepare: called with every module of the rest where tokens go.
        """
        cls.require_fit(choice, plan.outline)
        tokens, view = plan.outline.before(choice.blocks[0])[0], plan.backbone.view
        require(distinct(choice.shares, tokens), "shares", f"must leave different numbers of {tokens} tokens")
        assert isinstance(view, TokenView)
        variants = [
            Variant(f"keep{share:g}", None, share, prepare=None if share == 1 else _Setting(share, prepare))
            for share in choice.shares
        ]
        plan.insert_after(choice.blocks[0] - 1, ForkStep(variants, gate=None, knob=cls.name, drawn=drawn))
        for block in choice.blocks:
            made = plan.backbone.blocks[block]
            assert isinstance(made, TransformerBlock)
            plan.insert_after(block - 1, cls.reduction(choice, made, view.query))


def distinct(shares: Sequence[float], tokens: int) -> bool:
    """Whether each share leaves another number of so many tokens, and less than all even with one more to stand for
    those that went."""
    kept = [kept_of(tokens, share, "class") for share in shares]
    return len(set(kept)) == len(kept) and all(number + 1 < tokens for number in kept[:-1])


@final
class _Setting:
    """Sets the share of everything that shortens."""

    def __init__(self, share: float, also: Callable[[nn.Module], None] | None) -> None:
        self.share = share
        self.also = also

    def __call__(self, module: nn.Module) -> None:
        if isinstance(module, AbstractReduction):
            module.share = self.share
        if self.also is not None:
            self.also(module)
