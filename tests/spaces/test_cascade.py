"""A small network before a large one: what each input runs, and what goes together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.backbones.residual import ResidualChoice
from dynarch.spaces.errors import SpecError, UnknownNameError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.families import Cascade, EarlyExit
from dynarch.spaces.families.sample import CascadeChoice, EarlyExitChoice
from dynarch.spaces.little import Little, LittleChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.recipe import Recipe, RecipeChoice
from dynarch.spaces.space import Space, build
from dynarch.spaces.trace import Recorder

SIGNATURE = Signature((1, 4, 4), 3)
LITTLE = LittleChoice("residual", ResidualChoice(2, (1,)))
RECIPE = RecipeChoice(0.01, 0.0, 0.0, 8, 0, False).to_mapping()


def architecture(cascade: CascadeChoice, exits: EarlyExitChoice | None = None) -> Architecture:
    big = {"name": "residual", **ResidualChoice(4, (1, 1)).to_mapping()}
    families = {"cascade": cascade.to_mapping(), **({"early_exit": exits.to_mapping()} if exits else {})}
    return Architecture.of(backbone=big, families=families, training=RECIPE)


def network(exits: EarlyExitChoice | None = None) -> DynamicNetwork:
    torch.manual_seed(0)
    return build(architecture(CascadeChoice(LITTLE), exits), SIGNATURE).eval()


def test_the_little_network_answers_alone_and_hands_on_the_input() -> None:
    made, x = network(), torch.randn(6, 1, 4, 4)
    little = made.exit_steps[0].head
    with torch.no_grad():
        scores = little(x).softmax(1).amax(1)
    border = float(scores.sort().values[2:4].mean())  # three are surer
    recorder = Recorder(6)
    routed = made.route(x, Policy("max_prob", (border,)), recorder)
    left = scores > border
    assert routed.exit_taken.tolist() == [0 if gone else 1 for gone in left.tolist()]
    torch.testing.assert_close(routed.logits[left], little(x)[left])
    alone = Residual.build(ResidualChoice(4, (1, 1)), SIGNATURE).eval()
    names = [info.name for info in (part.info for part in made.parts())]
    assert names[:2] == ["segment.0", "exit.0"]
    assert recorder.totals()["segment.1"] == 3
    modules = (alone, little, made.exit_steps[0].learned)
    assert sum(map(_weights, modules)) == _weights(made)


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_exits_within_the_large_network_come_after_it() -> None:
    made = network(EarlyExitChoice((0,), ("linear",), "equal"))
    assert [step.index for step in made.exit_steps] == [0, 1]
    assert [isinstance(step, ExitStep) for step in made.steps] == [False, True, False, True, False]
    recorder = Recorder(4)
    made.route(torch.randn(4, 1, 4, 4), Policy.single(2, 1), recorder)
    assert recorder.totals() == {"segment.0": 4, "segment.1": 4, "exit.1": 4}


def test_families_that_decide_differently_do_not_go_together() -> None:
    with pytest.raises(SpecError, match="a policy decides by one scheme at all exits") as caught:
        Space(families=(Cascade(), EarlyExit(decision=("margin",))))
    assert caught.value.path == "families.early_exit.decision"
    with pytest.raises(SpecError, match="must allow the same decision schemes") as caught:
        build(architecture(CascadeChoice(LITTLE), EarlyExitChoice((0,), ("linear",), "equal", ("margin",))), SIGNATURE)
    assert caught.value.path == "architecture.families.decisions"


def test_ranges_of_the_little_network_survive_a_document() -> None:
    family = Cascade(little=Little((Residual(width=(2,), depth=(1, 2), stages=2),)))
    assert Cascade.from_mapping(family.to_mapping()) == family
    space = Space((Residual(width=(4,), depth=(1,), stages=2),), (family,), Recipe())
    assert space.size(SIGNATURE) == 1 + 2**2
    with pytest.raises(UnknownNameError) as caught:
        Cascade.from_mapping({"little": {"residul": {}}}, "space.families.cascade")
    assert caught.value.path == "space.families.cascade.little.residul"


def test_a_little_network_that_cannot_take_the_inputs_is_refused() -> None:
    deep = LittleChoice("residual", ResidualChoice(2, (1, 1, 1, 1)))
    with pytest.raises(SpecError, match="cannot be halved 3 times") as caught:
        build(architecture(CascadeChoice(deep)), SIGNATURE)
    assert caught.value.path == "architecture.families.cascade.little"
