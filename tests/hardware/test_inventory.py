"""The latency table knows every part that any member of a space can run, and nothing that none can."""

from __future__ import annotations

import numpy as np
import pytest

from dynarch.hardware.inventory import Costs, Inventory, costs_of, inventory
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import InvertedResidual, Residual
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import (
    BlockSparse,
    DynamicConvolution,
    EarlyExit,
    LayerSkipping,
    MixtureOfExperts,
    SlimmableWidth,
    SqueezeExcitation,
)
from dynarch.spaces.gates import GATES
from dynarch.spaces.gating import Gating
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.scope import Chance, Scope
from dynarch.spaces.space import Space, build
from dynarch.spaces.trace import COMPACT
from dynarch.tests import oracles

SIGNATURE = Signature((1, 8, 8), 4)
BACKBONES = (
    Residual(width=(4,), depth=(1, 2), stages=2),
    InvertedResidual(width=(4,), expansion=(2,), depth=(1,), stages=2),
)
RATES = Recipe(learning_rate=(0.003, 0.01))  # another way of training is no other part


def keys_of_all(space: Space) -> dict[str, str]:
    """Key -> kind of the parts of every member, and of the static baselines, which may be none."""
    members = [architecture for _, architecture in space.enumerate(SIGNATURE)]
    statics = [Architecture.of(backbone=a.backbone, families={}, training=a.training) for a in members]
    found: dict[str, str] = {}
    for architecture in {(str(a.backbone), str(a.families)): a for a in [*members, *statics]}.values():
        costs = costs_of(build(architecture, SIGNATURE).eval())
        found |= {key: info.kind for info, key in zip(costs.parts, costs.keys, strict=True)}
    return found


@pytest.mark.parametrize(
    "family",
    [
        EarlyExit(max_exits=2, heads=("linear", "mlp"), training=("equal",), decision=("margin", "patience")),
        EarlyExit(min_exits=2, max_exits=2, heads=("conv",), training=("equal",)),
        EarlyExit(placement="even_macs", heads=("linear", "conv"), training=("equal",), decision=("entropy",)),
    ],
    ids=["free", "exactly two", "even"],
)
def test_inventory_holds_the_keys_of_all_members_and_no_others(family: EarlyExit) -> None:
    space = Space(BACKBONES, (family,), RATES)
    expected = keys_of_all(space)
    found = inventory(space, SIGNATURE, compaction=True)
    assert {key: part.info.kind for key, (_, part) in found.parts.items()} == expected
    assert all(key == part_key.hash for key, (part_key, _) in found.parts.items())
    alone = inventory(space, SIGNATURE, compaction=False)
    assert set(alone.parts) == {key for key, kind in expected.items() if kind != COMPACT}
    assert set(alone.parts) < set(found.parts)


@pytest.fixture(scope="module")
def small() -> Inventory:
    return inventory(Space(BACKBONES[:1], (EarlyExit(max_exits=1),)), SIGNATURE, compaction=True)


def test_costs_together_name_every_key(small: Inventory) -> None:
    assert set[str]().union(*(costs.keys for costs in small.costs)) == set(small.parts)


def test_work_of_a_static_network_by_hand() -> None:
    space = Space((Residual(width=(4,), depth=(1,), stages=2),), ())
    (costs,) = inventory(space, SIGNATURE, compaction=False).costs
    # Stem 64 * 4 * 9 = 2,304; one block of each kind; the final head 8 * 4.
    assert costs.macs == (2_304 + oracles.BASIC_BLOCK_MACS + oracles.BASIC_BLOCK_HALVING_MACS + 32,)
    assert costs.parameters == oracles.RESIDUAL_PARAMETERS
    assert [info.name for info in costs.parts] == ["segment.0"]


def test_an_exit_adds_its_head_and_takes_nothing_from_the_segments() -> None:
    space = Space((Residual(width=(4,), depth=(1,), stages=2),), (EarlyExit(max_exits=1, heads=("linear",)),))
    dynamic = next(a for _, a in space.enumerate(SIGNATURE) if a.families)
    costs = costs_of(build(dynamic, SIGNATURE).eval())
    macs = {info.name: value for info, value in zip(costs.parts, costs.macs, strict=True)}
    assert macs["segment.0"] == 2_304 + oracles.BASIC_BLOCK_MACS
    assert macs["exit.0"] == 4 * 4
    assert macs["segment.1"] == oracles.BASIC_BLOCK_HALVING_MACS + 32
    # the head, and its learned score: three weights and an offset a class
    assert costs.parameters == oracles.RESIDUAL_PARAMETERS + (4 * 4 + 4) + (3 + 4)


def test_progress_counts_up_to_all_parts(small: Inventory) -> None:
    seen: list[int] = []
    inventory(Space(BACKBONES[:1], (EarlyExit(max_exits=1),)), SIGNATURE, compaction=True, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(small.parts)


def test_costs_survive_a_document(small: Inventory) -> None:
    costs = small.costs[-1]
    assert Costs.from_mapping(costs.to_mapping()) == costs
    for broken in ({}, {**costs.to_mapping(), "macs": ["x"]}, {**costs.to_mapping(), "parts": [{"name": "a"}]}):
        with pytest.raises(SpecError, match="must be what to_mapping gives"):
            Costs.from_mapping(broken)


def test_a_joint_space_is_covered_by_its_inventory() -> None:
    """Whatever several families make of a network together, its parts are among those that get measured."""
    gating = Gating(gate=tuple(member.name for member in GATES))
    families = (
        LayerSkipping(placement=("all", "late"), gating=gating),
        SlimmableWidth(placement=("late",)),
        MixtureOfExperts(placement=("late",), experts=(2,), top=(1,)),
        DynamicConvolution(kernels=(2,)),
        SqueezeExcitation(placement=("late",)),
        EarlyExit(max_exits=2, heads=("linear",), decision=("max_prob",)),
    )
    space = Space((Residual(width=(2,), depth=(2,), stages=2),), families)
    signature = Signature((1, 4, 4), 3)
    known = inventory(space, signature, compaction=True).parts
    rivals = set[str]()
    for seed in range(40):
        architecture = space.sample(Scope(Chance(np.random.default_rng(seed))), signature)
        rivals |= set(architecture.families)
        costs = costs_of(build(architecture, signature).eval())
        lacking = [part.name for part, key in zip(costs.parts, costs.keys, strict=True) if key not in known]
        assert not lacking, f"{architecture.canonical} has parts without an entry: {lacking}"
    assert rivals == {member.name for member in families}, "some family was never drawn"


def test_tiles_that_do_not_divide_the_features_leave_them_in_another_layout() -> None:
    """7 x 7 features on tiles of 2 are cut out of 8 x 8: the head behind them is another part than that of a network
    without tiles, with which it shares the module."""
    signature = Signature((1, 28, 28), 4)
    space = Space((Residual(width=(4,), depth=(2,)),), (BlockSparse(placement=("all",), tile=(2,)),))
    found = inventory(space, signature, compaction=True)
    member = next(made for _, made in space.enumerate(signature) if made.families)
    assert set(costs_of(build(member, signature).eval()).keys) <= set(found.parts)
