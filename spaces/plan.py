"""Plan: a backbone on its way to becoming a dynamic network.

Each family edits the plan through a few verbs, without knowing which other families do; `lower` then
joins what lies between two decision points into segments.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import final

from torch import nn

from .architecture import Architecture
from .backbone import Backbone, Outline, Signature
from .errors import ShapeError, SpecError
from .exit_step import ExitStep
from .fork_step import ForkStep
from .network import DynamicNetwork
from .normalize import Normalize
from .resource import ResourceTarget
from .spec import require
from .step import AbstractStep, SegmentStep


@final
class Plan:
    """Blocks in order, each with the steps that follow it.

    The backbone may be shared between plans, so a plan never changes it: it puts other modules in a block's place.

    Args:
        backbone: the built backbone.
        outline: its shapes.
        signature: inputs and classes.
    """

    def __init__(self, backbone: Backbone, outline: Outline, signature: Signature) -> None:
        self.backbone = backbone
        self.outline = outline
        self.signature = signature
        self.targets: list[ResourceTarget] = []
        self._blocks: list[nn.Module] = list(backbone.blocks)
        self._start: list[AbstractStep] = []
        self._before_stem: list[AbstractStep] = []
        self._first: list[AbstractStep] = []
        self._last: list[AbstractStep] = []
        self._after: list[list[nn.Module]] = [[] for _ in backbone.blocks]

    def block(self, block: int) -> nn.Module:
        """What stands in a block's place now.

        Raises:
            ShapeError: if there is no such block, or a step decides about it.
        """
        self._check(block, len(self._blocks))
        made = self._blocks[block]
        if isinstance(made, AbstractStep):
            raise ShapeError(f"block {block} has a step in its place; one network cannot decide twice about a block")
        return made

    def copied(self, block: int) -> nn.Module:
        """A copy of a block that a family may change."""
        return copy.deepcopy(self.block(block))

    def replace(self, block: int, module: nn.Module) -> None:
        """Put another module, or a step that decides, in a block's place.

        Raises:
            ShapeError: as `block`.
        """
        self.block(block)
        self._blocks[block] = module

    def insert_start(self, step: AbstractStep) -> None:
        """Put a step before everything: it sees the raw inputs."""
        self._start.append(step)

    def insert_before_stem(self, step: AbstractStep) -> None:
        """Put a step between the normalised input and the stem."""
        self._before_stem.append(step)

    def insert_first(self, step: AbstractStep) -> None:
        """Put a step between the stem and the first block."""
        self._first.append(step)

    def insert_last(self, step: AbstractStep) -> None:
        """Put a step between the last block, with all that follows it, and the final head."""
        self._last.append(step)

    def insert_after(self, block: int, link: nn.Module) -> None:
        """Put a step, or a plain module, between block number `block` and what follows it.

        Raises:
            ShapeError: if there is no such block, or a step is to follow the last: the final head decides there.
        """
        self._check(block, len(self._after) - isinstance(link, AbstractStep))
        self._after[block].append(link)

    def charge(self, target: ResourceTarget) -> None:
        """Let training charge for what runs."""
        self.targets.append(target)

    def _check(self, block: int, end: int) -> None:
        if not 0 <= block < end:
            raise ShapeError(f"must be one of the first {end} of {len(self._after)} blocks, but got {block}")

    def lower(self, architecture: Architecture) -> DynamicNetwork:
        """The network: every run of plain blocks becomes one segment, the final head ends the last.

        Raises:
            SpecError: if two steps fork the network, or exits of several families do not go together.
        """
        chain = _Chain()
        normalised = () if self.backbone.raw else (Normalize(self.signature),)
        before = (*self._start, *normalised, *self._before_stem)
        for step in (*before, self.backbone.stem, *self._first):
            chain.add(step)
        for block, following in zip(self._blocks, self._after, strict=True):
            for link in (block, *following):
                chain.add(link)
        for step in self._last:
            chain.add(step)
        chain.add(self.backbone.head)
        chain.close(final=True)
        _number([step for step in chain.steps if isinstance(step, ExitStep)])
        return DynamicNetwork(architecture, self.signature, _forked(chain.steps), targets=tuple(self.targets))


def _forked(steps: list[AbstractStep]) -> list[AbstractStep]:
    """The steps up to the fork, which takes what follows it."""
    forks = [index for index, step in enumerate(steps) if isinstance(step, ForkStep)]
    if len(forks) > 1:
        knobs = " and ".join(str(steps[index].knob) for index in forks)
        message = f"each change the shape of all that follows, and one network can do so once; drop one of {knobs}"
        raise SpecError("", message)
    for index in forks:
        fork = steps[index]
        assert isinstance(fork, ForkStep)
        fork.grow(steps[index + 1 :])
        return steps[: index + 1]
    return steps


def _number(steps: Sequence[ExitStep]) -> None:
    """Number exits of several families in the order in which inputs meet them.

    Raises:
        SpecError: if they do not allow the same decision schemes.
    """
    allowed = [tuple(scheme.name for scheme in step.decisions) for step in steps]
    for index, (step, names) in enumerate(zip(steps, allowed, strict=True)):
        rule = "all exits of a network must allow the same decision schemes, as a policy decides by one of them"
        require(set(names) == set(allowed[0]), "decisions", f"{rule}; got {list(names)} and {list(allowed[0])}")
        step.index = index


@final
class _Chain:
    """Steps so far, and the modules that wait to become a segment."""

    def __init__(self) -> None:
        self.steps: list[AbstractStep] = []
        self._body: list[nn.Module] = []
        self._segments = 0

    def add(self, link: nn.Module) -> None:
        if isinstance(link, AbstractStep):
            self.close(final=False)
            self.steps.append(link)
        else:
            self._body.append(link)

    def close(self, *, final: bool) -> None:
        if self._body:
            self.steps.append(SegmentStep(self._segments, nn.Sequential(*self._body), final=final))
            self._segments += 1
            self._body = []
