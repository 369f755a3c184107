"""Families that make rows of tokens shorter: what runs under each share, and where they fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import VisionTransformer
from dynarch.spaces.backbones.vision_transformer import VisionTransformerChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import TokenMerging, TokenPruning
from dynarch.spaces.families.spatial.token_merging import TokenMergingChoice
from dynarch.spaces.families.spatial.token_pruning import TokenPruningChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing, settings, trained
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.scope import Replay, Scope
from dynarch.spaces.shorter import distinct
from dynarch.spaces.space import backbone_outline

SIGNATURE = Signature((1, 8, 8), 4)
EMPTY = Architecture.of(backbone={}, families={}, training={})
BACKBONE = VisionTransformerChoice(2, 8, 3, 2, 2, "class")  # 16 squares and a class token
SHARES = (0.5, 0.75, 1.0)


def planned() -> Plan:
    torch.manual_seed(0)
    built = VisionTransformer.build(BACKBONE, SIGNATURE).eval()
    return Plan(built, backbone_outline(VisionTransformer.name, BACKBONE, SIGNATURE), SIGNATURE)


def lowered(family: Any, choice: Any) -> DynamicNetwork:
    plan = planned()
    family.apply(choice, plan)
    return plan.lower(EMPTY).eval()


PRUNED = TokenPruningChoice((1, 2), SHARES, False)
FUSED = TokenPruningChoice((1, 2), SHARES, True)
MERGED = TokenMergingChoice((1, 2), SHARES, False)


@pytest.mark.parametrize(
    ("family", "choice", "rows"),
    [
        # Of 17 tokens 8 or 12 stay, of those 4 or 9.
        (TokenPruning, PRUNED, {"keep0.5": [8, 4], "keep0.75": [12, 9], "keep1": [17, 17]}),
        # With one more for the rest: 9 and 13, of which 4 + 1 and 9 + 1.
        (TokenPruning, FUSED, {"keep0.5": [9, 5], "keep0.75": [13, 10], "keep1": [17, 17]}),
        # Of 17 the 9 first ones, but the class token, can go: 8, so 9 are left; of 9 4, so 5 (class, 4 others).
        (TokenMerging, MERGED, {"keep0.5": [9, 5], "keep0.75": [12, 9], "keep1": [17, 17]}),
    ],
    ids=["pruned", "fused", "merged"],
)
def test_blocks_run_on_so_many_tokens(family: Any, choice: Any, rows: dict[str, list[int]]) -> None:
    network = lowered(family, choice)
    seen: list[int] = []
    for module in network.modules():
        if type(module).__name__ == "TransformerBlock":
            module.register_forward_hook(lambda _module, given, _made: seen.append(given[0].shape[1]))
    knob = family.name
    for level, name in zip((-2.0, -1.0, 0.0), rows, strict=True):
        seen.clear()
        network.route(torch.rand(1, 1, 8, 8), Policy("max_prob", (), ((knob, level),)))
        assert seen == [17, *rows[name]]


@torch.no_grad()
@pytest.mark.parametrize(("family", "choice"), [(TokenPruning, FUSED), (TokenMerging, MERGED)])
def test_where_all_stay_the_network_is_the_static_one(family: Any, choice: Any) -> None:
    network, plain = lowered(family, choice), planned().lower(EMPTY).eval()
    x = torch.rand(4, 1, 8, 8)
    assert network.levels == {family.name: (-2.0, -1.0, 0.0)}
    torch.testing.assert_close(network(x)[-1], plain(x)[-1])
    less = network.simulate(x, setting={family.name: -2.0}).logits[-1]
    assert not torch.allclose(less, plain(x)[-1])
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())


def test_merging_is_not_trained_unless_asked_for() -> None:
    x = torch.rand(16, 1, 8, 8)
    plain = planned().lower(EMPTY).train()
    for also in (False, True):
        network = lowered(TokenMerging, TokenMergingChoice((1,), SHARES, also)).train()
        made = network.simulate(x, progress=0.5, generator=torch.Generator().manual_seed(0)).logits[-1]
        assert torch.allclose(made, plain(x)[-1], atol=1e-6) is not also


def test_blocks_look_at_masses_only_where_tokens_are_merged() -> None:
    network = lowered(TokenMerging, MERGED)
    weighted = {
        module.weighted
        for name, module in network.named_modules()
        if type(module).__name__ == "TransformerBlock" and "rest.2" in name
    }
    assert weighted == {False}
    assert any(getattr(module, "weighted", False) for module in network.modules())


@pytest.mark.parametrize(
    ("shares", "tokens", "apart"),
    [
        ((0.5, 0.75, 1.0), 17, True),
        ((0.5, 0.75, 1.0), 5, True),  # 2, 3 and one more, 5
        ((0.5, 0.75, 1.0), 4, False),  # 3 and one more are all
        ((0.5, 0.6, 1.0), 6, False),  # 3 and 3
    ],
)
def test_shares_that_leave_equally_many_are_not_offered(shares: tuple[float, ...], tokens: int, apart: bool) -> None:
    assert distinct(shares, tokens) is apart


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: TokenPruningChoice((0, 1), SHARES, False), "blocks.0"),
        (lambda: TokenPruningChoice((1,), (0.5, 0.75), False), "shares"),
        (lambda: TokenPruning(shares=(SHARES, (1.0,))), "shares.1"),
        (lambda: TokenMerging(shares=((0.4, 1.0),)), "shares.0"),
        (lambda: lowered(TokenPruning, TokenPruningChoice((3,), SHARES, False)), "blocks.0"),
        (lambda: lowered(TokenPruning, TokenPruningChoice((1,), (0.97, 0.98, 1.0), False)), "shares"),
    ],
)
def test_impossible_choices_name_the_field(make: Any, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.path == path


@pytest.mark.parametrize("shorter", ["token_pruning", "token_merging"])
def test_shorter_rows_go_with_slices_and_exits(shorter: str) -> None:
    """Three families on one transformer: routed mode does what simulated mode says under every share."""
    gating = {"gate": "pooled_linear", "gradient": "straight_through"}
    target = {"target": 0.6, "resource": "macs", "scope": "global", "weight": 10.0}
    families = {
        "slimmable_width": {"blocks": [0, 2], "shares": [0.5, 1.0], "gating": gating, "target": target},
        "early_exit": {"positions": [1], "heads": ["linear"], "objective": "equal"},
        shorter: (PRUNED if shorter == "token_pruning" else MERGED).to_mapping(),
    }
    training = Recipe().suggest(Scope(Replay({})), exits=True).to_mapping()
    backbone = {"name": "vision_transformer", **BACKBONE.to_mapping()}
    network, x = trained(Architecture.of(backbone=backbone, families=families, training=training), SIGNATURE, inputs=12)
    for setting in settings(network, x, seed=0, most=6):
        for threshold in (None, -math.inf):
            policy = Policy("max_prob", (threshold,), tuple(sorted(setting.items())))
            assert check_routing(network, x, policy).tolist() == [0 if threshold else 1] * 12
