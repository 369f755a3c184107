"""Glance and focus, by hand: which patch is read, what is added, who looks again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import MultiScaleDense, Residual
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import GlanceAndFocus
from dynarch.spaces.families.spatial.glance_and_focus import GlanceAndFocusChoice
from dynarch.spaces.gradients import gradient
from dynarch.spaces.look_step import IMAGE, SEEN, Look, LookStep, Patches
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing, settings, trained
from dynarch.spaces.space import Space, backbone_outline, build
from dynarch.spaces.step import Simulation
from dynarch.spaces.trace import Recorder

IMAGE_OF_16 = torch.arange(16.0).view(1, 1, 4, 4)


def test_patches_lie_on_a_grid_from_edge_to_edge() -> None:
    patches = Patches((1, 4, 4), (2, 2), 3)  # corners at 0, 1 and 2
    made = patches(IMAGE_OF_16.expand(9, 1, 4, 4), torch.arange(9))
    assert made[0].flatten().tolist() == [0, 1, 4, 5]
    assert made[1].flatten().tolist() == [1, 2, 5, 6]
    assert made[3].flatten().tolist() == [4, 5, 8, 9]
    assert made[8].flatten().tolist() == [10, 11, 14, 15]


def test_a_weight_of_one_is_the_patch_and_gradients_reach_every_place() -> None:
    patches = Patches((1, 4, 4), (2, 2), 2)
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0]], requires_grad=True)
    made = patches.mixed(IMAGE_OF_16, weights)
    assert torch.equal(made, patches(IMAGE_OF_16, torch.tensor([2])))
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    # Sums of the four corners: 0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9 + 12 + 13, 10 + 11 + 14 + 15.
    assert weights.grad.tolist() == [[10, 18, 42, 50]]


class Preference(nn.Module):
    """Likes the third place best, then the first, then the others."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.tensor([[2.0, 0.0, 3.0, 1.0]]).expand(len(features), -1)


class Mean(nn.Module):
    """The mean of a patch as one feature."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3), keepdim=True)


def step(index: int = 0) -> LookStep:
    look = Look(Preference(), Patches((1, 4, 4), (2, 2), 2), Mean())
    return LookStep(index, look, gradient=gradient("straight_through"), place=1.0)


def test_looks_add_up_and_never_go_twice_to_a_place() -> None:
    run = Simulation(torch.full((1, 1, 1, 1), 100.0), memory={IMAGE: IMAGE_OF_16})
    step(0).simulate(run)
    assert run.features.item() == 100 + 42 / 4
    assert run.memory[SEEN].tolist() == [[0, 0, 1, 0]]
    step(1).simulate(run)
    assert run.features.item() == 100 + 42 / 4 + 10 / 4
    assert run.memory[SEEN].tolist() == [[1, 0, 1, 0]]


def test_training_looks_where_routed_mode_does() -> None:
    """Straight-through draws nothing here: the value is that of the best place."""
    hard, soft = (
        Simulation(torch.zeros(2, 1, 1, 1), memory={IMAGE: IMAGE_OF_16.repeat(2, 1, 1, 1)}, progress=progress)
        for progress in (None, 0.9)
    )
    step().simulate(hard)
    step().simulate(soft)
    torch.testing.assert_close(hard.features, soft.features)


SPACE = Space((Residual(width=(4,), depth=(1,), stages=2),), (GlanceAndFocus(looks=(2,), gradient=("gumbel",)),))
SIGNATURE = Signature((1, 8, 8), 4)


def member() -> Architecture:
    return next(made for _, made in SPACE.enumerate(SIGNATURE) if made.families)


def test_who_is_sure_at_a_glance_reads_no_patch() -> None:
    network, x = trained(member(), SIGNATURE, inputs=6)
    assert network.exits == 2
    for taken in (0, 1, 2):
        policy = Policy.never(2) if taken == 2 else Policy.single(2, taken)
        recorder = Recorder(len(x))
        assert network.route(x, policy, recorder).exit_taken.tolist() == [taken] * len(x)
        looks = [name for name in recorder.totals() if name.startswith("look")]
        assert looks == [f"look.{index}" for index in range(taken)]


def test_a_glance_costs_a_quarter() -> None:
    """Half the sides: every convolution of the backbone runs at a quarter of its places."""
    whole = build(Architecture.of(backbone=member().backbone, families={}, training=member().training), SIGNATURE)
    parts = {part.info.name: part for part in build(member(), SIGNATURE).eval().parts()}
    assert tuple(parts["segment.0"].inputs[0].shape) == (1, 1, 4, 4)
    assert tuple(whole.eval().parts()[0].inputs[0].shape) == (1, 1, 8, 8)
    assert [tuple(x.shape[1:]) for x in parts["compact.1"].inputs] == [(8, 2, 2), (4,), (1, 8, 8), (9,)]


GOOD: dict[str, Any] = {"share": 0.5, "looks": 2, "grid": 3, "gradient": "gumbel"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"share": 1.0}, "share"),
        ({"looks": 9}, "looks"),
        ({"grid": 1}, "grid"),
        ({"gradient": "reinforce"}, "gradient"),
    ],
)
def test_impossible_choices_name_the_field(change: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        GlanceAndFocusChoice(**{**GOOD, **change})
    assert caught.value.path == path


def test_what_does_not_fit_is_not_offered_and_refused_with_the_reason() -> None:
    backbone = Residual(width=(4,), depth=(1,), stages=3).extremes()[0]
    shapes = backbone_outline(Residual.name, backbone, SIGNATURE)  # its least side is 4
    assert GlanceAndFocus(share=(0.25,)).size(shapes) == 0
    assert GlanceAndFocus(share=(0.25, 0.5)).size(shapes) == 1 * 2 * 1 * 2
    dense = MultiScaleDense().extremes()[0]
    assert GlanceAndFocus().size(backbone_outline(MultiScaleDense.name, dense, SIGNATURE)) == 0
    for share, grid, words in ((0.25, 3, "below this backbone's least side"), (0.75, 4, "no room for 4 places")):
        families = {"glance_and_focus": GlanceAndFocusChoice(share, 1, grid, "gumbel").to_mapping()}
        made = {"name": "residual", **backbone.to_mapping()}
        with pytest.raises(SpecError, match=words) as caught:
            build(Architecture.of(backbone=made, families=families, training=member().training), SIGNATURE)
        assert caught.value.path == "architecture.families.glance_and_focus.share"


def test_glances_go_with_skipping_and_exits() -> None:
    """The network that glances is an open chain: it may skip blocks and have exits of its own."""
    gating = {"gate": "pooled_linear", "gradient": "straight_through"}
    target = {"target": 0.6, "resource": "macs", "scope": "global", "weight": 10.0}
    families: dict[str, dict[str, object]] = {
        "layer_skipping": {"blocks": [0], "gating": gating, "target": target},
        "early_exit": {"positions": [0], "heads": ["linear"], "objective": "equal"},
        "glance_and_focus": GOOD,
    }
    made = Architecture.of(backbone=member().backbone, families=families, training=member().training)
    network, x = trained(made, SIGNATURE, inputs=12)
    assert network.exits == 3
    for setting in settings(network, x, seed=0):
        for single in range(3):
            policy = replace(Policy.single(3, single), setting=tuple(setting.items()))
            assert check_routing(network, x, policy).tolist() == [single] * len(x)
