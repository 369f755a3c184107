"""Learned confidence: its loss by hand, whom it teaches, what it finds out, and that routed mode decides by it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dynarch.evaluators.confidence import confidence_loss, fit_confidence
from dynarch.evaluators.policy import leave_at
from dynarch.evaluators.score_table import score_tables
from dynarch.evaluators.splits import Part
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.decisions import decision
from dynarch.spaces.decisions.learned_confidence import Evidence
from dynarch.spaces.errors import ShapeError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.step import SegmentStep

NAME = "learned_confidence"


def network() -> DynamicNetwork:
    """Inputs are the logits of the exit."""
    torch.manual_seed(0)
    steps = [
        SegmentStep(0, nn.Sequential(nn.Linear(3, 3)), final=False),
        ExitStep(0, nn.Identity(), decisions=(decision(NAME), decision("max_prob")), classes=3),
        SegmentStep(1, nn.Sequential(nn.Linear(3, 3)), final=True),
    ]
    made = DynamicNetwork(Architecture.of(backbone={}, families={}, training={}), Signature((3,), 3), steps)
    first = steps[0].get_submodule("body.0")
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.eye(3))
        first.bias.zero_()
    return made.eval()


def test_the_loss_by_hand() -> None:
    """Two exits: the first right and wrong at 0.8, the second right twice at 0.5; the mean over exits."""
    labels = torch.tensor([0, 1])
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    scores = {NAME: [torch.tensor([0.8, 0.8]), torch.tensor([0.5, 0.5])]}
    expected = (-(math.log(0.8) + math.log(0.2)) / 2 + math.log(2)) / 2
    assert float(confidence_loss(scores, [first, second, second], labels)) == pytest.approx(expected, abs=1e-6)
    assert float(confidence_loss({}, [first], labels)) == 0


def test_the_loss_teaches_the_score_and_nothing_else() -> None:
    made = network().train()
    run = made.simulate(torch.randn(8, 3), progress=0.0)
    confidence_loss(run.scores, run.logits, torch.arange(8) % 3).backward()  # type: ignore[no-untyped-call]
    taught = {name for name, weight in made.named_parameters() if weight.grad is not None}
    assert taught == {f"steps.1.learned.{NAME}.{name}" for name in ("weights", "offset")}


def test_classes_that_are_often_mistaken_score_less() -> None:
    """Equally sharp answers, of which those for class 0 are wrong and those for class 1 are right."""
    made = network()
    x = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).repeat(30, 1)
    before = made.simulate(x[:2]).scores[NAME][0]
    assert float(before[0]) == pytest.approx(float(before[1]))
    fit_confidence(made, Part(x, torch.tensor([2, 1]).repeat(30)))
    wrong, right = made.simulate(x[:2]).scores[NAME][0].tolist()
    assert wrong < 0.2
    assert right > 0.8


def test_routed_mode_decides_by_what_the_table_holds() -> None:
    made, x = network(), torch.randn(40, 3)
    learned = made.exit_steps[0].learned_of(NAME)
    assert isinstance(learned, Evidence)
    with torch.no_grad():
        learned.offset.copy_(torch.tensor([1.0, -1.0, 0.0]))
    table = score_tables(made, Part(x, torch.zeros(40, dtype=torch.long))).plain
    assert set(table.scores) == {NAME, "max_prob", "entropy", "margin"}
    scores = sorted(table.scores[NAME][:, 0].tolist())
    policy = Policy(NAME, ((scores[19] + scores[20]) / 2,))
    taken = leave_at(table.scores, table.predictions, policy)
    assert taken.sum() == 20
    assert made.route(x, policy).exit_taken.tolist() == taken.tolist()
    assert torch.cat([made.route(row[None], policy).exit_taken for row in x]).tolist() == taken.tolist()
    assert taken.tolist() != leave_at(table.scores, table.predictions, Policy("max_prob", policy.thresholds)).tolist()


def test_an_exit_that_learns_must_know_its_classes() -> None:
    with pytest.raises(ShapeError, match="must be told the number of classes"):
        ExitStep(0, nn.Identity(), decisions=(decision(NAME),))
