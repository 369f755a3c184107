from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynarch.spaces.errors import UnknownNameError
from dynarch.spaces.exit_objectives import (
    EXIT_OBJECTIVES,
    AbstractExitObjective,
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


def test_only_equilibrium_changes_the_backward_pass() -> None:
    assert [member.name for member in EXIT_OBJECTIVES if member.equilibrium] == ["gradient_equilibrium"]


def test_names_are_distinct_and_unknown_ones_refused() -> None:
    names = [member.name for member in EXIT_OBJECTIVES]
    assert len(set(names)) == len(names)
    assert all(exit_objective(member.name) is member for member in EXIT_OBJECTIVES)
    with pytest.raises(UnknownNameError, match="did you mean 'equal'") as caught:
        exit_objective("equl")
    assert caught.value.path == "objective"
