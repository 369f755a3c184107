from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dynarch.spaces.errors import UnknownNameError
from dynarch.spaces.exit_objectives import (
    EXIT_OBJECTIVES,
    AbstractExitObjective,
    DistillLast,
    EqualWeights,
    GradientEquilibrium,
    LinearWeights,
    exit_objective,
)
from dynarch.tests import oracles

LABELS = torch.tensor([0, 0])


def logits_of(right: float) -> Tensor:
    """`2 x 3` logits that give the right class, the first, this probability, and the rest to the others."""
    rest = (1 - right) / 2
    return torch.tensor([[right, rest, rest]] * 2).log() + 5  # an offset changes no softmax


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        (EqualWeights(), oracles.EQUAL_LOSS),
        (LinearWeights(), oracles.LINEAR_LOSS),
        (GradientEquilibrium(), oracles.EQUILIBRIUM_LOSS),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_weighted_losses_by_hand(objective: AbstractExitObjective, loss: float) -> None:
    logits = [logits_of(right) for right in oracles.RIGHT_PROBABILITIES]
    assert objective.loss(logits, LABELS).item() == pytest.approx(loss, rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    row = torch.tensor([oracles.PROBABILITIES]).log()
    for objective in EXIT_OBJECTIVES:  # with one exit all are the plain cross entropy
        loss = objective.loss([row], torch.tensor([0]), label_smoothing=0.4)
        assert loss.item() == pytest.approx(oracles.SMOOTHED_LOSS, rel=1e-6)


def distillation_logits() -> list[Tensor]:
    return [
        torch.tensor([[3 * math.log(1 / 4), 3 * math.log(3 / 4)]], requires_grad=True),
        torch.zeros(1, 2, requires_grad=True),
    ]


def test_distillation_by_hand() -> None:
    loss = DistillLast().loss(distillation_logits(), torch.tensor([1]))
    assert loss.item() == pytest.approx(oracles.DISTILLATION_LOSS, rel=1e-6)


def test_the_teacher_is_not_pulled_down_to_its_pupils() -> None:
    logits = distillation_logits()
    DistillLast().loss(logits, torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
    pupil, teacher = logits[0].grad, logits[1].grad
    assert pupil is not None
    assert teacher is not None
    # Cross entropy alone: (p - y) with p = (1/2, 1/2), y = (0, 1), times half the loss, times one of two exits.
    assert teacher.tolist()[0] == pytest.approx([1 / 8, -1 / 8])
    # Cross entropy: (1/28, -1/28) / 4. Divergence: softened (pupil - teacher) = (-1/4, 1/4) times 3**2 / 3, / 4.
    assert pupil.tolist()[0] == pytest.approx([1 / 112 - 3 / 16, -1 / 112 + 3 / 16], rel=1e-5)


def test_pupils_equal_to_their_teacher_have_no_divergence() -> None:
    logits = [torch.tensor([[1.0, 2.0, 3.0]])] * 3
    labels = torch.tensor([2])
    assert DistillLast(share=1.0).loss(logits, labels).item() == pytest.approx(0, abs=1e-6)
    plain = functional.cross_entropy(logits[0], labels).item()
    assert DistillLast(share=0.0).loss(logits, labels).item() == pytest.approx(plain)


def test_only_equilibrium_changes_the_backward_pass() -> None:
    assert [member.name for member in EXIT_OBJECTIVES if member.equilibrium] == ["gradient_equilibrium"]


def test_names_are_distinct_and_unknown_ones_refused() -> None:
    names = [member.name for member in EXIT_OBJECTIVES]
    assert len(set(names)) == len(names)
    assert all(exit_objective(member.name) is member for member in EXIT_OBJECTIVES)
    with pytest.raises(UnknownNameError, match="did you mean 'distillation'") as caught:
        exit_objective("distilation")
    assert caught.value.path == "objective"
