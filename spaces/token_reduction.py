"""Token reduction: modules between transformer blocks that hand on fewer tokens than they get."""

from __future__ import annotations

import abc
import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tokens import TransformerBlock, log_mass, with_mass

_CERTAIN = 2.0  # above every probability and every cosine
_TINY = 1e-12


def kept_of(tokens: int, share: float, query: str) -> int:
    """How many of so many tokens a share of them is: at least one, and one beside a class token."""
    return min(tokens, max(1 + (query == "class"), math.floor(share * tokens)))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Tokens `b x k x d` with these numbers, `b x k`, of `b x n x d`."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def query_attention(block: TransformerBlock, x: Tensor, query: str) -> Tensor:
    """How much the query of a network attends to each token in a block: `b x n`, the mean over heads; it adds up to 1.

    Args:
        block: that the tokens are about to go through.
        x: tokens `b x n x (1 + d)`.
        query: `class`, the token in front; `mean`, the mean of all tokens' queries by their mass.
    """
    given = block.norm1(x[..., 1:])
    width = given.shape[2]
    weight, bias = block.qkv.weight, block.qkv.bias
    if query == "class":
        asking = given[:, 0]
    else:
        mass = x[..., :1]
        asking = (mass * given).sum(1) / mass.sum(1).clamp_min(1)
    q = functional.linear(asking, weight[:width], bias[:width]).view(x.shape[0], block.heads, 1, -1)
    keys = functional.linear(given, weight[width : 2 * width], bias[width : 2 * width])
    k = keys.view(*keys.shape[:2], block.heads, -1).permute(0, 2, 3, 1)  # b x heads x d x n
    logits = q @ k / math.sqrt(width // block.heads) + log_mass(x)
    attended: Tensor = logits.softmax(3).mean((1, 2))
    return attended


class AbstractReduction(nn.Module, abc.ABC):
    """Hands on a share of the tokens that it gets.

    Args:
        block: that the tokens are about to go through; its weights say what matters.
        query: what the network classifies: `mean`, or `class` for the token in front.

    `share` is 1 until a variant of the network sets it.
    """

    def __init__(self, block: TransformerBlock, query: str) -> None:
        super().__init__()
        self.block = block
        self.query = query
        self.share = 1.0

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)` -> `b x k x (1 + d)`."""


@final
class PruneTokens(AbstractReduction):
    """Keeps the share of the tokens that the query attends to most, in their order; a class token always stays.

    Args:
        block: that the tokens are about to go through; its weights say who attends to whom.
        query: as in `query_attention`.
        fuse: whether the mean of what is dropped, weighted by attention, goes on as one more token.

    Source: Liang, Ge, Tong, Song, Wang, Xie, "Not All Patches are What You Need: Expediting Vision Transformers via
        Token Reorganizations", ICLR 2022.
    """

    def __init__(self, block: TransformerBlock, query: str, *, fuse: bool) -> None:
        super().__init__(block, query)
        self.fuse = fuse

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)` -> `b x k x (1 + d)`, one more if they are fused."""
        kept = kept_of(x.shape[1], self.share, self.query)
        if kept == x.shape[1]:
            return x
        score = query_attention(self.block, x.detach(), self.query) * (x[..., 0] > 0)  # padding goes first
        if self.query == "class":
            score = torch.cat([torch.full_like(score[:, :1], _CERTAIN), score[:, 1:]], 1)
        order = score.argsort(1, descending=True)
        stay = _rows(x, order[:, :kept].sort(1).values)
        if not self.fuse:
            return stay
        rest = order[:, kept:]
        weight, left = score.gather(1, rest)[:, :, None], _rows(x, rest)
        mean = (weight * left[..., 1:]).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(_TINY)
        return torch.cat([stay, with_mass(left[..., 0].amax(1, keepdim=True), mean)], 1)


@final
class MergeTokens(AbstractReduction):
    """Merges the tokens that are most alike, two by two or more, so that a share of them is left.

    Every second token is compared with the others by the cosine of their keys; those that are nearest to their match
    become one with it: the mean of values by mass, the sum of masses. A class token is merged with nobody, and padding
    goes first. At most every second token can go.

    Args:
        block: that the tokens are about to go through; its weights make the keys.
        query: `class` if there is a class token.

    Source: Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster", ICLR 2023.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b x n x (1 + d)` -> `b x k x (1 + d)`."""
        parted = self._parted(x)
        if parted is None:
            return x
        match, leaving, staying = parted
        mass, weighed = x[..., :1], x[..., :1] * x[..., 1:]
        heavy = torch.cat([mass, weighed], 2)  # sums of these are masses and weighed values of merged tokens
        target = match.gather(1, leaving)[:, :, None].expand(-1, -1, heavy.shape[2])
        joined = heavy[:, 1::2].scatter_add(1, target, _rows(heavy[:, ::2], leaving))
        made = torch.cat([_rows(heavy[:, ::2], staying), joined], 1)
        return torch.cat([made[..., :1], made[..., 1:] / made[..., :1].clamp_min(_TINY)], 2)

    def groups(self, x: Tensor) -> Tensor:
        """The number that each token has afterwards, `b x n`; those that become one have the same."""
        parted = self._parted(x)
        numbers = torch.arange(x.shape[1]).repeat(len(x), 1)
        if parted is None:
            return numbers
        match, leaving, staying = parted
        kept = staying.shape[1]
        numbers[:, 1::2] = kept + torch.arange(x.shape[1] // 2)
        numbers[:, ::2].scatter_(1, staying, torch.arange(kept).repeat(len(x), 1))
        numbers[:, ::2].scatter_(1, leaving, kept + match.gather(1, leaving))
        return numbers

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Of every second token: its match, which of them leave, which stay; None if all stay."""
        count = x.shape[1]
        gone = min(count - kept_of(count, self.share, self.query), (count + 1) // 2 - (self.query == "class"))
        if gone <= 0:
            return None
        match, nearness = self._matches(x.detach())
        order = nearness.argsort(1, descending=True)
        return match, order[:, :gone], order[:, gone:].sort(1).values

    def _matches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of every second token, from the first on, the number of its match among the others and how near that is."""
        width = x.shape[2] - 1
        weight, bias = self.block.qkv.weight, self.block.qkv.bias
        given = self.block.norm1(x[..., 1:])
        keys = functional.linear(given, weight[width : 2 * width], bias[width : 2 * width])
        unit = functional.normalize(keys.view(*keys.shape[:2], self.block.heads, -1).mean(2), dim=2)
        nearness, match = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)
        nearness = nearness.masked_fill(x[:, ::2, 0] == 0, _CERTAIN)
        if self.query == "class":
            nearness = torch.cat([torch.full_like(nearness[:, :1], -_CERTAIN), nearness[:, 1:]], 1)
        return match, nearness
