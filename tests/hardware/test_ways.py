"""Ways: calibration must meet gates that decide differently, and know what ran on each call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynarch.hardware.calibration import calls_of
from dynarch.hardware.ways import DECIDED, MOST, Way, paths, ways_of
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import Recurrent, Residual
from dynarch.spaces.families import EarlyExit, LayerSkipping, MixtureOfExperts, SkipUpdate
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.space import Space, build
from dynarch.spaces.trace import Recorder

IMAGES = Signature((1, 8, 8), 4)
SEQUENCES = Signature((12, 5), 4, "sequence")
SMALL = Residual(width=(4,), depth=(2,), stages=2)
CHUNKED = Recurrent(width=(8,), cell=("gru",), chunks=(4,))


def network(*families: AbstractFamily, images: bool = True) -> DynamicNetwork:
    """The member of a space that has all of these families."""
    signature = IMAGES if images else SEQUENCES
    space = Space((SMALL if images else CHUNKED,), families)
    names = {family.name for family in families}
    made = (architecture for _, architecture in space.enumerate(signature) if set(architecture.families) == names)
    torch.manual_seed(0)
    return build(next(made), signature).eval()


def ran(net: DynamicNetwork, way: Way) -> tuple[tuple[str, int], ...]:
    """What routed mode really runs on the way, and how often."""
    recorder = Recorder(len(way.x))
    net.route(way.x, way.policy, recorder)
    return tuple(sorted((name, int(count)) for name, count in recorder.totals().items()))


def test_a_network_that_decides_nothing_has_one_way() -> None:
    (way,) = ways_of(network(), batch=1)
    assert way.policy.setting == ()
    assert way.x.shape == (1, 1, 8, 8)
    assert way.exit_taken.tolist() == [0]


@pytest.mark.parametrize("batch", [1, 4])
def test_exits_alone_have_the_ways_that_paths_names(batch: int) -> None:
    net = network(EarlyExit(max_exits=2, heads=("linear",)))
    named = paths(net, batch=batch)
    found = ways_of(net, batch=batch)
    for way, (policy, end) in zip(found, named, strict=batch == 1):
        assert way.policy == policy
        assert way.exit_taken.tolist() == [end] * batch
        assert np.array_equal(net.route(way.x, way.policy).exit_taken.numpy(), way.exit_taken)


@pytest.mark.parametrize(
    ("family", "images"),
    [
        (LayerSkipping(placement=("all",)), True),
        (MixtureOfExperts(experts=(4,), placement=("all",)), True),
        (SkipUpdate(), False),
    ],
    ids=["layer_skipping", "mixture_of_experts", "skip_update"],
)
def test_gates_decide_differently_from_way_to_way(family: AbstractFamily, images: bool) -> None:
    net = network(family, images=images)
    found = ways_of(net, batch=1)
    assert 1 < len(found) <= DECIDED
    assert len({ran(net, way) for way in found}) == len(found), "two ways run the same"


def test_skipping_is_calibrated_from_little_to_nearly_all() -> None:
    net = network(LayerSkipping(placement=("all",)))
    counted = [
        sum(count for name, count in ran(net, way) if name.startswith("branch")) for way in ways_of(net, batch=1)
    ]
    assert counted == sorted(counted)
    assert counted[-1] - counted[0] >= 2


def test_exits_behind_gates_are_combined_and_bounded() -> None:
    net = network(LayerSkipping(placement=("all",)), EarlyExit(max_exits=2, heads=("linear",)))
    for batch in (1, 8):
        found = ways_of(net, batch=batch)
        assert len(found) <= MOST
        assert {int(way.exit_taken[0]) for way in found} >= set(range(net.exits + 1))
        assert len({way.policy.setting for way in found}) > 1


def test_the_same_seed_gives_the_same_ways() -> None:
    net = network(LayerSkipping(placement=("all",)))
    for one, other in zip(ways_of(net, batch=1, seed=3), ways_of(net, batch=1, seed=3), strict=True):
        assert one.policy == other.policy
        assert torch.equal(one.x, other.x)


def test_a_visit_makes_some_fifty_calls() -> None:
    assert [calls_of(ways) for ways in (1, 4, 6, 12, 18)] == [12, 12, 8, 4, 4]
    assert calls_of(1, most=6) == 6
