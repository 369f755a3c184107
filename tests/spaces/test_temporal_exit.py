"""Temporal exits by hand: who leaves early gets the answer of the whole network to what it has read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature, outline
from dynarch.spaces.backbones.recurrent import Recurrent, RecurrentChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import EarlyExit, TemporalExit
from dynarch.spaces.families.sample import EarlyExitChoice
from dynarch.spaces.families.temporal import TemporalExitChoice
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.space import Space

SEQUENCE = Signature((6, 1 + 2), 3, "sequence")


def inputs(count: int) -> Tensor:
    x = random_inputs(SEQUENCE, count, torch.Generator().manual_seed(0))
    x[..., 0] = 1
    return x


def test_an_exit_answers_as_if_the_input_ended_there() -> None:
    torch.manual_seed(0)
    plain = Recurrent.build(RecurrentChoice(4, "gru", 3), SEQUENCE).eval()
    plan = Plan(plain, outline(plain, SEQUENCE), SEQUENCE)
    TemporalExit.apply(TemporalExitChoice((0, 1), "equal"), plan)
    made = plan.lower(Architecture.of(backbone={}, families={}, training={})).eval()
    assert made.exits == 2
    scores = sum(weight.numel() for step in made.exit_steps for weight in step.learned.parameters())
    assert scores == 2 * (3 + SEQUENCE.classes)  # the heads are the final one, their learned scores are their own
    own = sum(weight.numel() for weight in made.parameters()) - scores
    assert own == sum(weight.numel() for weight in plain.parameters())
    x = inputs(4)
    with torch.no_grad():
        logits = made(x)
        for steps, answer in zip((2, 4, 6), logits, strict=True):
            shown = x.clone()
            shown[:, steps:] = 0
            torch.testing.assert_close(answer, plain(shown), rtol=0, atol=1e-5)
    for number in range(3):
        routed = made.route(x, Policy.single(2, number) if number < 2 else Policy.never(2))
        torch.testing.assert_close(routed.logits, logits[number], rtol=0, atol=1e-5)


def test_exits_of_both_families_are_numbered_in_order() -> None:
    plain = Recurrent.build(RecurrentChoice(4, "gru", 3), SEQUENCE).eval()
    plan = Plan(plain, outline(plain, SEQUENCE), SEQUENCE)
    EarlyExit.apply(EarlyExitChoice((1,), ("linear",), "equal"), plan)
    TemporalExit.apply(TemporalExitChoice((0,), "equal"), plan)
    made = plan.lower(Architecture.of(backbone={}, families={}, training={})).eval()
    assert [step.index for step in made.exit_steps] == [0, 1]
    assert [part.info.name for part in made.parts() if part.info.kind == "exit"] == ["exit.0", "exit.1"]
    other = Plan(plain, outline(plain, SEQUENCE), SEQUENCE)
    EarlyExit.apply(EarlyExitChoice((1,), ("linear",), "equal", ("entropy",)), other)
    TemporalExit.apply(TemporalExitChoice((0,), "equal"), other)
    with pytest.raises(SpecError, match="must allow the same decision schemes"):
        other.lower(Architecture.of(backbone={}, families={}, training={}))


def test_places_and_options_are_checked() -> None:
    space = Space((Recurrent(width=(4,), cell=("gru",), chunks=(1, 3)),), (TemporalExit(),))
    # One chunk: none; three: none, or after 0 and 1, or after 1 alone (alternate and late alike), two objectives each.
    assert space.size(SEQUENCE) == 1 + (1 + 2 * 2)
    plain = Recurrent.build(RecurrentChoice(4, "gru", 3), SEQUENCE).eval()
    plan = Plan(plain, outline(plain, SEQUENCE), SEQUENCE)
    with pytest.raises(SpecError, match="reads a chunk with another behind it") as caught:
        TemporalExit.apply(TemporalExitChoice((1, 2), "equal"), plan)
    assert caught.value.path == "blocks.1"
    with pytest.raises(SpecError, match="a head that all exits share; use") as caught:
        TemporalExitChoice((0,), "gradient_equilibrium")
    assert caught.value.path == "objective"
    with pytest.raises(SpecError, match="is not known") as caught:
        TemporalExit(training=("gradient_equilibrium",))
    assert caught.value.path == "training.0"


def test_a_description() -> None:
    assert TemporalExit.describe(TemporalExitChoice((0, 2), "linear")) == "leaves after 0,2 linear"
