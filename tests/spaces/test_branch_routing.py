"""Branches of another kind: their work and their shapes by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dynarch.spaces.backbone import Outline, Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.backbones.residual import ResidualChoice
from dynarch.spaces.choice_step import ChoiceStep
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import BranchRouting
from dynarch.spaces.families.sample import BranchRoutingChoice
from dynarch.spaces.families.sample.branch_routing import Way
from dynarch.spaces.gating import GatingChoice
from dynarch.spaces.plan import Plan
from dynarch.spaces.resource import ResourceChoice
from dynarch.spaces.space import backbone_outline

SIGNATURE = Signature((1, 8, 8), 4)
SMALL = ResidualChoice(4, (1, 1))
GATING, TARGET = GatingChoice("pooled_linear", "straight_through"), ResourceChoice(0.5, "macs", "global", 1.0)


@pytest.mark.parametrize(
    ("kind", "macs"),
    [("pointwise", 4 * 8 * 16), ("separable", 9 * 4 * 16 + 4 * 8 * 16)],
)
def test_ways_shrink_as_the_block_does_and_cost_what_theory_says(kind: str, macs: int) -> None:
    """4 channels of 7 x 8 to 8 of 4 x 4: 16 places; 9 products a place and channel to spread, 4 x 8 to mix."""
    way = Way(kind, (4, 7, 8), (8, 4, 4)).eval()
    counter = FlopCounterMode(display=False)
    with counter:
        assert way(torch.randn(3, 4, 7, 8)).shape == (3, 8, 4, 4)
    assert counter.get_total_flops() == 2 * 3 * macs


def test_branches_come_by_their_work() -> None:
    """Block 0: two 3 x 3 convolutions on 4 channels, 288 products a place; rivals need 16 and 36 + 16."""
    outline = backbone_outline("residual", SMALL, SIGNATURE)
    plan = Plan(Residual.build(SMALL, SIGNATURE), outline, SIGNATURE)
    BranchRouting.apply(BranchRoutingChoice((0,), ("pointwise", "separable", "block"), GATING, TARGET), plan)
    step = plan._blocks[0]
    assert isinstance(step, ChoiceStep)
    works = step.decider.works
    assert isinstance(works, torch.Tensor)
    assert works.tolist() == pytest.approx([16 / 288, 52 / 288, 1.0])


def test_blocks_that_are_cheaper_than_a_rival_have_none() -> None:
    shapes = ((4, 8, 8), (4, 8, 8), (16,))
    outline = Outline((3,), shapes, (64 * 52, 64 * 53, 10**6), 4, (4, 8, 8))
    assert BranchRouting.fitting(outline) == (1,)


@pytest.mark.parametrize("ways", [("block",), ("block", "separable"), ("pointwise", "separable"), ("block", "block")])
def test_ways_out_of_order_are_refused(ways: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match=r"pointwise, separable, block in this order") as caught:
        BranchRouting(ways=(ways,))
    assert caught.value.path == "ways.0"
