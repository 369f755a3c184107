"""Slowdown: inputs changed a little so that a network does as much work on them as it can be made to.

Whoever lets strangers send inputs should know what latency they can force. The inputs of a split are moved within a
small box, up the gradient of uncertainty at the exits and of the margins by which gates prefer the dearer branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from ..spaces.errors import SpecError
from ..spaces.network import DynamicNetwork
from ..spaces.signature import Signature

_BATCH: Final = 128
_OVERSHOOT: Final = 2.5  # the way that all steps together could go, in radii: corners are reached and left again


def slowed(
    network: DynamicNetwork,
    x: Tensor,
    *,
    epsilon: float,
    seed: int,
    steps: int = 10,
    setting: Mapping[str, float] | None = None,
) -> Tensor:
    """Inputs `n x ...` that differ from `x` by at most `epsilon` in every number, and cost as much as can be found.

    They stay within the range of numbers of `x`; the padding of sequences, and that their steps are present, is left
    alone. Steps are projected and of a fixed size, in the direction of the gradient's sign, from a random start.

    Args:
        network: in evaluation mode; no weight and no gradient of a weight is touched.
        epsilon: radius of the box in units of the raw inputs.
        seed: of the random start.
        steps: gradient steps.
        setting: of the knobs, absent ones at 0.

    Raises:
        SpecError: if the inputs are ids of words, or the radius is not positive.

    Source: Hong et al., "A Panda? No, It's a Sloth: Slowdown Attacks on Adaptive Multi-Exit Neural Network Inference",
        ICLR 2021; for gates Haque, Chauhan, Liu, Yang, "ILFO: Adversarial Attack on Adaptive Neural Networks", CVPR
        2020.
    """
    if network.signature.kind == "text":
        raise SpecError("epsilon", "is a distance, and ids of words have none; attack images, sequences or clips")
    if epsilon <= 0:
        raise SpecError(
            "epsilon", f"must be above 0, but got {epsilon:g}; 0.03 of the range is hardly seen in an image"
        )
    generator = torch.Generator().manual_seed(seed)
    low, high = float(x.min()), float(x.max())
    found = []
    for clean in torch.split(x, _BATCH):
        free = _free(clean, network.signature)
        moved = clean + epsilon * free * (2 * torch.rand(clean.shape, generator=generator) - 1)
        for _ in range(steps):
            up = _gradient(network, moved.clamp(low, high), setting or {}).sign()
            moved = moved.clamp(low, high) + _OVERSHOOT * epsilon / steps * free * up
            moved = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon)
        found.append(moved.clamp(low, high))
    return torch.cat(found)


def _free(x: Tensor, signature: Signature) -> Tensor:
    """1 for numbers that may be changed."""
    if signature.kind != "sequence":
        return torch.ones_like(x)
    free = x[..., :1].expand_as(x).clone()  # only steps that are present,
    free[..., 0] = 0  # and not that they are
    return free


def _gradient(network: DynamicNetwork, x: Tensor, setting: Mapping[str, float]) -> Tensor:
    """Of the work that is hoped for, with respect to the inputs."""
    moving = x.detach().requires_grad_()
    with torch.enable_grad():
        run = network.simulate(moving, setting=setting)
        doubt = moving.sum() * 0
        for logits in run.logits[:-1]:  # nobody leaves where all classes are equally likely
            doubt = doubt + logits.log_softmax(1).mean(1).sum()
        for margin in (each for gaps in run.margins.values() for each in gaps):
            doubt = doubt - functional.softplus(-margin).sum()
        for learned in (each for scores in run.scores.values() for each in scores):
            doubt = doubt - learned.sum()
        (found,) = torch.autograd.grad(doubt, moving)
    return found
