"""Mixtures by hand: which branches run, with which weights, and what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import MixtureOfExperts
from dynarch.spaces.gate import GateUnit
from dynarch.spaces.gradients import GRADIENTS
from dynarch.spaces.mixture_step import MixtureStep, shares
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.step import SegmentStep
from dynarch.spaces.trace import PartInfo, Recorder, counts, dearest_usage

EMPTY = Architecture.of(backbone={}, families={}, training={})
X = torch.tensor([[math.log(3.0), 0.0, -9.0], [-9.0, 0.0, 0.0], [5.0, 4.0, 9.0]])  # logits and features in one


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def network(gradient: str = "straight_through") -> DynamicNetwork:
    """Logits are the inputs; the three experts multiply by 1, 10 and 100."""
    estimator = next(member for member in GRADIENTS if member.name == gradient)
    step = MixtureStep(
        0,
        GateUnit(Times(1.0), "as it is"),
        [Times(10.0**j) for j in range(3)],
        top=2,
        gradient=estimator,
        place=1.0,
        balance=0.5,
    )
    return DynamicNetwork(EMPTY, Signature((3,), 3), [step, SegmentStep(0, Times(1.0), final=True)]).eval()


# Of log 3 and 0 the softmax is 3/4, 1/4; equal logits weigh 1/2 each; of 9 and 5 it is 1 - s, s.
S = 1 / (1 + math.exp(4))
FACTORS = [0.75 * 1 + 0.25 * 10, 0.5 * 10 + 0.5 * 100, S * 1 + (1 - S) * 100]


def test_two_run_and_are_weighted_by_their_own_softmax() -> None:
    made, recorder = network(), Recorder(3)
    expected = X * torch.tensor(FACTORS)[:, None]
    run = made.simulate(X)
    torch.testing.assert_close(run.logits[0], expected)
    policy = Policy("max_prob", ())
    torch.testing.assert_close(made.route(X, policy, recorder).logits, expected)
    torch.testing.assert_close(torch.cat([made.route(x[None], policy).logits for x in X]), expected)
    infos = tuple(part.info for part in made.parts())
    usage = {name: used.detach().numpy() for name, used in run.usage.items()}
    trace = counts(infos, policy, np.zeros(3, dtype=np.int64), usage)
    assert np.array_equal(recorder.counts(infos), trace)
    columns = [index for index, info in enumerate(infos) if info.kind == "branch"]
    assert trace[:, columns].tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_weights_of_chosen_branches_add_up_however_far_behind_they_are() -> None:
    chosen = torch.tensor([[1.0, 1.0, 0.0]])
    made = shares(torch.tensor([[-60.0, -60.0 + math.log(3), 500.0]]), chosen)
    torch.testing.assert_close(made, torch.tensor([[0.25, 0.75, 0.0]]))


@pytest.mark.parametrize("gradient", [member.name for member in GRADIENTS])
def test_training_draws_two_different_branches(gradient: str) -> None:
    made = network(gradient).train()
    run = made.simulate(X.repeat(20, 1), progress=0.9, generator=torch.Generator().manual_seed(0))
    used = torch.stack([run.usage[f"branch.0.{j}"] for j in range(3)], 1).detach()
    torch.testing.assert_close(used.sum(1), torch.full((60,), 2.0))
    assert bool(((used - used.round()).abs() < 1e-5).all())
    assert used.max() < 1.5
    assert len(run.penalties) == 1


def test_the_worst_path_runs_the_two_dearest() -> None:
    parts = tuple(PartInfo(f"branch.0.{j}", "branch", 0, choice="choice.0", at_most=2) for j in range(3))
    usage = dearest_usage(parts, np.array([2.0, 1.0, 3.0]))
    assert {name: float(value[0]) for name, value in usage.items()} == {
        "branch.0.0": 1.0, "branch.0.1": 0.0, "branch.0.2": 1.0,
    }  # fmt: skip


def test_as_many_as_there_are_need_no_gate() -> None:
    with pytest.raises(SpecError, match="goes with no other option") as caught:
        MixtureOfExperts(experts=(2,), top=(1, 2))
    assert caught.value.path == "top.1"
