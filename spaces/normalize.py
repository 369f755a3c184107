"""Normalisation of raw inputs: part of the network, so exported with it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from .signature import Signature

SMALLEST_STD = 1e-3  # constant channels must not blow up


@final
class Normalize(nn.Module):
    """Brings raw inputs to zero mean and unit variance a channel; ids of texts pass as they are.

    Of sequences only present steps count; presence stays what it is, and padded steps stay all zero.

    Args:
        signature: inputs and classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.kind = signature.kind
        shape = _channel_shape(signature)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """`b x ...`, normalised."""
        if self.kind == "text":
            return x
        made: Tensor = (x - self.mean) / self.std
        return made * x[..., :1] if self.kind == "sequence" else made

    def fit(self, x: Tensor) -> None:
        """Take mean and deviation of raw inputs `n x ...`."""
        if self.kind == "text":
            return
        if self.kind == "sequence":
            steps = x[x[..., 0] > 0]  # m x (1 + c), present ones of all inputs
            mean, std = steps.mean(0), steps.std(0)
            mean[0], std[0] = 0, 1
        else:
            channel = 2 if self.kind == "clip" else 1
            dims = [d for d in range(x.dim()) if d != channel]
            mean, std = x.mean(dims), x.std(dims)
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.clamp_min(SMALLEST_STD).view_as(self.std))


def _channel_shape(signature: Signature) -> tuple[int, ...]:
    """A shape that broadcasts one number a channel over a batch."""
    shape = signature.input_shape
    if signature.kind == "text":
        return (0,)
    if signature.kind == "sequence":
        return (shape[1],)
    if signature.kind == "clip":
        return (shape[1], 1, 1)
    return (shape[0],) + (1,) * (len(shape) - 1)
