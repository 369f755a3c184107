"""Channels picked for each input: against a plain computation, and what the levels of the knob run."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dynarch.evaluators.knobs import settings_of
from dynarch.evaluators.splits import Part
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones.residual import BasicBlock
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families.sample.channel_saliency import Saliency, SalientLevel
from dynarch.spaces.level_step import LevelStep
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.own_kernels import convolve_each, normalise_picked
from dynarch.spaces.policy import Policy
from dynarch.spaces.step import SegmentStep
from dynarch.spaces.trace import Recorder


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("inputs", [1, 3])
def test_each_input_has_its_kernel(inputs: int, groups: int) -> None:
    x, kernels = torch.randn(inputs, 4, 6, 5), torch.randn(inputs, 8, 4 // groups, 3, 3)
    made = convolve_each(x, kernels, stride=(2, 2), padding=1, groups=groups)
    plain = [functional.conv2d(x[i : i + 1], kernels[i], None, 2, 1, groups=groups) for i in range(inputs)]
    torch.testing.assert_close(made, torch.cat(plain))


def test_picked_channels_are_normalised_as_among_all() -> None:
    norm, x = nn.BatchNorm2d(4), torch.randn(5, 4, 3, 3)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm(x)
    picked = torch.tensor([[0, 2], [3, 1], [2, 3], [0, 1], [1, 0]])
    rows = torch.arange(5)[:, None]
    torch.testing.assert_close(normalise_picked(norm.eval(), x[rows, picked], picked), norm(x)[rows, picked])


def levels(winners: tuple[int, ...] = (1, 2, 4)) -> LevelStep:
    torch.manual_seed(0)
    block, saliency = BasicBlock(4, 4, 1), Saliency(4, 4)
    ways = [SalientLevel(saliency, block.selected(), winners=k, inner=4, token=None) for k in winners]
    return LevelStep(0, ways, knob="k")


def test_only_the_winners_are_computed() -> None:
    """Two 3 x 3 convolutions with 4 channels outside and k within, at 36 places, and 4 x 4 products to score."""
    step, x = levels().eval(), torch.randn(1, 4, 6, 6)
    for way, winners in zip(step.ways, (1, 2, 4), strict=True):
        counter = FlopCounterMode(display=False)
        with counter:
            way(x)
        assert counter.get_total_flops() == 2 * (2 * 9 * 4 * winners * 36 + 16)


def network() -> DynamicNetwork:
    end = SegmentStep(0, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), final=True)
    empty = Architecture.of(backbone={}, families={}, training={})
    return DynamicNetwork(empty, Signature((4, 4, 4), 2), [levels(), end]).eval()


@pytest.mark.parametrize(("value", "ran"), [(0.0, 2), (-1.0, 1), (-2.0, 0)])
def test_the_knob_picks_the_level(value: float, ran: int) -> None:
    made, recorder = network(), Recorder(3)
    made.route(torch.randn(3, 4, 4, 4), Policy("max_prob", (), (("k", value),)), recorder)
    assert recorder.totals() == {f"level.0.{ran}": 3, "segment.0": 3}
    assert made.levels == {"k": (-2.0, -1.0, 0.0)}


def test_a_value_between_levels_is_refused() -> None:
    with pytest.raises(SpecError, match=r"must be one of its levels \(-2, -1, 0\), but got 0.5") as caught:
        network().route(torch.randn(1, 4, 4, 4), Policy("max_prob", (), (("k", 0.5),)))
    assert caught.value.path == "policy.setting.k"


def test_shuffled_saliencies_are_those_of_others() -> None:
    """What an input computes is then decided by another one; of inputs that are all alike nothing changes."""
    made, x = network(), torch.randn(6, 4, 4, 4)
    same = x[:1].expand(6, -1, -1, -1)
    setting = {"k": -2.0}
    for inputs, changes in ((x, True), (same, False)):
        plain = made.simulate(inputs, setting=setting).logits[0]
        shuffled = made.simulate(inputs, setting=setting, shuffle=torch.Generator().manual_seed(1)).logits[0]
        assert bool((plain - shuffled).abs().max() > 1e-4) == changes


def test_in_training_every_level_gets_its_share_of_inputs() -> None:
    run = network().train().simulate(torch.randn(7, 4, 4, 4), progress=0.0)
    assert run.memory["level.k"].bincount().tolist() == [3, 2, 2]


@pytest.mark.parametrize(("most", "recorded"), [(8, [-2.0, -1.0]), (1, [-2.0])])
def test_policies_may_use_the_levels_and_nothing_between(most: int, recorded: list[float]) -> None:
    part = Part(torch.randn(5, 4, 4, 4), torch.zeros(5, dtype=torch.long))
    assert settings_of(network(), part, levels=most) == ((), *((("k", value),) for value in recorded))
