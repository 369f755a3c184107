from __future__ import annotations

import pytest
import torch
from torch import nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Outline, Signature
from dynarch.spaces.decisions import decision
from dynarch.spaces.errors import ShapeError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.normalize import Normalize
from dynarch.spaces.plan import Plan
from dynarch.spaces.step import SegmentStep

EMPTY = Architecture.of(backbone={}, families={}, training={})


def backbone_of(blocks: int) -> Backbone:
    return Backbone(
        stem=nn.Linear(2, 2),
        blocks=[nn.Linear(2, 2) for _ in range(blocks)],
        stages=(blocks,),
        head=nn.Linear(2, 3),
    )


def plan_of(backbone: Backbone) -> Plan:
    blocks = len(backbone.blocks)
    return Plan(backbone, Outline((blocks,), ((2,),) * blocks, (4,) * blocks, 3), Signature((2,), 3))


def exit_of(index: int) -> ExitStep:
    return ExitStep(index, nn.Linear(2, 3), decisions=(decision("margin"),))


def test_an_untouched_plan_is_the_backbone() -> None:
    backbone = backbone_of(3)
    network = plan_of(backbone).lower(EMPTY)
    assert (len(network.steps), network.exits) == (1, 0)
    x = torch.randn(4, 2)
    assert torch.equal(network(x)[0], backbone(x))


def test_blocks_between_decision_points_become_segments() -> None:
    backbone, exits = backbone_of(4), [exit_of(0), exit_of(1)]
    plan = plan_of(backbone)
    plan.insert_after(2, exits[1])
    plan.insert_after(0, exits[0])
    network = plan.lower(EMPTY)
    assert list(network.exit_steps) == exits
    segments = [step for step in network.steps if isinstance(step, SegmentStep)]
    assert [step.info.name for step in segments] == ["segment.0", "segment.1", "segment.2"]
    assert [step.depth for step in segments] == [0, 1, 2]
    assert [step.final for step in segments] == [False, False, True]
    blocks = list(backbone.blocks)
    first, second, third = (list(step.body.children()) for step in segments)
    assert isinstance(first[0], Normalize)
    assert first[1:] == [backbone.stem, blocks[0]]
    assert second == blocks[1:3]
    assert third == [blocks[3], backbone.head]


def test_steps_after_one_block_keep_their_order() -> None:
    plan, exits = plan_of(backbone_of(2)), [exit_of(0), exit_of(1)]
    for step in exits:
        plan.insert_after(0, step)
    network = plan.lower(EMPTY)
    assert list(network.steps)[1:3] == exits
    assert isinstance(network.steps[3], SegmentStep)
    assert network.steps[3].depth == 2


@pytest.mark.parametrize("block", [-1, 2, 3])
def test_a_step_needs_a_block_before_and_one_after_it(block: int) -> None:
    with pytest.raises(ShapeError, match=f"first 2 of 3 blocks, but got {block}"):
        plan_of(backbone_of(3)).insert_after(block, exit_of(0))
