"""Signature: what goes into a network and what comes out of it; examples of such inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .errors import ShapeError
from .spec import AbstractSpec, require, require_name

KINDS = ("image", "text", "sequence", "clip")
_DIMENSIONS = {"text": "ids", "sequence": "steps x (1 + channels)", "clip": "frames x channels x height x width"}


@final
@dataclass(frozen=True)
class Signature(AbstractSpec):
    """What goes into a network and what comes out of it.

    All inputs are float32 arrays of one shape. The kind says what they mean:

    - `image`: `channels x height x width`, or whatever else needs no further rule.
    - `text`: `n` ids of words; 0 is padding and stands at the end, the others are below `vocabulary`.
    - `sequence`: `t x (1 + channels)`; channel 0 is 1 where a step is present, and padded steps, at the end, are all 0.
    - `clip`: `frames x channels x height x width`.

    Args:
        input_shape: shape of one input, without the batch.
        classes: number of classes.
        kind: one of `KINDS`.
        vocabulary: number of ids of texts, padding included; None for other kinds.
    """

    input_shape: tuple[int, ...]
    classes: int
    kind: str = "image"
    vocabulary: int | None = None

    def check(self) -> None:
        """Positive sizes, at least two classes, a shape that suits the kind."""
        require(len(self.input_shape) > 0, "input_shape", "must have at least one dimension")
        require(min(self.input_shape) > 0, "input_shape", f"must be positive, but got {self.input_shape}")
        require(self.classes >= 2, "classes", f"must be at least 2, but got {self.classes}")
        require_name("kind", self.kind, KINDS)
        if self.kind in _DIMENSIONS:
            words = _DIMENSIONS[self.kind]
            fits = len(self.input_shape) == words.count(" x ") + 1
            require(fits, "input_shape", f"of a {self.kind} must be {words}, but got {self.input_shape}")
        if self.kind == "sequence":
            rule = "needs the presence and at least one channel a step"
            require(self.input_shape[1] >= 2, "input_shape", f"{rule}, but got {self.input_shape}")
        if self.kind == "text":
            rule = "must count padding, unknown and at least one word, so be 3 or more"
            require(
                self.vocabulary is not None and self.vocabulary >= 3, "vocabulary", f"{rule}, got {self.vocabulary}"
            )
        else:
            require(self.vocabulary is None, "vocabulary", f"is for texts only, but the kind is {self.kind!r}")


def require_kind(signature: Signature, kinds: Sequence[str], name: str) -> None:
    """Raise unless inputs are of one of these kinds.

    Raises:
        ShapeError: naming the backbone, what it takes and what it got.
    """
    if signature.kind not in kinds:
        takes = " or ".join(kinds)
        raise ShapeError(f"{name} takes inputs of kind {takes}, but these are of kind {signature.kind}")


def ramp_input(signature: Signature, like: Tensor) -> Tensor:
    """One full-length input `1 x ...` of ordinary numbers, on the device of `like`.

    Zeros or denormals would flatter or punish the stopwatch; padding would be skipped.
    """
    shape = (1, *signature.input_shape)
    if signature.kind == "text":
        ids = torch.arange(shape[1], device=like.device) % ((signature.vocabulary or 0) - 1) + 1
        return ids.to(like.dtype).unsqueeze(0)
    x = torch.linspace(-1, 1, math.prod(shape), device=like.device, dtype=like.dtype).reshape(shape)
    if signature.kind == "sequence":
        x[..., 0] = 1
    return x


def random_inputs(signature: Signature, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Inputs `count x ...` drawn at random; texts and sequences are of all lengths from 1 on."""
    shape = signature.input_shape
    if signature.kind not in ("text", "sequence"):
        return torch.randn(count, *shape, generator=generator)
    lengths = torch.randint(1, shape[0] + 1, (count, 1), generator=generator)
    present = torch.arange(shape[0]) < lengths  # count x n
    if signature.kind == "text":
        return torch.randint(1, signature.vocabulary or 0, (count, shape[0]), generator=generator) * present.float()
    x = torch.randn(count, *shape, generator=generator)
    x[..., 0] = 1
    return x * present.unsqueeze(2)
