"""Dynamic ReLU: an activation whose slopes depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily, channelled
from ...gate import Pool
from ...plan import Plan
from ...spec import AbstractSpec

REDUCTION = 4
LEAST = 8  # hidden units: a pair of them dies too easily
SLOPE, INTERCEPT = 1.0, 0.5  # how far slopes and intercepts may move from those of a ReLU


@final
@dataclass(frozen=True)
class DynamicReluChoice(AbstractBlockChoice):
    """After which blocks the activation stands."""

    def check_options(self) -> None:
        """There are none."""


@final
class DynamicActivation(nn.Module):
    """The larger of two lines a channel, whose slopes and intercepts follow from the features; `b x c x h x w`."""

    start: Tensor
    span: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(LEAST, channels // REDUCTION)
        self.lines = nn.Sequential(
            Pool(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 4 * channels), nn.Sigmoid()
        )
        # Slopes of the two lines, then their intercepts: at rest max(x, 0).
        self.register_buffer("start", torch.tensor([1.0, 0.0, 0.0, 0.0]), persistent=False)
        self.register_buffer("span", torch.tensor([SLOPE, SLOPE, INTERCEPT, INTERCEPT]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features, activated."""
        moved = 2 * self.lines(x).view(-1, x.shape[1], 4) - 1
        a = (self.start + self.span * moved)[:, :, :, None, None]  # b x c x 4 x 1 x 1
        return torch.maximum(x * a[:, :, 0] + a[:, :, 2], x * a[:, :, 1] + a[:, :, 3])


@final
@dataclass(frozen=True)
class DynamicRelu(AbstractBlockFamily):
    """An activation after a block whose shape each input sets for itself.

    Nothing is skipped: the network represents more for little more work.

    Args:
        placement: after which blocks; to choose from.

    Source: Chen, Dai, Liu, Chen, Yuan, Liu, "Dynamic ReLU", ECCV 2020.
    """

    name: ClassVar[str] = "dynamic_relu"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "activation"
    source: ClassVar[str] = "Chen et al., ECCV 2020"
    choice_type: ClassVar[type[AbstractSpec]] = DynamicReluChoice
    fits: ClassVar[str] = "has channels and two sides"

    placement: tuple[str, ...] = ("all", "late")

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Blocks with channels."""
        return channelled(outline)

    def schemes(self) -> tuple[str, ...]:
        """A hyper-function of the pooled features."""
        return ("hyper-function",)

    @classmethod
    def apply(cls, choice: DynamicReluChoice, plan: Plan) -> None:
        """Put it behind each block, and behind what decides about that block."""
        cls.require_fit(choice, plan.outline)
        for block in choice.blocks:
            plan.insert_after(block, DynamicActivation(plan.outline.feature_shapes[block][0]))

    @classmethod
    def describe(cls, choice: DynamicReluChoice) -> str:
        """Such as `dynamic relu at 0,1,2`."""
        return f"dynamic relu at {choice.places}"
