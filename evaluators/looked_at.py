"""Looked at: which part of an input a routed network looked at, and what it ran for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..spaces import chain
from ..spaces.look_step import LookStep
from ..spaces.network import DynamicNetwork
from ..spaces.packed import ReadChunk
from ..spaces.policy import Policy
from ..spaces.step import AbstractStep
from ..spaces.tile_step import TileStep
from ..spaces.token_reduction import MergeTokens, PruneTokens
from ..spaces.trace import Recorder

What = Literal["tiles", "tokens", "merged", "patches", "steps", "everything"]


@final
@dataclass(frozen=True, eq=False)
class LookedAt:
    """One input in routed mode.

    Args:
        exit_taken: where it left.
        ran: part -> how often it ran.
        what: that the mask is made of.
        mask: of images `h x w`, of everything else `t` steps (words, frames): 1 where the network looked, 0 where not;
            between them, the share of the blocks that looked of those that could choose, or one over the number of
            those that share a token.
    """

    exit_taken: int
    ran: Mapping[str, float]
    what: What
    mask: NDArray[np.float64]


def looked_at(network: DynamicNetwork, x: Tensor, policy: Policy) -> LookedAt:
    """Route one input, `1 x ...`, and see.

    Raises:
        ShapeError, SpecError: as `route`.
    """
    recorder = Recorder(1)
    with _tokens_watched(network) as kept:
        routed = network.route(x, policy, recorder)
    ran = recorder.totals()
    what, mask = _mask(network, recorder, ran, kept)
    return LookedAt(int(routed.exit_taken[0]), ran, what, mask)


def masks_of(network: DynamicNetwork) -> What:
    """What this network may leave out of an input."""
    steps = [step for _, step in chain.walk(_steps(network))]
    if any(isinstance(step, TileStep) for step in steps):
        return "tiles"
    if any(isinstance(module, PruneTokens) for module in network.modules()):
        return "tokens"
    if any(isinstance(module, MergeTokens) for module in network.modules()):
        return "merged"
    if any(isinstance(step, LookStep) for step in steps):
        return "patches"
    return "steps" if any(_chunks(step) for step in steps) else "everything"


def _mask(
    network: DynamicNetwork, recorder: Recorder, ran: Mapping[str, float], kept: list[NDArray[np.int64]]
) -> tuple[What, NDArray[np.float64]]:
    shape, what = network.signature.input_shape, masks_of(network)
    if what == "steps":
        return what, _steps_read(network, ran, shape[0])
    size = (shape[-2], shape[-1]) if network.signature.kind == "image" and len(shape) == 3 else (shape[0], 1)
    shown = [grid.numpy().astype(np.float64) for grid in recorder.shown.values()]
    if what == "tiles" and shown:
        mask: NDArray[np.float64] = np.stack([_stretched(grid, size) for grid in shown]).mean(axis=0)
        return what, mask
    if what == "patches":
        return what, _patches(network, shown[-1], size) if shown else np.zeros(size)
    if what == "tokens" and kept:
        return what, _tokens(network, np.bincount(kept[-1], minlength=_count(network, size)), size)
    if what == "merged" and kept:
        shared = np.bincount(kept[-1])[kept[-1]]
        return what, _tokens(network, 1 / shared, size)
    return ("everything" if what == "tiles" else what), np.ones(size if size[1] > 1 else size[0])


def _steps(network: DynamicNetwork) -> Sequence[AbstractStep]:
    return network.steps  # type: ignore[return-value]


def _stretched(grid: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """A grid of tiles `1 x r x c` over an image: tiles at the lower and right border may stick out of the features."""
    rows, columns = grid.shape[1:]
    places = [
        np.minimum(np.arange(pixels) * cells // pixels, cells - 1)
        for pixels, cells in zip(size, (rows, columns), strict=True)
    ]
    made: NDArray[np.float64] = grid[0][np.ix_(*places)]
    return made


def _patches(network: DynamicNetwork, seen: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """The pixels of the places that were looked at."""
    look = next(step.look for _, step in chain.walk(_steps(network)) if isinstance(step, LookStep))
    mask = np.zeros(size[0] * size[1])
    for place in np.flatnonzero(seen[0] > 0):
        mask[look.patches.cells[int(place)].numpy()] = 1
    return mask.reshape(size)


def _count(network: DynamicNetwork, size: tuple[int, int]) -> int:
    """How many tokens an input is."""
    rows, columns = _squares(network, size)
    return rows * columns


def _squares(network: DynamicNetwork, size: tuple[int, int]) -> tuple[int, int]:
    patch = 1 if size[1] == 1 else int(network.architecture.backbone["patch"])
    return -(-size[0] // patch), -(-size[1] // patch)


def _tokens(network: DynamicNetwork, values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """The value of each token on its square, or its word."""
    if size[1] == 1:
        return values.astype(np.float64)
    patch = int(network.architecture.backbone["patch"])
    grid = values.astype(np.float64).reshape(_squares(network, size))
    mask: NDArray[np.float64] = np.repeat(np.repeat(grid, patch, axis=0), patch, axis=1)
    return mask[: size[0], : size[1]]


def _chunks(step: AbstractStep) -> dict[str, list[ReadChunk]]:
    """Part -> the chunks of the input that it reads."""
    found = {part: [m for m in module.modules() if isinstance(m, ReadChunk)] for part, module in step.watched().items()}
    return {part: chunks for part, chunks in found.items() if chunks}


def _steps_read(network: DynamicNetwork, ran: Mapping[str, float], total: int) -> NDArray[np.float64]:
    """Of each step of the input, whether a part that reads it ran; of several ways to read a chunk one is enough."""
    mask, start = np.zeros(total), 0
    for step in _steps(network):
        parts = _chunks(step)
        if not parts:
            continue
        longest = max(sum(chunk.steps for chunk in chunks) for chunks in parts.values())
        mask[start : start + longest] = any(ran.get(part, 0) > 0 for part in parts)
        start += longest
    return mask


@contextmanager
def _tokens_watched(network: DynamicNetwork) -> Iterator[list[NDArray[np.int64]]]:
    """Collects, each time that tokens become fewer, a class token not counted: where they are dropped, the numbers of
    those that are left; where they are merged, the number of the token that each one is in."""
    left: list[NDArray[np.int64]] = []

    def pruned(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        assert isinstance(module, PruneTokens)
        ahead = int(module.query == "class")
        before, after = given[0][0, ahead:], made[0, ahead:]
        numbers = left[-1] if left else np.arange(len(before))
        # Those that stay do so unchanged and in their order; one that stands for the dropped is like none of them.
        same = (before[:, None] == after[None]).all(2).any(1).numpy()
        left.append(numbers[np.flatnonzero(same[: len(numbers)])])

    def merged(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        assert isinstance(module, MergeTokens)
        ahead = int(module.query == "class")
        groups = module.groups(given[0])[0, ahead:].numpy() - ahead  # a class token stays the first
        left.append(groups[left[-1]] if left else groups)

    hooks = [m.register_forward_hook(pruned) for m in network.modules() if isinstance(m, PruneTokens)]
    hooks += [m.register_forward_hook(merged) for m in network.modules() if isinstance(m, MergeTokens)]
    try:
        yield left
    finally:
        for hook in hooks:
            hook.remove()
