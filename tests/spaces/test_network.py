from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.decisions import DECISIONS, decision
from dynarch.spaces.errors import ShapeError, SpecError, UnknownNameError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.network import DynamicNetwork, RoutedNetwork
from dynarch.spaces.normalize import Normalize
from dynarch.spaces.policy import Policy
from dynarch.spaces.step import AbstractStep, SegmentStep, Simulation
from dynarch.spaces.trace import Recorder

CLASSES = 3
EMPTY = Architecture.of(backbone={}, families={}, training={})


class Answer(nn.Module):
    """A head that reads its answers off the input: class `x[:, column]`, and the input's number in a last logit."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, x: Tensor) -> Tensor:
        """`b x (columns + 1)` -> `b x (classes + 1)`."""
        hot = functional.one_hot(x[:, self.column].long(), CLASSES).float()
        return torch.cat([hot, -x[:, -1:]], dim=1)  # far below the others, so that it is never the answer


def scripted(exits: int, *, names: tuple[str, ...] = ("max_prob", "patience")) -> DynamicNetwork:
    """A network that gives the answers written in its inputs."""
    schemes = tuple(decision(name) for name in names)
    steps: list[AbstractStep] = []
    for index in range(exits):
        steps.append(SegmentStep(index, nn.Sequential(nn.Identity()), final=False))
        steps.append(ExitStep(index, Answer(index), decisions=schemes))
    steps.append(SegmentStep(exits, nn.Sequential(Answer(exits)), final=True))
    return DynamicNetwork(EMPTY, Signature((exits + 2,), CLASSES + 1), steps).eval()


def inputs_of(answers: list[list[int]]) -> Tensor:
    """One row of answers an input, with the input's number plus 10 at the end."""
    return torch.tensor([[*row, number + 10] for number, row in enumerate(answers)], dtype=torch.float32)


def walk(answers: list[int], thresholds: tuple[float | None, ...]) -> int:
    """Patience as a person would apply it to one input."""
    last, run = None, 0
    for index, threshold in enumerate(thresholds):
        if threshold is not None:
            run = run + 1 if answers[index] == last else 1
            last = answers[index]
            if run > threshold:
                return index
    return len(thresholds)


def check(network: DynamicNetwork, answers: list[list[int]], policy: Policy, taken: list[int]) -> None:
    """Exits, answers, and rows that belong to their inputs."""
    routed = network.route(inputs_of(answers), policy)
    assert routed.exit_taken.tolist() == taken
    assert routed.logits[:, :CLASSES].argmax(1).tolist() == [row[at] for row, at in zip(answers, taken, strict=True)]
    assert routed.logits[:, CLASSES].tolist() == [-10.0 - number for number in range(len(answers))]


def test_patience_by_hand_through_disabled_exits_and_compaction() -> None:
    answers = [
        [1, 1, 0, 0, 2],  # agrees at exit 1
        [1, 0, 1, 1, 2],  # exit 1 is not tried: exits 0 and 2 agree
        [0, 1, 2, 2, 2],  # agrees at exit 3
        [0, 1, 0, 2, 1],  # without exit 1 it agrees at exit 2
        [2, 1, 0, 2, 1],  # never
    ]
    network = scripted(4)
    two = 1.5  # leave when two agree
    check(network, answers, Policy("patience", (two, two, two, two)), [1, 3, 3, 4, 4])
    check(network, answers, Policy("patience", (two, None, two, two)), [3, 2, 3, 2, 4])
    check(network, answers, Policy("patience", (2.5, 2.5, 2.5, 2.5)), [4, 4, 4, 4, 4])
    check(network, answers, Policy("patience", (0.5, None, None, None)), [0, 0, 0, 0, 0])


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[list[int]], tuple[float | None, ...]]:
    exits = draw(st.integers(0, 5))
    row = st.lists(st.integers(0, CLASSES - 1), min_size=exits + 1, max_size=exits + 1)
    answers = draw(st.lists(row, min_size=1, max_size=8))
    threshold = st.sampled_from([None, 0.5, 1.5, 1.5, 2.5, -math.inf])
    return answers, tuple(draw(threshold) for _ in range(exits))


@settings(deadline=None)
@given(scripts())
def test_patience_in_batches_is_patience_of_each_input(
    script: tuple[list[list[int]], tuple[float | None, ...]],
) -> None:
    answers, thresholds = script
    taken = [walk(row, thresholds) for row in answers]
    check(scripted(len(thresholds)), answers, Policy("patience", thresholds), taken)


class Ran(nn.Module):
    """Notes how many inputs came by."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Nothing happens to the features."""
        self.sizes.append(x.shape[0])
        return x


def test_nothing_runs_for_those_who_left() -> None:
    network, ran = scripted(2), Ran()
    for step in network.steps:
        if isinstance(step, SegmentStep):
            step.body.insert(0, ran)  # type: ignore[operator]
    answers = [[0, 0, 0], [1, 1, 0], [0, 1, 2], [0, 1, 1]]
    recorder = Recorder(4)
    network.route(inputs_of(answers), Policy("patience", (1.5, 1.5)), recorder)
    assert ran.sizes == [4, 4, 2]
    assert recorder.totals() == {
        "segment.0": 4, "exit.0": 4, "decide.0.patience": 4,
        "segment.1": 4, "exit.1": 4, "decide.1.patience": 4,
        "segment.2": 2,
    }  # fmt: skip
    ran.sizes.clear()
    network.route(inputs_of(answers), Policy.single(2, 0))
    assert ran.sizes == [4]


