"""Costs and inventory: work by hand, one key for equal parts, and every member of a space is covered."""

from __future__ import annotations

import json

import pytest
import torch

from dynarch.hardware.inventory import Costs, batched, costs_of, inventory, keys_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import InvertedResidual, Residual
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.space import Space, build

SIGNATURE = Signature((1, 8, 8), 3)
RECIPE = {
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "batch_size": 8,
    "shift": 0,
    "flip": False,
}


def network_of(families: dict[str, object], *, width: int = 2, depths: tuple[int, ...] = (1, 1)) -> DynamicNetwork:
    backbone = {"name": "residual", "width": width, "depths": list(depths)}
    return build(Architecture.of(backbone=backbone, families=families, training=RECIPE), SIGNATURE).eval()  # type: ignore[arg-type]


def one_exit(*heads: str, positions: tuple[int, ...] = (0,)) -> dict[str, object]:
    return {
        "early_exit": {
            "positions": list(positions),
            "heads": list(heads),
            "objective": "equal",
            "decisions": ["max_prob"],
        }
    }


# Width 2, blocks of 2 and 4 channels on 8 x 8 and 4 x 4 pixels, 3 classes.
STEM = 1 * 2 * 9 * 64
FIRST = 2 * (2 * 2 * 9 * 64)
SECOND = 2 * 4 * 9 * 16 + 4 * 4 * 9 * 16 + 2 * 4 * 16  # the last is the shortcut
HEAD, EXIT = 4 * 3, 2 * 3


def test_the_work_of_a_static_network_by_hand() -> None:
    costs = costs_of(network_of({}))
    assert [part.name for part in costs.parts] == ["segment.0"]
    assert costs.macs == (STEM + FIRST + SECOND + HEAD,)
    # Convolutions 18 + 36 + 36 + 72 + 144 + 8; a scale and a shift for 2, 2, 2, 4, 4, 4 channels; 4 x 3 + 3.
    assert costs.parameters == 18 + 36 + 36 + 72 + 144 + 8 + 2 * (2 + 2 + 2 + 4 + 4 + 4) + 15


def test_the_work_of_a_network_with_an_exit_by_hand() -> None:
    costs = costs_of(network_of(one_exit("linear")))
    rows = {
        part.name: (macs, part.depth, part.exit, part.decision)
        for part, macs in zip(costs.parts, costs.macs, strict=True)
    }
    assert list(rows) == ["segment.0", "exit.0", "decide.0.max_prob", "compact.0", "segment.1"]
    assert rows["segment.0"] == (STEM + FIRST, 0, None, None)
    assert rows["exit.0"] == (EXIT, 0, 0, None)
    assert rows["decide.0.max_prob"] == (0, 0, 0, "max_prob")
    assert rows["compact.0"] == (0, 0, 0, None)
    assert rows["segment.1"] == (SECOND + HEAD, 1, None, None)
    assert costs.parameters == costs_of(network_of({})).parameters + 2 * 3 + 3


def test_an_mlp_head_by_hand() -> None:
    """2 channels, 4 hidden units, 3 classes."""
    costs = costs_of(network_of(one_exit("mlp")))
    assert costs.macs[[part.name for part in costs.parts].index("exit.0")] == 2 * 4 + 4 * 3


def test_keys_say_what_runs_not_where_or_with_which_weights() -> None:
    torch.manual_seed(0)
    first = costs_of(network_of(one_exit("linear")))
    torch.manual_seed(1)
    assert costs_of(network_of(one_exit("linear"))) == first
    wider = costs_of(network_of(one_exit("linear"), width=3))
    by_name = {part.name: key for part, key in zip(wider.parts, wider.keys, strict=True)}
    for part, key in zip(first.parts, first.keys, strict=True):
        # The decision sees logits alone, whose number is the same.
        assert (by_name[part.name] == key) == (part.kind == "decide"), part.name


