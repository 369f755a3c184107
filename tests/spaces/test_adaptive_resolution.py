"""Adaptive resolution: which sizes fit, what the gate sees, and what it goes together with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dynarch.evaluators.knobs import settings_of
from dynarch.evaluators.operating import cheapest_ms, score
from dynarch.evaluators.score_table import score_tables
from dynarch.evaluators.splits import Part
from dynarch.evaluators.testing import made_up_book
from dynarch.hardware.inventory import Costs, costs_of, inventory
from dynarch.hardware.ways import paths
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Outline, Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.backbones.residual import ResidualChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import AdaptiveResolution, EarlyExit, SqueezeExcitation
from dynarch.spaces.families.spatial.adaptive_resolution import AdaptiveResolutionChoice, scaled
from dynarch.spaces.fork_step import ForkStep, Variant
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing, settings, trained
from dynarch.spaces.space import Space, backbone_outline, build

SIGNATURE = Signature((1, 8, 8), 4)
GATE = {
    "shares": [0.5, 1.0],
    "decided": "gate",
    "gating": {"gate": "convolutional", "gradient": "straight_through", "temperature": None, "schedule": None},
    "target": {"target": 0.6, "resource": "macs", "scope": "global", "weight": 10.0},
}
BUDGET = {"shares": [0.5, 0.75, 1.0], "decided": "external_budget", "gating": None, "target": None}
EXITS = {"positions": [0], "heads": ["mlp"], "objective": "equal", "decisions": ["max_prob"]}
SQUEEZE = {"blocks": [0, 1], "reduction": 4}


def architecture(resolution: dict[str, Any], **families: Any) -> Architecture:
    recipe = {"learning_rate": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0, "batch_size": 32, "shift": 0}
    return Architecture.of(
        backbone={"name": "residual", "width": 4, "depths": [1, 1]},
        families={"adaptive_resolution": resolution, **families},
        training={**recipe, "flip": False},
    )


def shapes(depths: tuple[int, ...] = (1, 1), side: int = 8) -> Outline:
    return backbone_outline("residual", ResidualChoice(4, depths), Signature((1, side, side), 4))


def test_sides_by_hand() -> None:
    assert [scaled((3, 32, 24), share) for share in (0.25, 0.5, 1.0)] == [(8, 6), (16, 12), (32, 24)]


@pytest.mark.parametrize(
    ("shares", "depths", "side", "offered"),
    [
        ((0.25, 1.0), (1, 1), 8, True),  # 2 x 2 can be halved once
        ((0.25, 1.0), (1, 1, 1), 8, False),  # and not twice
        ((0.9, 1.0), (1,), 4, False),  # both are 4 x 4
        ((0.5, 0.55, 1.0), (1,), 8, False),  # 4.4 rounds to 4
    ],
)
def test_only_sizes_that_the_backbone_takes_are_offered(
    shares: tuple[float, ...], depths: tuple[int, ...], side: int, offered: bool
) -> None:
    family = AdaptiveResolution(shares=(shares,), decided=("external_budget",))
    assert family.size(shapes(depths, side)) == int(offered)
    assert len(list(family.cover(shapes(depths, side)))) == int(offered)


def test_a_backbone_of_one_shape_is_not_offered_and_refused() -> None:
    rigid = replace(shapes(), least_side=None)
    assert AdaptiveResolution().size(rigid) == 0
    plan = Plan(Residual.build(ResidualChoice(4, (1, 1)), SIGNATURE), rigid, SIGNATURE)
    with pytest.raises(SpecError, match="takes inputs of one shape only") as caught:
        AdaptiveResolution.apply(AdaptiveResolutionChoice.from_mapping(BUDGET), plan)
    assert caught.value.path == "shares"


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"shares": [0.1, 1.0]}, "shares", "1 x 1 is below this backbone's least side of 2"),
        ({"decided": "external_budget"}, "gating", "belongs to decided = 'gate'"),
        ({"gating": {**GATE["gating"], "gate": "recurrent"}}, "gating.gate", "is not known"),  # type: ignore[dict-item]
    ],
)
def test_mistakes_name_their_place(change: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        build(architecture({**GATE, **change}), SIGNATURE)
    assert caught.value.path == f"architecture.families.adaptive_resolution.{path}"


def test_two_forks_are_refused_with_the_reason() -> None:
    outline = shapes()
    plan = Plan(Residual.build(ResidualChoice(4, (1, 1)), SIGNATURE), outline, SIGNATURE)
    AdaptiveResolution.apply(AdaptiveResolutionChoice.from_mapping(BUDGET), plan)
    variants = (Variant("a", None, 0.5), Variant("b", None, 1.0))
    plan.insert_after(0, ForkStep(variants, gate=None, knob="tokens"))
    with pytest.raises(SpecError, match="drop one of adaptive_resolution and tokens"):
        plan.lower(architecture(BUDGET))


@pytest.mark.parametrize("resolution", [GATE, BUDGET], ids=["gate", "budget"])
def test_it_goes_together_with_exits_and_squeeze_and_excitation(resolution: dict[str, Any]) -> None:
    network, x = trained(architecture(resolution, early_exit=EXITS, squeeze_excitation=SQUEEZE), SIGNATURE, inputs=24)
    assert network.exits == 1
    with torch.no_grad():
        exit_logits = network.simulate(x).logits[0]
    sure = exit_logits.softmax(1).amax(1).sort().values
    border = float(sure[11:13].mean())  # half of the inputs leave
    for setting in settings(network, x, seed=0):
        for thresholds in ((None,), (border,), (-float("inf"),)):
            check_routing(network, x, Policy("max_prob", thresholds, tuple(setting.items())))


def network_and_costs(resolution: dict[str, Any]) -> tuple[DynamicNetwork, Costs]:
    torch.manual_seed(0)
    network = build(architecture(resolution), SIGNATURE).eval()
    return network, costs_of(network)


def test_work_at_each_level_of_a_budget() -> None:
    """Convolutions cost in proportion to places: 4 x 4 and 6 x 6 of 8 x 8 are 1/4 and 9/16."""
    network, costs = network_and_costs(BUDGET)
    x = torch.randn(6, 1, 8, 8)
    found = settings_of(network, Part(x, torch.zeros(6, dtype=torch.long)))
    assert found == ((), (("adaptive_resolution", -2.0),), (("adaptive_resolution", -1.0),))
    tables = score_tables(network, Part(x, torch.zeros(6, dtype=torch.long)), found)
    book = made_up_book([costs], {"one": 1, "four": 4})
    points = [score(tables, costs, book, Policy("max_prob", (), setting), seed=0) for setting in found]
    head = 8 * 4  # the last linear layer sees pooled features
    convolutions = [point.metrics["macs"] - head for point in points]
    assert convolutions[1] / convolutions[0] == pytest.approx(1 / 4, rel=1e-6)
    assert convolutions[2] / convolutions[0] == pytest.approx(9 / 16, rel=1e-6)
    assert not any(point.decides for point in points), "all inputs take the same way"
    for name in ("one", "four"):
        assert cheapest_ms(costs, book.devices[name]) == pytest.approx(points[1].metrics[f"latency_ms@{name}"])
        worst = {point.metrics[f"latency_worst_ms@{name}"] for point in points}
        assert worst == {points[0].metrics[f"latency_worst_ms@{name}"]}, "the longest path is that at full size"


def test_calibration_times_every_level() -> None:
    network, _ = network_and_costs(BUDGET)
    assert [dict(policy.setting)["adaptive_resolution"] for policy, _ in paths(network)] == [-2.0, -1.0, 0.0]


def test_a_gate_is_charged_and_its_decisions_can_be_shuffled() -> None:
    network, costs = network_and_costs(GATE)
    assert network.targets[0].branches == (("@r4", "@r8"),)
    prices = network.targets[0].prices({"macs": dict(zip((p.name for p in costs.parts), costs.macs, strict=True))})
    head = 8 * 4
    assert (prices["@r4"] - head) / (prices["@r8"] - head) == pytest.approx(1 / 4, rel=1e-6)
    x = torch.randn(40, 1, 8, 8)
    with torch.no_grad():
        gaps = network.simulate(x).margins["adaptive_resolution"][0]
        setting = {"adaptive_resolution": -float(gaps.median()) + 1e-4}
        kept = network.simulate(x, setting=setting)
        mixed = network.simulate(x, setting=setting, shuffle=torch.Generator().manual_seed(0))
    small = [run.usage["enter@r4"] for run in (kept, mixed)]
    assert float(small[0].sum()) == float(small[1].sum())
    assert not torch.equal(*small)


def test_the_inventory_of_a_joint_space_holds_all_parts_of_its_members() -> None:
    resolution = AdaptiveResolution(shares=((0.5, 1.0),), decided=("external_budget", "gate"))
    families = (EarlyExit(max_exits=1, heads=("linear", "mlp")), SqueezeExcitation(placement=("late",)), resolution)
    space = Space((Residual(width=(4,), depth=(1,), stages=2),), families)
    assert space.size(SIGNATURE) == len({made for _, made in space.enumerate(SIGNATURE)})
    known = inventory(space, SIGNATURE, compaction=True).parts.keys()
    picked = [made for number, (_, made) in enumerate(space.enumerate(SIGNATURE)) if number % 7 == 0]
    for made in picked:
        assert set(costs_of(build(made, SIGNATURE).eval()).keys) <= known