def test_parts_come_in_execution_order_with_their_conditions() -> None:
    infos = [part.info for part in scripted_with_weights().parts()]
    assert [info.name for info in infos] == [
        "segment.0", "exit.0", "decide.0.max_prob", "compact.0",
        "segment.1", "exit.1", "decide.1.max_prob", "compact.1",
        "segment.2",
    ]  # fmt: skip
    assert [info.depth for info in infos] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert [info.exit for info in infos] == [None, 0, 0, 0, None, 1, 1, 1, None]


def scripted_with_weights() -> DynamicNetwork:
    schemes = (decision("max_prob"),)
    steps: list[AbstractStep] = [
        SegmentStep(0, nn.Sequential(nn.Linear(2, 2)), final=False),
        ExitStep(0, nn.Linear(2, 3), decisions=schemes),
        SegmentStep(1, nn.Sequential(nn.Linear(2, 2)), final=False),
        ExitStep(1, nn.Linear(2, 3), decisions=schemes),
        SegmentStep(2, nn.Sequential(nn.Linear(2, 3)), final=True),
    ]
    return DynamicNetwork(EMPTY, Signature((2,), 3), steps).eval()


@pytest.mark.parametrize("batch", [1, 5])
def test_every_part_runs_on_its_example_inputs_at_any_batch(batch: int) -> None:
    for part in scripted_with_weights().parts():
        assert all(x.shape[0] == 1 for x in part.inputs)
        part.call(*(x.repeat(batch, *[1] * (x.dim() - 1)) for x in part.inputs))


def test_temperature_divides_logits_in_both_modes_and_travels_with_the_weights() -> None:
    network, x = scripted_with_weights(), torch.randn(4, 2)
    with torch.no_grad():
        before = network(x)
        network.exit_steps[0].temperature.fill_(4.0)
        after = network(x)
    torch.testing.assert_close(after[0], before[0] / 4)
    assert torch.equal(after[1], before[1])
    assert torch.equal(network.route(x, Policy.single(2, 0)).logits, after[0])
    other = scripted_with_weights()
    other.load_state_dict(network.state_dict())
    assert other.exit_steps[0].temperature.item() == 4.0


def test_what_was_tempered_decides() -> None:
    network, x = scripted(1), inputs_of([[0, 1], [2, 1]])
    # Answers of 1 against 0, 0 and less than -10: e / (e + 2) = 0.58; divided by 4: e^(1/4) / (e^(1/4) + 2) < 0.4.
    policy = Policy("max_prob", (0.5,))
    assert network.route(x, policy).exit_taken.tolist() == [0, 0]
    assert network.route(x[:1], policy).exit_taken.tolist() == [0]
    network.exit_steps[0].temperature.fill_(4.0)
    assert network.route(x, policy).exit_taken.tolist() == [1, 1]
    assert network.route(x[:1], policy).exit_taken.tolist() == [1]


def test_normalisation_by_hand() -> None:
    layer = Normalize(Signature((2, 1, 1), 2))
    layer.mean.copy_(torch.tensor([1.0, 3.0]).reshape(2, 1, 1))
    layer.std.copy_(torch.tensor([2.0, 4.0]).reshape(2, 1, 1))
    x = torch.tensor([[5.0, 3.0], [1.0, -5.0]]).reshape(2, 2, 1, 1)
    assert layer(x).reshape(2, 2).tolist() == [[2.0, 0.0], [0.0, -2.0]]


def test_bad_calls_are_refused() -> None:
    network, never = scripted(2), Policy.never(2)
    for x in (torch.zeros(0, 4), torch.zeros(3, 5), torch.zeros(4)):
        with pytest.raises(ShapeError, match="inputs must be b x"):
            network.route(x, never)
    with pytest.raises(ShapeError, match="has 3 for 2 exits"):
        network.route(torch.zeros(1, 4), Policy.never(3))
    with pytest.raises(UnknownNameError, match="did you mean 'margin'"):
        network.route(torch.zeros(1, 4), Policy("margins", (0.5, 0.5)))
    with pytest.raises(SpecError, match="evaluation mode; call"):
        network.train().route(torch.zeros(1, 4), never)


def test_a_scheme_the_network_was_not_built_for_is_refused() -> None:
    """Its decisions would run without a place in trace and latency table."""
    network, x = scripted(2, names=("max_prob", "patience")), torch.zeros(1, 4)
    with pytest.raises(SpecError, match="entropy"):
        network.route(x, Policy("entropy", (0.5, None)))
    for policy in (Policy("entropy", (None, -math.inf)), Policy.single(2, 1, decision="margin"), Policy.never(2)):
        network.route(x, policy)  # nothing is decided


def test_routed_network_is_a_module_that_stays_in_evaluation_mode() -> None:
    network = scripted(2)
    policy = Policy("patience", (1.5, 1.5))
    module = RoutedNetwork(network.train(), policy)
    x = inputs_of([[0, 0, 1], [0, 1, 2]])
    assert not module.train().training
    assert not module.network.training
    assert module.route(x).exit_taken.tolist() == [1, 2]
    assert torch.equal(module(x), module.route(x).logits)


def test_every_scheme_has_a_decision_part() -> None:
    network = scripted(1, names=tuple(member.name for member in DECISIONS))
    schemes = {step.info.decision for step in network.exit_steps[0].parts(Simulation(inputs_of([[0, 0]])))} - {None}
    assert schemes == {member.name for member in DECISIONS}
