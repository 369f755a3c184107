from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Outline, Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.errors import SpecError, UnknownNameError
from dynarch.spaces.exit_objectives import exit_objective
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.families.sample.early_exit import (
    GRANULARITIES,
    PLACEMENTS,
    EarlyExitChoice,
    _even_positions,
    _spread_order,
)
from dynarch.spaces.plan import Plan
from dynarch.spaces.probes import Asked
from dynarch.spaces.scope import Chance, Scope, enumerate_points
from dynarch.spaces.space import Space, build
from dynarch.tests import oracles

HEADS = ("linear", "mlp", "conv")
TRAINING = ("equal", "linear", "gradient_equilibrium")


def outline_of(stages: tuple[int, ...], macs: tuple[int, ...] | None = None) -> Outline:
    blocks = sum(stages)
    return Outline(stages, ((4, 8, 8),) * blocks, macs or (100,) * blocks, 4)


def choices(family: EarlyExit, outline: Outline) -> list[EarlyExitChoice | None]:
    return [made for _, made in enumerate_points(lambda scope: family.suggest(scope, outline))]


@st.composite
def instances(draw: st.DrawFn) -> tuple[EarlyExit, Outline]:
    stages = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).filter(lambda s: sum(s) <= 6)))
    macs = tuple(draw(st.lists(st.integers(1, 1000), min_size=sum(stages), max_size=sum(stages))))
    most = draw(st.integers(1, 4))
    family = EarlyExit(
        min_exits=draw(st.integers(0, most)),
        max_exits=most,
        placement=draw(st.sampled_from(PLACEMENTS)),
        granularity=draw(st.sampled_from(GRANULARITIES)),
        heads=HEADS[: draw(st.integers(1, 2))],
        training=TRAINING[: draw(st.integers(1, 2))],
    )
    return family, outline_of(stages, macs)


@pytest.mark.parametrize("row", oracles.EARLY_EXIT_SIZES, ids=str)
def test_sizes_by_hand(row: tuple[tuple[int, ...], int, int, str, str, int, int, int]) -> None:
    stages, least, most, placement, granularity, heads, objectives, size = row
    family = EarlyExit(
        min_exits=least,
        max_exits=most,
        placement=placement,
        granularity=granularity,
        heads=HEADS[:heads],
        training=TRAINING[:objectives],
    )
    assert family.size(outline_of(stages)) == size
    assert len(choices(family, outline_of(stages))) == size


@settings(deadline=None, max_examples=60)
@given(instances())
def test_size_is_the_number_of_distinct_choices(instance: tuple[EarlyExit, Outline]) -> None:
    family, outline = instance
    made = choices(family, outline)
    assert len(made) == len(set(made)) == family.size(outline)


@settings(deadline=None, max_examples=60)
@given(instances())
def test_choices_keep_to_the_ranges(instance: tuple[EarlyExit, Outline]) -> None:
    family, outline = instance
    last_of_stage = set(np.cumsum(outline.stages).tolist())
    places = [
        block
        for block in range(outline.blocks - 1)  # the final head follows the last block
        if family.granularity == "block" or block + 1 in last_of_stage
    ]
    least, most = min(family.min_exits, len(places)), min(family.max_exits, len(places))
    made = choices(family, outline)
    seen = {() if choice is None else choice.positions for choice in made}
    assert all(set(positions) <= set(places) for positions in seen)
    if family.placement == "free":
        assert seen == {chosen for count in range(least, most + 1) for chosen in combinations(places, count)}
    else:
        assert sorted(map(len, seen)) == list(range(least, most + 1)), "each number of exits has one placement"


def pieces(made: list[EarlyExitChoice], outline: Outline) -> Iterator[tuple[object, ...]]:
    """The segments, by first and last block, and the heads, by place, of these choices."""
    for choice in made:
        ends = (-1, *choice.positions, outline.blocks - 1)
        yield from (("segment", first + 1, last) for first, last in pairwise(ends))
        yield from (("head", *at) for at in zip(choice.positions, choice.heads, strict=True))


@settings(deadline=None, max_examples=60)
@given(instances())
def test_cover_holds_exactly_the_parts_of_all_choices(instance: tuple[EarlyExit, Outline]) -> None:
    family, outline = instance
    made = [choice for choice in choices(family, outline) if choice is not None]
    cover = list(family.cover(outline))
    assert set(pieces(cover, outline)) == set(pieces(made, outline))
    assert {choice.decisions for choice in cover} <= {family.decision}


@pytest.mark.parametrize("blocks", range(1, 8))
def test_free_cover_holds_exactly_the_parts_of_all_choices(blocks: int) -> None:
    for least, most in combinations_with_replacement(range(blocks + 2), 2):
        if not most:
            continue
        family = EarlyExit(min_exits=least, max_exits=most, heads=("mlp",), training=("equal",))
        made = [choice for choice in choices(family, outline_of((blocks,))) if choice is not None]
        cover = list(family.cover(outline_of((blocks,))))
        assert set(pieces(cover, outline_of((blocks,)))) == set(pieces(made, outline_of((blocks,)))), (least, most)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PLACEMENTS), st.sampled_from(GRANULARITIES), st.integers(0, 2), st.data())
