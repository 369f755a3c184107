"""Inputs that were made to be slow: within their box, and slower than noise of the same size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dynarch.evaluators.operating import score
from dynarch.evaluators.score_table import score_tables
from dynarch.evaluators.slowdown import slowed
from dynarch.evaluators.splits import Part
from dynarch.hardware.book import LatencyBook
from dynarch.hardware.inventory import costs_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbones import Recurrent, Residual, TextTransformer
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import EarlyExit, LayerSkipping, TemporalExit
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import SIGNATURES, trained
from dynarch.spaces.space import Space

EPSILON = 0.2
IMAGES = SIGNATURES["image"]


def with_family(space: Space, family: str, kind: str) -> Architecture:
    made = (architecture for _, architecture in space.enumerate(SIGNATURES[kind]))
    return next(each for each in made if family in each.families)


@pytest.fixture(scope="module")
def exits() -> tuple[DynamicNetwork, Tensor]:
    space = Space((Residual(width=(4,), depth=(1,), stages=2),), (EarlyExit(min_exits=1, max_exits=1),))
    return trained(with_family(space, "early_exit", "image"), IMAGES, inputs=64)


@pytest.fixture(scope="module")
def gates() -> tuple[DynamicNetwork, Tensor]:
    space = Space((Residual(width=(4,), depth=(2,), stages=2),), (LayerSkipping(placement=("all",)),))
    return trained(with_family(space, "layer_skipping", "image"), IMAGES, inputs=64)


def work(network: DynamicNetwork, x: Tensor, policy: Policy) -> float:
    """Mean multiply-accumulates of an input in routed mode."""
    part = Part(x, torch.zeros(len(x), dtype=torch.int64))
    tables = score_tables(network, part, (policy.setting,))
    return score(tables, costs_of(network), LatencyBook({}), policy, seed=0).metrics["macs"]


def noise(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    moved = x + EPSILON * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
    return moved.clamp(float(x.min()), float(x.max()))


def test_exits_are_left_later(exits: tuple[DynamicNetwork, Tensor]) -> None:
    network, x = exits
    with torch.no_grad():
        sure = network(x)[0].softmax(1).amax(1)
    policy = Policy("max_prob", (float(sure.median()),))
    attacked = work(network, slowed(network, x, epsilon=EPSILON, seed=0), policy)
    assert attacked > 1.2 * work(network, x, policy)
    assert attacked > 1.1 * work(network, noise(x), policy)


def test_gates_open(gates: tuple[DynamicNetwork, Tensor]) -> None:
    network, x = gates
    with torch.no_grad():
        margins = torch.cat([each for gaps in network.simulate(x).margins.values() for each in gaps])
    setting = {"layer_skipping": -float(margins.median())}
    policy = replace(Policy.never(0), setting=tuple(setting.items()))
    attacked = work(network, slowed(network, x, epsilon=EPSILON, seed=0, setting=setting), policy)
    assert attacked > work(network, x, policy)
    assert attacked > work(network, noise(x), policy)


def test_inputs_stay_in_their_box_and_their_range(exits: tuple[DynamicNetwork, Tensor]) -> None:
    network, x = exits
    moved = slowed(network, x, epsilon=EPSILON, seed=0)
    assert float((moved - x).abs().max()) <= EPSILON + 1e-6
    assert float(moved.min()) >= float(x.min())
    assert float(moved.max()) <= float(x.max())
    assert not moved.requires_grad


def test_the_network_is_left_as_it_was(exits: tuple[DynamicNetwork, Tensor]) -> None:
    network, x = exits
    network.zero_grad()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, again = (slowed(network, x[:8], epsilon=EPSILON, seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    assert not network.training


def test_padding_and_presence_of_steps_are_left_alone() -> None:
    space = Space((Recurrent(width=(4,), cell=("gru",), chunks=(2,)),), (TemporalExit(),))
    network, x = trained(with_family(space, "temporal_exit", "sequence"), SIGNATURES["sequence"], inputs=16)
    assert bool((x[..., 0] == 0).any()), "some are padded"
    moved = slowed(network, x, epsilon=EPSILON, seed=0)
    assert torch.equal(moved[..., 0], x[..., 0])
    assert bool((moved[x[..., 0] == 0] == 0).all())
    assert not torch.equal(moved, x)


def test_ids_of_words_have_no_distance() -> None:
    space = Space((TextTransformer(),), (EarlyExit(min_exits=1, max_exits=1),))
    network, x = trained(with_family(space, "early_exit", "text"), SIGNATURES["text"], inputs=4)
    with pytest.raises(SpecError, match="ids of words have none"):
        slowed(network, x, epsilon=EPSILON, seed=0)


def test_a_distance_is_positive(exits: tuple[DynamicNetwork, Tensor]) -> None:
    network, x = exits
    with pytest.raises(SpecError, match="must be above 0, but got 0"):
        slowed(network, x, epsilon=0, seed=0)