def test_equal_parts_of_different_networks_share_their_key() -> None:
    one, two = (costs_of(network_of(one_exit(h))) for h in ("linear", "mlp"))
    rows = dict(zip([part.name for part in two.parts], two.keys, strict=True))
    differing = [part.name for part, key in zip(one.parts, one.keys, strict=True) if rows[part.name] != key]
    assert differing == ["exit.0"]


def test_costs_survive_as_plain_values() -> None:
    costs = costs_of(network_of(one_exit("linear")))
    assert Costs.from_mapping(json.loads(json.dumps(costs.to_mapping()))) == costs


@pytest.mark.parametrize(
    "damage", [lambda m: m.pop("macs"), lambda m: m.update(parts=[{"name": "x"}]), lambda m: m.update(macs=["a"])]
)
def test_damaged_costs_are_refused_in_one_line(damage: object) -> None:
    mapping = costs_of(network_of({})).to_mapping()
    assert callable(damage)
    damage(mapping)
    with pytest.raises(SpecError, match="costs: must be what to_mapping gives") as caught:
        Costs.from_mapping(mapping)
    assert "\n" not in str(caught.value)


def test_inputs_are_repeated_to_a_batch() -> None:
    x, y = batched((torch.arange(3.0)[None], torch.zeros(1, 2, 2)), 4)
    assert x.tolist() == [[0, 1, 2]] * 4
    assert y.shape == (4, 2, 2)


# -- inventory ------------------------------------------------------------------------------------------------

EXITS = (
    EarlyExit(max_exits=2, training=("equal",)),
    EarlyExit(min_exits=2, max_exits=2, heads=("mlp",), training=("equal",)),
    EarlyExit(max_exits=3, placement="even_depth", heads=("linear",), training=("equal",)),
    EarlyExit(max_exits=1, placement="even_macs", granularity="stage", training=("equal",)),
)


@pytest.mark.parametrize("family", EXITS)
@pytest.mark.parametrize(
    "backbone", [Residual(width=(2,), depth=(1, 2), stages=2), InvertedResidual(width=(4,), depth=(1, 2), stages=2)]
)
def test_every_member_of_a_space_is_covered(family: EarlyExit, backbone: Residual | InvertedResidual) -> None:
    """What is profiled before a search holds every part that any of its candidates can run."""
    space = Space(backbones=(backbone,), families=(family,), training=Recipe())
    found = inventory(space, SIGNATURE, compaction=True)
    members = [made for _, made in space.enumerate(SIGNATURE)]
    for member in (*dict.fromkeys(members), *space.baselines(SIGNATURE)):
        costs = costs_of(build(member, SIGNATURE).eval())
        lacking = [part.name for part, key in zip(costs.parts, costs.keys, strict=True) if key not in found.parts]
        assert lacking == [], member.canonical


@pytest.fixture(scope="module")
def small() -> Space:
    return Space(backbones=(Residual(width=(2,), depth=(1,), stages=3),), families=(EarlyExit(max_exits=2),))


def test_parts_are_listed_once_each_and_belong_to_their_key(small: Space) -> None:
    found = inventory(small, SIGNATURE, compaction=True)
    for name, (key, part) in found.parts.items():
        assert key.hash == name
        assert keys_of((part,))[0] == key  # looked at on its own, without the shared cache
    assert {key for costs in found.costs for key in costs.keys} == set(found.parts)


def test_single_inputs_are_never_compacted(small: Space) -> None:
    with_it = inventory(small, SIGNATURE, compaction=True).parts
    without = inventory(small, SIGNATURE, compaction=False).parts
    assert without == {name: kp for name, kp in with_it.items() if kp[1].info.kind != "compact"}
    assert len(without) < len(with_it)


def test_listing_leaves_the_generator_alone_and_tells_its_progress(small: Space) -> None:
    torch.manual_seed(3)
    before, told = torch.get_rng_state(), list[int]()
    found = inventory(small, SIGNATURE, compaction=False, on_progress=told.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert told == sorted(told)
    assert told[-1] == len(found.parts)
    assert len(told) == len(found.costs)