def test_a_name_means_one_range_whatever_the_backbone(
    placement: str, granularity: str, least: int, data: st.DataObject
) -> None:
    family = EarlyExit(min_exits=least, placement=placement, granularity=granularity)
    ranges: dict[str, set[object]] = {}
    for stages in ((1, 1), (1, 2), (2, 2, 2)):
        family.suggest(Scope(Asked(data.draw(st.integers(0, 1000)), ranges)), outline_of(stages))
    assert {name: found for name, found in ranges.items() if len(found) > 1} == {}


# Each next one halves the widest gap left between those before it and the two ends; the lowest of equals.
@pytest.mark.parametrize(
    ("size", "order"),
    [
        (0, []),
        (1, [0]),
        (2, [0, 1]),
        (3, [1, 0, 2]),
        (4, [1, 2, 0, 3]),  # after 1, the gap {2, 3} is wider than {0}
        (5, [2, 0, 3, 1, 4]),  # after 2 and 0, the gap {3, 4} is wider than {1}
        (7, [3, 1, 5, 0, 2, 4, 6]),
    ],
)
def test_places_are_asked_about_from_the_middle_outwards(size: int, order: list[int]) -> None:
    assert _spread_order(size) == order


@given(st.integers(0, 40))
def test_spread_order_names_each_place_once(size: int) -> None:
    assert sorted(_spread_order(size)) == list(range(size))


def test_random_exits_do_not_favour_early_blocks() -> None:
    family = EarlyExit(max_exits=1)
    first = [family.suggest(Scope(Chance(np.random.default_rng(seed))), outline_of((6,))) for seed in range(400)]
    positions = [choice.positions[0] for choice in first if choice is not None]
    # Asked in the order 2, 0, 3, 1, 4 with even odds: mean (2/2 + 0/4 + 3/8 + 1/16 + 4/32) / (31/32) = 1.61; asked from
    # the front it would be (0/2 + 1/4 + 2/8 + 3/16 + 4/32) / (31/32) = 0.84. The standard error is below 0.07.
    assert np.mean(positions) == pytest.approx(1.61, abs=0.3)


@pytest.mark.parametrize(
    ("macs", "places", "count", "by_macs", "positions"),
    [
        # Six equal blocks: a third and two thirds of the way are after blocks 1 and 3.
        ((1,) * 6, (0, 1, 2, 3, 4), 2, False, (1, 3)),
        ((1,) * 6, (0, 1, 2, 3, 4), 1, False, (2,)),
        ((1,) * 6, (0, 1, 2, 3, 4), 5, False, (0, 1, 2, 3, 4)),
        # Work 60, 10, 10, 10, 10: half of 100 is nearest to 60, after block 0; by depth 2.5 is as near to 2 as to 3.
        ((60, 10, 10, 10, 10), (0, 1, 2, 3), 1, True, (0,)),
        ((60, 10, 10, 10, 10), (0, 1, 2, 3), 1, False, (1,)),
        # Thirds of it are 33.3 and 66.7: block 0 (60), then 70 after block 1 (block 0 is taken).
        ((60, 10, 10, 10, 10), (0, 1, 2, 3), 2, True, (0, 1)),
        # Work 10, 10, 10, 10, 60: both thirds lie in the last block; the two latest places are nearest.
        ((10, 10, 10, 10, 60), (0, 1, 2, 3), 2, True, (2, 3)),
        # Stage ends only: the nearest of the places there are.
        ((1,) * 6, (1, 3), 1, False, (1,)),  # 3 of 6 is as near to 2 as to 4: the earlier one
        ((1,) * 6, (1, 3), 2, False, (1, 3)),
        ((1,) * 6, (1, 3), 0, False, ()),
    ],
)
def test_even_placement_by_hand(
    macs: tuple[int, ...], places: tuple[int, ...], count: int, by_macs: bool, positions: tuple[int, ...]
) -> None:
    outline = outline_of((len(macs),), macs)
    assert _even_positions(outline, places, count, by_macs=by_macs) == positions


