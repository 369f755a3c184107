"""Choices by hand: who picks what, what it counts, what training charges for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.choice_step import Branch, ChoiceStep
from dynarch.spaces.decider import information, load_balance
from dynarch.spaces.errors import SpecError
from dynarch.spaces.gate import GateUnit
from dynarch.spaces.gating import GatingChoice
from dynarch.spaces.gradients.gumbel import Gumbel
from dynarch.spaces.gradients.reinforce import Reinforce
from dynarch.spaces.gradients.straight_through import StraightThrough
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.resource import ResourceChoice, ResourceTarget
from dynarch.spaces.step import SegmentStep
from dynarch.spaces.trace import PartInfo, Recorder, counts, dearest_usage


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Written(nn.Module):
    """Logits `0` and the first number of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x[:, 0]], 1)


def network(knob: str | None = "k") -> DynamicNetwork:
    """Multiplies an input by 10 if its first number (plus the knob) is above 0."""
    ways = (Branch(None, 0.0), Branch(Scale(10.0), 1.0))
    step = ChoiceStep(0, GateUnit(Written(), "written"), ways, gradient=StraightThrough(), knob=knob, place=1.0)
    end = SegmentStep(0, nn.Sequential(Scale(1.0)), final=True)
    empty = Architecture.of(backbone={}, families={}, training={})
    return DynamicNetwork(empty, Signature((2,), 2), [step, end]).eval()


X = torch.tensor([[-2.0, 1.0], [-0.5, 1.0], [0.5, 1.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("setting", "run"),
    [((), [0, 0, 1, 1]), ((("k", 1.0),), [0, 1, 1, 1]), ((("k", -1.0),), [0, 0, 0, 1]), ((("k", 9.0),), [1, 1, 1, 1])],
)
def test_the_knob_moves_the_border(setting: tuple[tuple[str, float], ...], run: list[int]) -> None:
    made = network()
    policy, recorder = Policy("max_prob", (), setting), Recorder(4)
    expected = torch.stack([x * (10.0 if ran else 1.0) for x, ran in zip(X, run, strict=True)])
    simulated = made.simulate(X, setting=dict(setting))
    assert simulated.usage["branch.0.1"].tolist() == run
    assert torch.equal(simulated.logits[0], expected)
    assert torch.equal(made.route(X, policy, recorder).logits, expected)
    infos = tuple(part.info for part in made.parts())
    trace = dict(zip((info.name for info in infos), recorder.counts(infos).T.tolist(), strict=True))
    assert trace["branch.0.1"] == run
    assert trace["gate.0"] == [1, 1, 1, 1]
    assert torch.equal(torch.cat([made.route(x[None], policy).logits for x in X]), expected)


def test_margins_say_where_the_borders_are() -> None:
    assert torch.equal(network().simulate(X).margins["k"][0], X[:, 0])


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(SpecError, match="is no knob of this network") as caught:
        network().route(X, Policy("max_prob", (), (("other", 1.0),)))
    assert caught.value.path == "policy.setting.other"


def test_shuffled_decisions_keep_their_rate() -> None:
    """Half run, but not the half that asked for it."""
    runs = [network().simulate(X, shuffle=torch.Generator().manual_seed(seed)).usage["branch.0.1"] for seed in range(9)]
    assert {float(run.sum()) for run in runs} == {2.0}
    assert any(run.tolist() != [0, 0, 1, 1] for run in runs)


def test_balance_is_1_where_all_are_used_alike_and_k_where_one_takes_all() -> None:
    even = torch.eye(4)
    assert float(load_balance(even, even)) == pytest.approx(1.0)
    one = torch.tensor([[1.0, 0, 0, 0]] * 4)
    assert float(load_balance(one, one)) == pytest.approx(4.0)


def test_temperatures_by_hand() -> None:
    """5 to 0.05 in powers of ten: half way at sqrt(5 * 0.05) = 0.5; in a line at 2.525."""
    assert Gumbel(5.0, 0.05).temperature(0.5) == pytest.approx(0.5)
    assert Gumbel(5.0, 0.05, "linear").temperature(0.5) == pytest.approx(2.525)
    assert Gumbel(5.0, 0.05, "constant").temperature(0.5) == 5.0
    assert [Gumbel(5.0, 0.05).temperature(p) for p in (0.0, 1.0)] == pytest.approx([5.0, 0.05])


def test_reinforce_lets_the_last_places_decide_first() -> None:
    """With a curriculum of 0.4, at 0.1 of the training only places beyond 1 - 0.1 / 0.4 = 0.75 decide."""
    logits = torch.zeros(6, 2)
    forced, free = (Reinforce().draw(logits, progress=0.1, place=place) for place in (0.7, 0.8))
    assert forced.log_prob is None
    assert forced.weights[:, 1].tolist() == [1.0] * 6
    assert free.log_prob is not None
    assert free.log_prob.tolist() == pytest.approx([np.log(0.5)] * 6)


def test_the_gradient_of_a_straight_through_choice_is_that_of_its_softmax() -> None:
    """d softmax(l)_1 / dl_1 = p (1 - p) = 0.25 at equal logits."""
    logits = torch.zeros(1, 2, requires_grad=True)
    StraightThrough().draw(logits, progress=0.0, place=1.0).weights[0, 1].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.25, 0.25]]


