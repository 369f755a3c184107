"""Tokens: features `b x n x (1 + d)`, and the transformer block that images, texts and others share.

Channel 0 of a token is its *mass*: 0 for padding, 1 for a token, `m` for one that stands for `m` of them. Blocks
hand it on as it is. Attention to a token is in proportion to its mass, and so is its weight in a mean: a token without
mass influences nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import AbstractNarrowable, Backbone

QUERIES = ("mean", "class")
_NEXT_TO_NOTHING = 1e-30  # in place of a mass of 0, whose logarithm would make NaN of an input without any token


def log_mass(x: Tensor) -> Tensor:
    """What masses add to the logits of attention: tokens `b x n x (1 + d)` -> `b x 1 x 1 x n`."""
    return x[:, None, None, :, 0].clamp_min(_NEXT_TO_NOTHING).log()


def with_mass(mass: Tensor, values: Tensor) -> Tensor:
    """Tokens `b x n x (1 + d)` of masses `b x n` and values `b x n x d`."""
    return torch.cat([mass[:, :, None], values], 2)


@final
class TransformerBlock(AbstractNarrowable):
    """Attention, then a perceptron for each token, each beside a shortcut and behind a normalisation.

    Args:
        width: numbers of a token, `d`, without its mass.
        heads: of attention; they share the width.
        hidden: units of the perceptron.
        weighted: whether masses differ. Where all are 1 they need no looking at.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; normalisation in front from Xiong et al., "On
        Layer Normalization in the Transformer Architecture", ICML 2020.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, weighted: bool) -> None:
        super().__init__()
        self.heads, self.hidden, self.weighted = heads, hidden, weighted
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)` after the block."""
        return self.perceive(self.attend(x, weighted=self.weighted))

    def attend(self, x: Tensor, *, weighted: bool) -> Tensor:
        """Tokens after attention and before the perceptron."""
        values = x[..., 1:]
        q, k, v = self.projections(values)
        mixed = functional.scaled_dot_product_attention(q, k, v, log_mass(x) if weighted else None)
        return torch.cat([x[..., :1], values + self.join(mixed)], 2)

    def projections(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens `b x n x d`: `b x heads x n x (d / heads)` each."""
        made = self.qkv(self.norm1(values)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = made.unbind(0)
        return q, k, v

    def join(self, mixed: Tensor) -> Tensor:
        """What all heads found, `b x heads x n x (d / heads)`, as an update of tokens `b x n x d`."""
        update: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return update

    def perceive(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Tokens after the perceptron, or after its first `hidden` units."""
        values = x[..., 1:]
        given = self.norm2(values)
        if hidden is None:
            made = self.project(functional.gelu(self.widen(given)))
        else:
            inner = functional.linear(given, self.widen.weight[:hidden], self.widen.bias[:hidden])
            made = functional.linear(functional.gelu(inner), self.project.weight[:, :hidden], self.project.bias)
        return torch.cat([x[..., :1], values + made], 2)

    def narrowed(self, share: float) -> nn.Module:
        """The block with the first `share` of the perceptron's units; statistics of tokens need no copy."""
        return _NarrowTransformerBlock(self, max(1, round(share * self.hidden)))


@final
class _NarrowTransformerBlock(nn.Module):
    """The first units of a block."""

    def __init__(self, block: TransformerBlock, hidden: int) -> None:
        super().__init__()
        self.block = block
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        """Tokens after the block."""
        return self.block.perceive(self.block.attend(x, weighted=self.block.weighted), self.hidden)


@final
class TokenStem(nn.Module):
    """Values of tokens become tokens: positions are added, and for the query `class` a token in front.

    Args:
        embed: inputs -> values `b x n x d` and masses `b x n`.
        tokens: `n`.
        width: `d`.
        query: `mean` or `class`.
    """

    def __init__(self, embed: nn.Module, *, tokens: int, width: int, query: str) -> None:
        super().__init__()
        self.embed = embed
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width)) if query == "class" else None

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)`, or one more."""
        values, mass = self.embed(x)
        values = values + self.positions
        if self.query is not None:
            values = torch.cat([self.query.expand(values.shape[0], -1, -1), values], 1)
            mass = torch.cat([mass.new_ones(mass.shape[0], 1), mass], 1)
        return with_mass(mass, values)


@final
class TokenView(nn.Module):
    """What heads and gates see of tokens: the class token, or the mean of all by their mass, normalised.

    Args:
        query: `mean` or `class`.
    """

    def __init__(self, query: str) -> None:
        super().__init__()
        self.query = query

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)` -> `b x d`."""
        if self.query == "class":
            seen = x[:, 0, 1:]
        else:
            mass = x[..., :1]
            seen = (mass * x[..., 1:]).sum(1) / mass.sum(1).clamp_min(1)
        return functional.layer_norm(seen, seen.shape[1:])


def token_backbone(
    stem: TokenStem, blocks: Sequence[TransformerBlock], *, width: int, query: str, classes: int
) -> Backbone:
    """A backbone of transformer blocks, all in one stage; heads see its query.

    Gates see the mean of all tokens in any case: before the first block a class token knows nothing of its input.
    """
    view = TokenView(query)
    head = nn.Sequential(view, nn.Linear(width, classes))
    peek = view if query == "mean" else TokenView("mean")
    return Backbone(stem=stem, blocks=[*blocks], stages=(len(blocks),), head=head, view=view, peek=peek)