def chain_gradients(objective: str) -> tuple[list[float], list[float]]:
    """Gradients of block weights and head weights of the scalar chain in `oracles`, loss the sum of all outputs."""
    blocks: list[nn.Module] = [nn.Linear(1, 1, bias=False) for _ in oracles.CHAIN_WEIGHTS]
    backbone = Backbone(stem=nn.Identity(), blocks=blocks, stages=(3,), head=nn.Linear(1, 2, bias=False))
    plan = Plan(backbone, Outline((3,), ((1,),) * 3, (1,) * 3, 2), Signature((1,), 2))
    EarlyExit.apply(EarlyExitChoice((0, 1), ("linear", "linear"), objective), plan)
    network = plan.lower(Architecture.of(backbone={}, families={}, training={}))
    heads = [*(step.head[0] for step in network.exit_steps), backbone.head]  # type: ignore[index]
    with torch.no_grad():
        for block, weight in zip(blocks, oracles.CHAIN_WEIGHTS, strict=True):
            block.weight.fill_(weight)  # type: ignore[operator]
        for head, weight in zip(heads, oracles.CHAIN_HEADS, strict=True):
            head.weight.fill_(weight)
    torch.stack([logits[0, 0] for logits in network(torch.ones(1, 1))]).sum().backward()  # type: ignore[no-untyped-call]
    return [float(block.weight.grad) for block in blocks], [float(head.weight.grad[0]) for head in heads]  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", TRAINING)
def test_gradients_reaching_the_backbone_by_hand(objective: str) -> None:
    blocks, heads = chain_gradients(objective)
    equilibrium = exit_objective(objective).equilibrium
    assert blocks == pytest.approx(oracles.EQUILIBRIUM_GRADIENTS if equilibrium else oracles.PLAIN_GRADIENTS)
    assert heads == pytest.approx(oracles.HEAD_GRADIENTS)


SIGNATURE = Signature((1, 8, 8), 4)
GOOD = {"positions": [0, 2], "heads": ["linear", "mlp"], "objective": "equal", "decisions": ["margin"]}


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"positions": [0, 4]}, "positions.1", "must be at most 2 here, but got 4"),
        ({"positions": [0, 3]}, "positions.1", "at most 2"),  # the last of four blocks: the final head is there
        ({"positions": [2, 0]}, "positions", "must ascend from 0, got [2, 0]"),
        ({"positions": [1, 1]}, "positions", "must ascend"),
        ({"positions": [-1, 1]}, "positions", "must ascend"),
        ({"positions": []}, "positions", "at least one exit"),
        ({"positions": [0, "x"]}, "positions.1", "but got 'x'"),
        ({"heads": ["linear"]}, "heads", "one head an exit, but got 1 for 2 exits"),
        ({"heads": ["linear", "mpl"]}, "heads.1", "did you mean 'mlp'"),
        ({"objective": "equl"}, "objective", "did you mean 'equal'"),
        ({"decisions": []}, "decisions", "at least one option"),
        ({"decisions": ["margin", "max_pro"]}, "decisions.1", "did you mean 'max_prob'"),
    ],
)
def test_bad_choices_name_their_place(change: dict[str, object], path: str, words: str) -> None:
    backbone = {"name": "residual", "width": 4, "depths": [2, 2]}
    training = next(iter(Space().baselines(SIGNATURE))).training
    build(Architecture.of(backbone=backbone, families={"early_exit": GOOD}, training=training), SIGNATURE)
    bad = Architecture.of(backbone=backbone, families={"early_exit": {**GOOD, **change}}, training=training)
    with pytest.raises(SpecError) as caught:
        build(bad, SIGNATURE)
    assert caught.value.path == f"architecture.families.early_exit.{path}"
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"max_exits": 0}, "max_exits"),
        ({"max_exits": 33}, "max_exits"),
        ({"min_exits": 2, "max_exits": 1}, "min_exits"),
        ({"min_exits": -1}, "min_exits"),
        ({"placement": "even"}, "placement"),
        ({"granularity": "blocks"}, "granularity"),
        ({"heads": []}, "heads"),
        ({"heads": ["mlp", "mlp"]}, "heads"),
        ({"training": ["equal", "none"]}, "training.1"),
        ({"decision": ["patience", "luck"]}, "decision.1"),
        ({"exits": 3}, "exits"),
    ],
)
def test_impossible_ranges_name_the_field(options: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        EarlyExit.from_mapping(options, "space.families.early_exit")
    assert caught.value.path == f"space.families.early_exit.{path}"


def test_misspelt_options_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'max_exits'"):
        EarlyExit.from_mapping({"max_exit": 3})


def test_only_the_schemes_asked_for_are_built_and_offered() -> None:
    family = EarlyExit(min_exits=1, decision=("patience", "margin"))
    space = Space((Residual(width=(4,), depth=(1,)),), (family,))
    assert space.decisions() == ("patience", "margin")
    network = build(next(iter(space.enumerate(SIGNATURE)))[1], SIGNATURE).eval()
    decided = {part.info.decision for part in network.parts()} - {None}
    assert decided == {"patience", "margin"}


def test_descriptions() -> None:
    assert EarlyExit.describe(EarlyExitChoice((1, 3), ("mlp", "mlp"), "equal")) == "exits 1,3 mlp equal"
    assert EarlyExit.describe(EarlyExitChoice((0, 2), ("mlp", "conv"), "linear")) == "exits 0,2 mlp+conv linear"
