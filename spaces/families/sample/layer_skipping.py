"""Layer skipping: residual blocks run only for inputs that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import nn

from ...backbone import Outline
from ...block_family import AbstractBlockChoice, AbstractGatedFamily
from ...choice_step import Branch
from ...gated import put_choices
from ...gating import GatingChoice
from ...plan import Plan
from ...resource import Resource, ResourceChoice
from ...spec import AbstractSpec


@final
@dataclass(frozen=True)
class LayerSkippingChoice(AbstractBlockChoice):
    """Which blocks may be skipped, who decides, and how much may be spent.

    Args:
        gating: who decides.
        target: what training charges for.
    """

    gating: GatingChoice
    target: ResourceChoice

    def check_options(self) -> None:
        """Both check themselves."""


@final
@dataclass(frozen=True)
class LayerSkipping(AbstractGatedFamily):
    """A gate before a residual block runs it or hands its inputs on.

    Args:
        placement: which of the blocks that keep the shape of their features may be skipped; to choose from.
        gating: kinds of gate (a gate a block, a recurrent one, a policy network that decides all at once, a halting
            score) and gradient estimators.
        target: what training charges for.

    The knob `layer_skipping` moves all gates at run time: one trained network has many operating points.

    Source: Wang et al., "SkipNet", ECCV 2018; Veit, Belongie, "Convolutional Networks with Adaptive Inference
        Graphs", ECCV 2018; Wu et al., "BlockDrop", CVPR 2018; Figurnov et al., "Spatially Adaptive Computation Time
        for Residual Networks", CVPR 2017.
    """

    name: ClassVar[str] = "layer_skipping"
    wing: ClassVar[str] = "sample"
    switches: ClassVar[str] = "block"
    source: ClassVar[str] = "Wang et al., ECCV 2018"
    choice_type: ClassVar[type[AbstractSpec]] = LayerSkippingChoice
    fits: ClassVar[str] = "keeps the shape of its features"

    target: Resource = field(default_factory=Resource)

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """Without such a block the network still fits together."""
        return outline.residual

    @classmethod
    def apply(cls, choice: LayerSkippingChoice, plan: Plan) -> None:
        """Put a choice between nothing and the block in the place of each block."""
        cls.require_fit(choice, plan.outline)
        put_choices(plan, choice.blocks, _ways, choice.gating, knob=cls.name, target=choice.target)

    @classmethod
    def describe(cls, choice: LayerSkippingChoice) -> str:
        """Such as `skips 0,2 pooled_linear gumbel 0.6 latency`."""
        return f"skips {choice.places} {choice.gating.describe()} {choice.target.describe()}"


def _ways(block: nn.Module) -> tuple[Branch, Branch]:
    return Branch(None, 0.0), Branch(block, 1.0, id(block))
