"""Sizes: the smallest images that an adopted model still answers as the model itself does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .calls import plain
from .tape import Piece

SHARES = (0.75, 0.5, 0.25)  # of the sides, tried in turn


@torch.no_grad()
def least_side(model: nn.Module, pieces: Sequence[nn.Module], example: Tensor) -> int | None:
    """The least side of images at which the chain gives what the model gives; None: images of one shape only.

    Sizes that the trace took for constants, such as that of a last pooling, make the two differ or fail.

    Args:
        model: in evaluation mode.
        pieces: stem, blocks and head.
        example: inputs of the whole size.
    """
    if example.dim() != 4 or not example.is_floating_point():
        return None
    found = None
    for share in SHARES:
        height, width = (max(1, round(share * side)) for side in example.shape[2:])
        x = functional.interpolate(example, (height, width))
        try:
            expected, made = model(x), x
            for piece in pieces:
                made = piece(made)
        except Exception:  # whatever layers say of images that they cannot take
            return found
        if not isinstance(expected, Tensor) or not torch.equal(made, expected):
            return found
        found = min(height, width)
    return found


def resizable(pieces: Sequence[Piece]) -> bool:
    """Whether normalisation has statistics of its own for each size: it is a layer, and not a function."""
    steps = [step for piece in pieces for step in piece["steps"]]
    return not any(step[0] == "call" and plain(step[1]) in ("batch_norm", "instance_norm") for step in steps)
