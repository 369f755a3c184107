"""Tiles by hand: what is gathered, what is written back, what is counted and charged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dynarch.evaluators.operating import score
from dynarch.evaluators.score_table import score_tables
from dynarch.evaluators.splits import Part
from dynarch.evaluators.testing import made_up_book
from dynarch.hardware.inventory import costs_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Outline, Signature
from dynarch.spaces.backbones.inverted_residual import InvertedResidualBlock
from dynarch.spaces.backbones.residual import BasicBlock, ResidualChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import BlockSparse, LayerSkipping
from dynarch.spaces.gate import GateUnit
from dynarch.spaces.gating import Gating
from dynarch.spaces.gradients.straight_through import StraightThrough
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing, settings, trained
from dynarch.spaces.scope import enumerate_points
from dynarch.spaces.space import backbone_outline, build
from dynarch.spaces.step import Simulation
from dynarch.spaces.tile_step import TileStep, Tiling

SIGNATURE = Signature((1, 8, 8), 4)


class MeanGate(nn.Module):
    """A tile is open where its mean is above 0."""

    def forward(self, x: Tensor) -> Tensor:
        means = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False).reshape(-1, 1)
        return torch.cat([torch.zeros_like(means), means], 1)


class Sum(nn.Module):
    """The sum of the 3 x 3 numbers around each."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, torch.ones(1, 1, 3, 3))


def step() -> TileStep:
    unit = GateUnit(MeanGate(), "mean")
    return TileStep(0, unit, Sum(), Tiling(2, 1), gradient=StraightThrough(), knob="k", place=1.0)


@pytest.mark.parametrize("side", [4, 5])
def test_open_tiles_are_the_convolution_and_shut_ones_the_features(side: int) -> None:
    """The upper left tile is 1s, the lower right corner 2s, all else -1; tiles that stick out count what they hold."""
    x = -torch.ones(1, 1, side, side)
    x[..., :2, :2] = 1
    x[..., -1, -1] = 20 if side == 4 else 2
    dense = functional.conv2d(x, torch.ones(1, 1, 3, 3), padding=1)
    expected = x.clone()
    expected[..., :2, :2] = dense[..., :2, :2]
    corner = slice(2, 4) if side == 4 else slice(4, 5)
    expected[..., corner, corner] = dense[..., corner, corner]
    run = Simulation(x)
    step().simulate(run)
    assert torch.equal(run.features, expected)
    assert run.usage["tiles.0"].tolist() == run.usage["gather.0"].tolist() == run.usage["scatter.0"].tolist() == [2.0]


def test_features_are_left_as_they_were() -> None:
    x = torch.ones(2, 1, 4, 4)
    run = Simulation(x)
    step().simulate(run)
    assert torch.equal(x, torch.ones(2, 1, 4, 4))
    assert not torch.equal(run.features, x)


def test_parts_say_how_many_rows_an_input_may_bring() -> None:
    parts = {part.info.name: part for part in step().parts(Simulation(torch.ones(1, 1, 5, 4)))}
    assert {name: part.info.rows for name, part in parts.items()} == {
        "gate.0": 1,
        "frame.0": 1,
        "gather.0": 6,
        "tiles.0": 6,
        "scatter.0": 6,
    }
    assert set(parts) == set(step().names())
    assert parts["tiles.0"].inputs[0].shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("block", "halo"), [(BasicBlock(4, 4, 1), 2), (InvertedResidualBlock(4, 4, 1, 2), 1)], ids=["basic", "inverted"]
)
def test_blocks_on_tiles_are_the_blocks_away_from_the_border(block: Any, halo: int) -> None:
    """Beyond the border lie zeros; what a block makes of them on its way reaches in by its halo less one place."""
    block.eval()
    x = torch.randn(2, 4, 8, 8)
    tiling = Tiling(4, block.halo)
    assert block.halo == halo
    padded, room = tiling.frame(x)
    rows = torch.ones(2, 2, 2).nonzero().unbind(1)
    with torch.no_grad():
        made = tiling.scatter(room, block.on_tiles()(tiling.gather(padded, rows)), rows)  # type: ignore[arg-type]
        torch.testing.assert_close(made[..., halo:-halo, halo:-halo], block(x)[..., halo:-halo, halo:-halo])


def choice(blocks: list[int], tiles: list[int], **target: Any) -> dict[str, Any]:
    return {
        "blocks": blocks,
        "tiles": tiles,
        "gating": {"gate": "spatial", "gradient": "straight_through", "temperature": None, "schedule": None},
        "target": {"target": 0.5, "resource": "rate", "scope": "global", "weight": 1.0, **target},
    }


def architecture(sparse: dict[str, Any], **families: Any) -> Architecture:
    recipe = {"learning_rate": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0, "batch_size": 32, "shift": 0}
    return Architecture.of(
        backbone={"name": "residual", "width": 4, "depths": [1, 2]},
        families={"block_sparse": sparse, **families},
        training={**recipe, "flip": False},
    )


def shapes(depths: tuple[int, ...] = (1, 2)) -> Outline:
    """8 x 8 in the first stage, 4 x 4 in the second, whose first block changes the shape."""
    return backbone_outline("residual", ResidualChoice(4, depths), SIGNATURE)


def test_tiles_as_large_as_the_features_are_not_offered() -> None:
    family = BlockSparse(placement=("all",), tile=(2, 4, 8), gating=Gating(gate=("spatial",), gradient=("reinforce",)))
    made = [choice for _, choice in enumerate_points(lambda scope: family.suggest(scope, shapes()))]
    # Block 0 may have tiles of 2 and 4, block 2 of 2; three targets.
    assert {each.tiles for each in made if each} == {(2, 2), (4, 2)}
    assert len(made) == family.size(shapes()) == 2 * 3
    assert BlockSparse(tile=(8,)).size(shapes()) == 0
    # With tiles of 4 only the first stage is left.
    assert {each.blocks for each in BlockSparse(tile=(4,)).cover(shapes())} == {(0,)}


