"""Forks by hand: which variant an input takes, what it counts, and that routed mode runs nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.choice_step import Branch, ChoiceStep
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.errors import SpecError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.fork_step import ForkStep, Variant
from dynarch.spaces.gate import GateUnit
from dynarch.spaces.gradients.straight_through import StraightThrough
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.probes import check_routing
from dynarch.spaces.resource import ResourceChoice, ResourceTarget
from dynarch.spaces.step import AbstractStep, SegmentStep
from dynarch.spaces.trace import PartInfo, Recorder, dearest_usage, usage_row, variant_usage


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Column(nn.Module):
    """Logits `0` and one number of the input."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x[:, self.index]], 1)


def forked(gated: bool = True, *, exit_index: int = 0) -> DynamicNetwork:
    """Numbers a, b, c. Under `small` (a < 0) all are doubled first. Then an exit with the logits (0, b); then c above 0
    asks for a factor of 10; at the end (0, c)."""
    gate = GateUnit(Column(0), "column")
    variants = (Variant("small", Scale(2.0), 0.5), Variant("large", None, 1.0))
    fork = ForkStep(variants, gate=gate if gated else None, knob="size", gradient=StraightThrough())
    ways = (Branch(None, 0.0), Branch(Scale(10.0), 1.0))
    choice = ChoiceStep(0, GateUnit(Column(2), "c"), ways, gradient=StraightThrough(), knob="skip", place=1.0)
    rest: list[AbstractStep] = [
        SegmentStep(0, nn.Sequential(Scale(1.0)), final=False),
        ExitStep(exit_index, Column(1), decisions=DECISIONS),
        choice,
        SegmentStep(1, nn.Sequential(Scale(1.0), Column(2)), final=True),
    ]
    fork.grow(rest)
    empty = Architecture.of(backbone={}, families={}, training={})
    return DynamicNetwork(empty, Signature((3,), 2), [fork]).eval()


X = torch.tensor([[-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.5, 1.0], [1.0, -1.0, -2.0]])
# Doubled for the first two; c above 0 (the second and third) is multiplied by 10.
AT_EXIT = [[0.0, 2.0], [0.0, -2.0], [0.0, 1.5], [0.0, -1.0]]
AT_END = [[0.0, -2.0], [0.0, 20.0], [0.0, 10.0], [0.0, -2.0]]


def test_usage_is_the_product_of_the_variant_and_what_runs_under_it() -> None:
    with torch.no_grad():
        run = forked().simulate(X)
    assert [logits.tolist() for logits in run.logits] == [AT_EXIT, AT_END]
    used = {name: values.tolist() for name, values in run.usage.items()}
    assert (
        used["enter@small"] == used["segment.0@small"] == used["exit.0@small"] == used["gate.0@small"] == [1, 1, 0, 0]
    )
    assert used["segment.1@large"] == used["move@large"] == used["decide.0.margin@large"] == [0, 0, 1, 1]
    assert used["branch.0.1@small"] == [0, 1, 0, 0]
    assert used["branch.0.1@large"] == [0, 0, 1, 0]
    assert "enter@large" not in used, "the features are handed on as they are"
    assert set(used) == set(forked().steps[0].names()) - {"fork"}  # type: ignore[operator]


def test_names_are_those_of_the_parts() -> None:
    network = forked()
    parts = network.parts()
    assert {part.info.name for part in parts} == set(network.steps[0].names())  # type: ignore[operator]
    assert len({part.info.name for part in parts}) == len(parts)
    assert {part.info.variant for part in parts} == {None, "small", "large"}
    assert {part.info.choice for part in parts if part.info.kind == "branch"} == {"choice.0@small", "choice.0@large"}


@pytest.mark.parametrize("setting", [(), (("size", 5.0),), (("size", -5.0),), (("skip", 3.0),), (("skip", -30.0),)])
@pytest.mark.parametrize("thresholds", [(None,), (0.85,), (0.77,), (-float("inf"),)])
def test_routed_groups_do_what_simulated_mode_says(
    setting: tuple[tuple[str, float], ...], thresholds: tuple[float | None]
) -> None:
    """`max_prob` at the exit is sigmoid(|b|): 0.88 for 2, 0.82 for 1.5, 0.73 for 1."""
    check_routing(forked(), X, Policy("max_prob", thresholds, setting))


def test_exits_within_variants_by_hand() -> None:
    """At 0.85 the two doubled inputs leave at the exit; of the others one runs the branch."""
    network, recorder = forked(), Recorder(4)
    routed = network.route(X, Policy("max_prob", (0.85,)), recorder)
    assert routed.exit_taken.tolist() == [0, 0, 1, 1]
    assert routed.logits.tolist() == [*AT_EXIT[:2], *AT_END[2:]]
    infos = tuple(part.info for part in network.parts())
    ran = dict(zip((info.name for info in infos), recorder.counts(infos).T.tolist(), strict=True))
    assert ran["exit.0@small"] == [1, 1, 0, 0]
    assert ran["exit.0@large"] == [0, 0, 1, 1]
    assert ran["gate.0@small"] == [0, 0, 0, 0]
    assert ran["branch.0.1@large"] == [0, 0, 1, 0]
    assert ran["move@small"] == [1, 1, 0, 0]


def test_inputs_that_left_before_the_fork_stay_out() -> None:
    """The exit before the fork lets out b above 1; its answers stand when both groups have written theirs."""
    network = forked(exit_index=1)
    early = ExitStep(0, Column(1), decisions=DECISIONS)
    whole = DynamicNetwork(network.architecture, network.signature, [early, *network.steps]).eval()
    assert whole.exits == 2
    assert [step.depth for step in whole.exit_steps] == [0, 1]
    policy = Policy("max_prob", (0.8, None))
    taken = check_routing(whole, X, policy)
    assert taken.tolist() == [2, 2, 0, 2]


