"""What exits and gates see: a backbone whose features are a state of 3 numbers and 4 that nobody has read yet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Signature, outline
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import EarlyExit, LayerSkipping
from dynarch.spaces.families.sample.early_exit import EarlyExitChoice
from dynarch.spaces.families.sample.layer_skipping import LayerSkippingChoice
from dynarch.spaces.gating import Gating, GatingChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing
from dynarch.spaces.resource import ResourceChoice
from dynarch.spaces.scope import enumerate_points

SIGNATURE = Signature((7,), 2)
GATES = ("pooled_linear", "convolutional", "recurrent", "policy_network")


class Columns(nn.Module):
    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.first]


class Read(nn.Module):
    """Adds to the state what it makes of everything; hands on the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :3] + self.cell(x), x[:, 3:]], 1)


def backbone() -> Backbone:
    torch.manual_seed(0)
    blocks: list[nn.Module] = [Read(), Read(), Read()]
    head = nn.Sequential(Columns(3), nn.Linear(3, 2))
    made = Backbone(stem=nn.Identity(), blocks=blocks, stages=(3,), head=head, view=Columns(3), peek=Columns(5))
    return made.eval()


BUILT = backbone()
OUTLINE = outline(BUILT, SIGNATURE)


def lowered(family: Any, choice: Any) -> DynamicNetwork:
    plan = Plan(BUILT, OUTLINE, SIGNATURE)
    family.apply(choice, plan)
    return plan.lower(Architecture.of(backbone={}, families={}, training={})).eval()


def exits(head: str) -> EarlyExitChoice:
    return EarlyExitChoice((0, 1), (head, head), "equal")


def skips(gate: str) -> LayerSkippingChoice:
    target = ResourceChoice(0.5, "rate", "global", 1.0)
    return LayerSkippingChoice((0, 2), GatingChoice(gate, "straight_through"), target)


def test_the_outline_tells_what_is_seen() -> None:
    assert OUTLINE.view_shapes == ((3,),) * 3
    assert OUTLINE.peek_shapes == ((5,),) * 3
    assert OUTLINE.feature_shapes == ((7,),) * 3


def test_by_default_the_features_are_seen() -> None:
    plain = outline(Backbone(stem=nn.Identity(), blocks=[Read()], stages=(1,), head=nn.Linear(7, 2)), SIGNATURE)
    assert (plain.viewed(0), plain.peeked(0)) == ((7,), (7,))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_an_exit_does_not_see_what_is_not_read(head: str) -> None:
    network = lowered(EarlyExit, exits(head))
    step = network.exit_steps[0]
    seen, unread = torch.randn(4, 3), torch.randn(2, 4, 4)
    with torch.no_grad():
        first, second = (step.tempered(torch.cat([seen, rest], 1)) for rest in unread)
    assert torch.equal(first, second)


@pytest.mark.parametrize("gate", ["pooled_linear", "recurrent", "policy_network", "halting"])
def test_a_gate_sees_the_peek_and_no_more(gate: str) -> None:
    network = lowered(LayerSkipping, skips(gate))
    x = torch.randn(6, 7)
    beyond = torch.cat([x[:, :5], torch.randn(6, 2)], 1)
    within = torch.cat([x[:, :3], torch.randn(6, 4)], 1)
    with torch.no_grad():
        gaps, same, other = (network.simulate(each).margins["layer_skipping"][0] for each in (x, beyond, within))
    assert torch.equal(gaps, same)
    assert not torch.equal(gaps, other)
    check_routing(network, x, Policy("max_prob", (), (("layer_skipping", -float(gaps.median()) + 1e-3),)))


def test_what_fits_no_flat_view_is_not_offered() -> None:
    family = EarlyExit(heads=("conv", "linear", "mlp"), max_exits=2)
    made = [choice for _, choice in enumerate_points(lambda scope: family.suggest(scope, OUTLINE))]
    # No exits; one of two places with 2 heads, or both with 2 x 2; 3 objectives.
    assert len(made) == family.size(OUTLINE) == 1 + 2 * 2 * 3 + 4 * 3
    assert {head for choice in made if choice for head in choice.heads} == {"linear", "mlp"}
    assert all("conv" not in choice.heads for choice in family.cover(OUTLINE))
    skipping = LayerSkipping(gating=Gating(gate=GATES))
    chosen = [choice for _, choice in enumerate_points(lambda scope: skipping.suggest(scope, OUTLINE))]
    assert len(chosen) == skipping.size(OUTLINE)
    assert {choice.gating.gate for choice in chosen if choice} == set(GATES) - {"convolutional"}


def test_a_family_that_nothing_of_fits_is_not_offered() -> None:
    assert EarlyExit(heads=("conv",)).size(OUTLINE) == 1
    assert list(EarlyExit(heads=("conv",)).cover(OUTLINE)) == []
    assert LayerSkipping(gating=Gating(gate=("convolutional",))).size(OUTLINE) == 0
    assert list(LayerSkipping(gating=Gating(gate=("convolutional",))).cuts(OUTLINE)) == []


@pytest.mark.parametrize(
    ("family", "choice", "path", "known"),
    [
        (EarlyExit, exits("conv"), "heads.0", r"\(3,\) \(linear, mlp\), but got 'conv'"),
        (LayerSkipping, skips("convolutional"), "gating.gate", r"\(5,\) \(pooled_linear, .*but got 'convolutional'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(family: Any, choice: Any, path: str, known: str) -> None:
    with pytest.raises(SpecError, match=known) as caught:
        lowered(family, choice)
    assert caught.value.path == path


def test_tokens_tell_views_apart() -> None:
    """Two backbones may show their exits something else of equal features: equal tokens would promise equal work."""
    other = Backbone(stem=BUILT.stem, blocks=list(BUILT.blocks), stages=(3,), head=BUILT.head, view=Columns(4))
    plan = Plan(other, outline(other, SIGNATURE), SIGNATURE)
    EarlyExit.apply(exits("linear"), plan)
    networks = (lowered(EarlyExit, exits("linear")), plan.lower(Architecture.of(backbone={}, families={}, training={})))
    tokens = [[part.token for part in network.parts() if part.info.kind == "exit"] for network in networks]
    assert not set(tokens[0]) & set(tokens[1])