@pytest.mark.parametrize(
    ("sparse", "path", "words"),
    [
        (choice([0, 2], [2, 4]), "tiles.1", "covers the whole 4 x 4 features with tiles of 4; use layer_skipping"),
        (choice([1], [2]), "blocks.0", "keeps the shape of its features and can run on tiles"),
        (choice([0, 2], [2]), "tiles", "must have one side a block"),
    ],
)
def test_mistakes_name_their_place_and_the_remedy(sparse: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        build(architecture(sparse), SIGNATURE)
    assert caught.value.path == f"architecture.families.block_sparse.{path}"


def test_other_families_are_never_offered_the_spatial_gate() -> None:
    family = LayerSkipping(gating=Gating(gate=("spatial", "pooled_linear")))
    assert {each.gating.gate for each in family.cover(shapes())} == {"pooled_linear"}


def test_work_of_a_tile_by_hand() -> None:
    """4 channels: the first convolution makes 4 x 4 places for a tile of 2, the second 2 x 2, each 9 * 4 * 4."""
    network = build(architecture(choice([0], [2])), SIGNATURE).eval()
    costs = costs_of(network)
    work = dict(zip((part.name for part in costs.parts), costs.macs, strict=True))
    assert work["tiles.0"] == (16 + 4) * 9 * 4 * 4
    assert work["gather.0"] == work["scatter.0"] == work["frame.0"] == 0
    assert network.targets[0].rows == {"tiles.0": 16}
    # A rate is a share of open tiles: 4 and 12 of 16 are a half.
    prices = network.targets[0].prices({})
    assert float(network.targets[0].loss({"tiles.0": torch.tensor([4.0, 12.0])}, prices)) == pytest.approx(0.0)
    macs = replace(network.targets[0], choice=replace(network.targets[0].choice, resource="macs"))
    assert macs.prices({"macs": {"tiles.0": 5.0}}) == {"tiles.0": 80.0}
    assert macs.spent({"tiles.0": torch.tensor([4.0])}, {"tiles.0": 80.0}).tolist() == [[0.25]]


def test_open_tiles_are_what_is_scored() -> None:
    network = build(architecture(choice([0], [2])), SIGNATURE).eval()
    costs = costs_of(network)
    part = Part(torch.randn(12, 1, 8, 8), torch.zeros(12, dtype=torch.long))
    with torch.no_grad():
        gaps = network.simulate(part.x).margins["block_sparse"][0]
    assert gaps.shape == (12 * 16,)
    half = (("block_sparse", -float(gaps.median()) - 1e-6),)
    shut, opened = (("block_sparse", -100.0),), (("block_sparse", 100.0),)
    tables = score_tables(network, part, [(), half, shut, opened])
    book = made_up_book([costs], {"one": 1, "four": 4})
    points = [score(tables, costs, book, Policy("max_prob", (), each), seed=0) for each in (half, shut, opened)]
    assert [point.usage["tiles.0"] for point in points] == pytest.approx([0.5, 0.0, 1.0], abs=0.01)
    assert [point.decides for point in points] == [True, False, False]
    macs = [point.metrics["macs"] for point in points]
    assert macs[2] - macs[1] == pytest.approx(16 * (16 + 4) * 9 * 4 * 4)
    assert macs[0] - macs[1] == pytest.approx((macs[2] - macs[1]) * points[0].usage["tiles.0"])


RESOLUTION = {"shares": [0.5, 1.0], "decided": "external_budget", "gating": None, "target": None}
EXITS = {"positions": [0], "heads": ["mlp"], "objective": "equal", "decisions": ["max_prob"]}


@pytest.mark.parametrize(
    "others", [{"early_exit": EXITS}, {"adaptive_resolution": RESOLUTION}], ids=lambda d: next(iter(d))
)
def test_it_goes_together_with_exits_and_resolutions(others: dict[str, Any]) -> None:
    """At half the resolution the features of the second stage are 2 x 2: one tile."""
    network, x = trained(architecture(choice([0, 2], [2, 2]), **others), SIGNATURE, inputs=12)
    exits = ((None,), (-float("inf"),)) if network.exits else ((),)
    for setting in settings(network, x, seed=0):
        for thresholds in exits:
            check_routing(network, x, Policy("max_prob", thresholds, tuple(setting.items())))


def test_shuffled_tiles_keep_their_number() -> None:
    network = build(architecture(choice([0], [2])), SIGNATURE).eval()
    x = torch.randn(12, 1, 8, 8)
    with torch.no_grad():
        setting = {"block_sparse": -float(network.simulate(x).margins["block_sparse"][0].median())}
        kept = network.simulate(x, setting=setting).usage["tiles.0"]
        mixed = network.simulate(x, setting=setting, shuffle=torch.Generator().manual_seed(0)).usage["tiles.0"]
    assert float(kept.sum()) == float(mixed.sum())
    assert not torch.equal(kept, mixed)


def test_reinforce_sees_one_decision_an_input() -> None:
    sparse = choice([0], [2])
    sparse["gating"]["gradient"] = "reinforce"
    network = build(architecture(sparse), SIGNATURE).train()
    run = network.simulate(torch.randn(6, 1, 8, 8), progress=0.9, generator=torch.Generator().manual_seed(0))
    assert [each.shape for each in run.log_probs] == [(6,)]