def test_a_knob_without_a_gate_names_a_variant() -> None:
    network = forked(gated=False)
    assert network.levels == {"size": (-1.0, 0.0)}
    for level, factor, variant in ((-1.0, 2.0, "small"), (0.0, 1.0, "large")):
        policy = Policy("max_prob", (None,), (("size", level),))
        recorder = Recorder(4)
        network.route(X, policy, recorder)
        expected = {"segment.0", "segment.1", "gate.0"} | ({"enter"} if variant == "small" else set())
        assert {f"{name}@{variant}" for name in expected} <= set(recorder.totals())
        assert all(name.endswith(f"@{variant}") for name in recorder.totals())
        with torch.no_grad():
            assert torch.equal(network.simulate(X, setting={"size": level}).logits[0][:, 1], X[:, 1] * factor)
        check_routing(network, X, policy)
    with pytest.raises(SpecError, match=r"must be one of -1, 0, but got 0\.5") as caught:
        network.route(X, Policy("max_prob", (None,), (("size", 0.5),)))
    assert caught.value.path == "policy.setting.size"


def test_training_without_a_gate_sends_inputs_everywhere() -> None:
    network = forked(gated=False).train()
    run = network.simulate(X.repeat(100, 1), progress=0.0, generator=torch.Generator().manual_seed(0))
    small = run.usage["@small"]
    assert set(small.tolist()) == {0.0, 1.0}
    # Within 4 standard deviations of a half: sqrt(0.25 / 400) = 0.025.
    assert float(small.mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(small + run.usage["@large"], torch.ones(400))
    assert torch.equal(run.usage["branch.0.1"], run.usage["branch.0.1@small"] + run.usage["branch.0.1@large"])


def test_variants_share_weights_but_not_normalisation() -> None:
    fork = ForkStep(
        (Variant("small", Scale(2.0), 0.5), Variant("large", None, 1.0)), gate=None, knob="size", gradient=None
    )
    body = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    exit_step = ExitStep(0, nn.Linear(2, 2), decisions=DECISIONS)
    fork.grow([SegmentStep(0, body, final=False), exit_step, SegmentStep(1, nn.Linear(2, 2), final=True)])
    small, large = (chain for _, chain in fork.chains())
    assert isinstance(small[0], SegmentStep)
    assert small[0].body is not body
    assert isinstance(small[0].body, nn.Sequential)
    assert small[0].body[0].weight is body[0].weight
    assert small[0].body[1].weight is not body[1].weight
    # 2: Scale; 3 * 2 + 2, 2 * 2 + 2 twice: shared; 2 * 2 of normalisation, twice.
    assert sum(weight.numel() for weight in fork.parameters()) == 1 + 8 + 6 + 6 + 2 * 4
    exit_step.temperature.fill_(3.0)
    assert isinstance(small[1], ExitStep)
    assert float(small[1].temperature) == 3.0
    calls = []
    body.register_forward_hook(lambda *_: calls.append(1))
    small[0].body(torch.ones(4, 3))
    assert not calls, "hooks are each twin's own"
    assert large[0].body is body


def test_the_dearest_and_the_cheapest_way_run_one_variant() -> None:
    """Under `s` the branches cost 1 or 5, under `l` 4; with 2 for the segment, `s` costs 7 at most."""
    parts = (
        PartInfo("segment.0", "segment", 0),
        PartInfo("branch.0@s", "branch", 0, choice="c@s", variant="s"),
        PartInfo("branch.1@s", "branch", 0, choice="c@s", variant="s"),
        PartInfo("segment.1@s", "segment", 0, variant="s"),
        PartInfo("segment.1@l", "segment", 0, variant="l"),
    )
    weight = np.array([1.0, 1.0, 5.0, 2.0, 4.0])
    assert usage_row(parts, dearest_usage(parts, weight)).tolist() == [1, 0, 1, 1, 0]
    assert usage_row(parts, dearest_usage(parts, np.array([1.0, 1.0, 5.0, 2.0, 8.0]))).tolist() == [1, 0, 0, 0, 1]
    ways = {variant: usage_row(parts, usage).tolist() for variant, usage in variant_usage(parts).items()}
    assert ways == {"s": [1, 1, 1, 1, 0], "l": [1, 0, 0, 0, 1]}


def test_training_charges_a_variant_for_all_its_parts_and_a_branch_for_its_mean() -> None:
    costs = {
        "macs": {
            "segment.0@s": 1.0,
            "branch.0.1@s": 2.0,
            "decide.0.margin@s": 9.0,
            "move@s": 9.0,
            "segment.0@l": 4.0,
            "branch.0.1@l": 8.0,
        }
    }
    variants = ResourceTarget((("@s", "@l"),), ResourceChoice(0.5, "macs", "global", 1.0))
    assert variants.prices(costs) == {"@s": 3.0, "@l": 12.0}
    usage = {"@s": torch.tensor([1.0, 0.0]), "@l": torch.tensor([0.0, 1.0])}
    assert variants.spent(usage, variants.prices(costs)).tolist() == [[0.25], [1.0]]
    assert ResourceTarget((("branch.0.1",),), variants.choice).prices(costs) == {"branch.0.1": 5.0}
    with pytest.raises(SpecError, match="needs the cost of @x"):
        ResourceTarget((("@x",),), variants.choice).prices(costs)