USAGE = {"branch.0.1": torch.tensor([1.0, 0.0]), "branch.1.0": torch.ones(2), "branch.1.1": torch.zeros(2)}
BRANCHES = (("branch.0.1",), ("branch.1.0", "branch.1.1"))
PRICES = {"branch.0.1": 3.0, "branch.1.0": 0.5, "branch.1.1": 1.0}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_spending_the_target_costs_nothing(scope: str) -> None:
    """The first choice runs for half of the inputs, the second always at half price: half of everything is spent."""
    target = ResourceTarget(BRANCHES, ResourceChoice(0.5, "macs", scope, 10.0))
    assert target.weights(PRICES) == [0.75, 0.25]
    assert target.spent(USAGE, PRICES).tolist() == [[1.0, 0.5], [0.0, 0.5]]
    assert float(target.loss(USAGE, PRICES)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("scope", "loss"), [("global", 10 * 0.175**2), ("layer", 10 * (0.75 * 0.3**2 + 0.25 * 0.2**2))]
)
def test_missing_the_target_by_hand(scope: str, loss: float) -> None:
    """The first choice spends nothing, the second half of its price: 0.25 * 0.5 = 0.125 in all, 0.3 being wanted."""
    usage = USAGE | {"branch.0.1": torch.zeros(2)}
    target = ResourceTarget(BRANCHES, ResourceChoice(0.3, "macs", scope, 10.0))
    assert float(target.loss(usage, PRICES)) == pytest.approx(loss)


def test_rates_need_no_prices_and_others_do() -> None:
    rate = ResourceTarget(BRANCHES, ResourceChoice(0.5, "rate", "global", 1.0))
    assert set(rate.prices({}).values()) == {1.0}
    with pytest.raises(SpecError, match="latency needs the cost of branch"):
        ResourceTarget(BRANCHES, ResourceChoice(0.5, "latency", "global", 1.0)).prices({"macs": PRICES})


def test_the_dearest_path_runs_one_branch_of_a_choice() -> None:
    parts = (
        PartInfo("segment.0", "segment", 0),
        PartInfo("branch.0.0", "branch", 0, choice="choice.0"),
        PartInfo("branch.0.1", "branch", 0, choice="choice.0"),
    )
    usage = dearest_usage(parts, np.array([1.0, 5.0, 4.0]))
    assert counts(parts, Policy.never(0), np.array([0]), usage).tolist() == [[1.0, 1.0, 0.0]]


def test_only_gumbel_has_a_temperature() -> None:
    with pytest.raises(SpecError, match="belongs to the gradient 'gumbel'"):
        GatingChoice("pooled_linear", "straight_through", 0.5, "linear")
    with pytest.raises(SpecError, match="belongs to the gradient 'gumbel'"):
        GatingChoice("pooled_linear", "gumbel")


def test_information_by_hand() -> None:
    """Sure and opposite: the decision tells one of two; all alike, sure or not: it tells nothing; one of four: ln 4."""
    sure = 50.0
    assert float(information(torch.tensor([[sure, 0.0], [0.0, sure]]))) == pytest.approx(math.log(2))
    assert float(information(torch.tensor([[sure, 0.0], [sure, 0.0]]))) == pytest.approx(0, abs=1e-6)
    assert float(information(torch.zeros(3, 2))) == pytest.approx(0, abs=1e-6)
    assert float(information(sure * torch.eye(4))) == pytest.approx(math.log(4))
    # Chances 3/4 and 1/4, and the other way round: ln 2 less the entropy of (3/4, 1/4).
    half = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    assert float(information(half)) == pytest.approx(math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_gates_are_paid_for_telling_inputs_apart() -> None:
    """By gradient: of two inputs with opposite leanings, each is driven further to its side."""
    logits = torch.tensor([[0.2, 0.0], [0.0, 0.2]], requires_grad=True)
    (-information(logits)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
    assert logits.grad[1, 1] < 0 < logits.grad[1, 0]
