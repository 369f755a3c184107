"""Plan: a backbone on its way to becoming a dynamic network.

Each family edits the plan through a few verbs, without knowing which other families do; `lower` then
joins what lies between two decision points into segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import nn

from .architecture import Architecture
from .backbone import Backbone, Outline, Signature
from .errors import ShapeError
from .network import DynamicNetwork, Normalize
from .step import AbstractStep, ExitStep, SegmentStep


@final
class Plan:
    """Blocks in order, each with the steps that follow it.

    Args:
        backbone: the built backbone.
        outline: its shapes.
        signature: inputs and classes.
    """

    def __init__(self, backbone: Backbone, outline: Outline, signature: Signature) -> None:
        self.backbone = backbone
        self.outline = outline
        self.signature = signature
        self._after: list[list[AbstractStep]] = [[] for _ in backbone.blocks]

    def insert_after(self, block: int, step: AbstractStep) -> None:
        """Put a step between block number `block` and the next.

        Raises:
            ShapeError: if there is no such block, or nothing follows it.
        """
        if not 0 <= block < len(self._after) - 1:
            raise ShapeError(f"a step must follow a block before the last of {len(self._after)}, but got {block}")
        self._after[block].append(step)

    def lower(self, architecture: Architecture) -> DynamicNetwork:
        """The network: every run of plain blocks becomes one segment, the final head ends the last."""
        steps: list[AbstractStep] = []
        body: list[nn.Module] = [Normalize(self.signature), self.backbone.stem]
        for block, following in zip(self.backbone.blocks, self._after, strict=True):
            body.append(block)
            if following:
                steps.append(_segment(steps, body, final=False))
                body = []
                steps.extend(following)
        steps.append(_segment(steps, [*body, self.backbone.head], final=True))
        return DynamicNetwork(architecture, self.signature, steps)


def _segment(before: Sequence[AbstractStep], body: list[nn.Module], *, final: bool) -> SegmentStep:
    index = sum(isinstance(step, SegmentStep) for step in before)
    depth = sum(isinstance(step, ExitStep) for step in before)
    return SegmentStep(index, depth, nn.Sequential(*body), final=final)
