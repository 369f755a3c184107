"""Jumping by hand: scripted gates, every chunk accounted for."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Signature, outline
from dynarch.spaces.backbones.recurrent import Recurrent, RecurrentChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import Jumping
from dynarch.spaces.families.temporal import JumpingChoice
from dynarch.spaces.gating import GatingChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.read_step import JumpStep
from dynarch.spaces.resource import ResourceChoice
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.trace import Recorder

CHUNKS, HIDDEN = 5, 4
SEQUENCE = Signature((2 * CHUNKS, 1 + 2), 3, "sequence")
ALL = tuple(range(CHUNKS))
TARGET = ResourceChoice(0.6, "rate", "global", 1.0)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Recurrent.build(RecurrentChoice(HIDDEN, "gru", CHUNKS), SEQUENCE).eval()


def lowered(choice: JumpingChoice) -> DynamicNetwork:
    built = backbone()
    plan = Plan(built, outline(built, SEQUENCE), SEQUENCE)
    Jumping.apply(choice, plan)
    part = {Jumping.name: choice.to_mapping()}
    return plan.lower(Architecture.of(backbone={}, families=part, training={})).eval()


def full(count: int) -> Tensor:
    x = random_inputs(SEQUENCE, count, torch.Generator().manual_seed(3))
    x[..., 0] = 1
    return x


def only(x: Tensor, chunks: list[int]) -> Tensor:
    """The inputs with some chunks alone, as many padded steps behind."""
    steps = [step for chunk in chunks for step in (2 * chunk, 2 * chunk + 1)]
    return torch.cat([x[:, steps], torch.zeros(len(x), 2 * CHUNKS - len(steps), 3)], 1)


def ran(network: DynamicNetwork, x: Tensor, policy: Policy) -> tuple[Tensor, dict[str, list[float]]]:
    """Routed answers, and how often each input ran each part."""
    infos = tuple(part.info for part in network.parts())
    recorder = Recorder(len(x))
    logits = network.route(x, policy, recorder).logits
    counts = recorder.counts(infos)
    return logits, {info.name: counts[:, column].tolist() for column, info in enumerate(infos)}


class Told(nn.Module):
    """A gate that jumps as far as the first channel of the next step says."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, features: Tensor) -> Tensor:
        wanted = features[:, 1].round().long().clamp(0, self.reach)
        return nn.functional.one_hot(self.reach - wanted, self.reach + 1).float()


def jumping(reach: int) -> DynamicNetwork:
    gating = GatingChoice("pooled_linear", "straight_through")
    network = lowered(JumpingChoice(ALL, reach, gating, TARGET))
    for step in network.steps:
        if isinstance(step, JumpStep) and step.decider is not None:
            step.decider.gate = Told(reach)
    return network


def read_by(jumps: tuple[int, ...]) -> list[int]:
    """Who jumps so far after reading each chunk reads these."""
    place, read = 0, []
    while place < CHUNKS:
        read.append(place)
        place += 1 + (jumps[place] if place < CHUNKS - 1 else 0)
    return read


def test_jumps_by_hand() -> None:
    # After chunk 0 over two, after chunk 3 over none: 0, 3, 4; what chunks 1 and 2 would say does not matter.
    assert read_by((2, 1, 1, 0)) == [0, 3, 4]
    assert read_by((0, 2, 0, 0)) == [0, 1, 4]
    assert read_by((2, 0, 0, 2)) == [0, 3]
    assert read_by((0, 0, 0, 0)) == list(ALL)


def test_every_way_to_jump_reads_what_it_should() -> None:
    network, plain = jumping(2), backbone()
    ways = list(product(range(3), repeat=CHUNKS - 1))
    x = full(len(ways))
    for chunk in range(CHUNKS - 1):  # the gate after a chunk sees the first step of the next
        x[:, 2 * (chunk + 1), 1] = torch.tensor([float(way[chunk]) for way in ways])
    with torch.no_grad():
        expected = torch.cat([plain(only(x[i : i + 1], read_by(way))) for i, way in enumerate(ways)])
        run = network.simulate(x)
    torch.testing.assert_close(run.logits[-1], expected, rtol=0, atol=1e-5)
    logits, counts = ran(network, x, Policy.never(0))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    for chunk in ALL:
        reads = [float(chunk in read_by(way)) for way in ways]
        assert counts[f"branch.{chunk}.1"] == reads == run.usage[f"branch.{chunk}.1"].tolist()
        if chunk < CHUNKS - 1:
            assert counts[f"gate.{chunk}"] == reads, "only who reads decides"
    for row in (0, 40, 80):
        alone, _ = ran(network, x[row : row + 1], Policy.never(0))
        torch.testing.assert_close(alone[0], expected[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["pooled_linear", "recurrent", "policy_network"])
def test_gates_with_a_memory_remember_what_they_decided_alone(gate: str) -> None:
    choice = JumpingChoice(ALL, 2, GatingChoice(gate, "straight_through"), TARGET)
    torch.manual_seed(1)
    network, x = lowered(choice), full(30)
    generator = torch.Generator().manual_seed(4)
    for name, weight in network.named_parameters():
        if "reading" not in name and "body" not in name:  # gates that disagree about the inputs
            nn.init.normal_(weight, std=2.0 if weight.dim() > 1 else 0.01, generator=generator)
    with torch.no_grad():
        run = network.simulate(x)
    assert any(0 < float(run.usage[f"branch.{chunk}.1"].mean()) < 1 for chunk in ALL)
    logits, counts = ran(network, x, Policy.never(0))
    torch.testing.assert_close(logits, run.logits[-1], rtol=0, atol=1e-5)
    assert all(counts[f"branch.{chunk}.1"] == run.usage[f"branch.{chunk}.1"].tolist() for chunk in ALL)


def test_the_knob_shortens_jumps() -> None:
    choice = JumpingChoice(ALL, 2, GatingChoice("pooled_linear", "straight_through"), TARGET)
    network, x = lowered(choice), full(20)
    with torch.no_grad():
        read = [
            sum(float(network.simulate(x, setting={"jumping": knob}).usage[f"branch.{c}.1"].mean()) for c in ALL)
            for knob in (-99.0, 0.0, 99.0)
        ]
    assert read[0] == 2  # chunks 0 and 3
    assert read[0] < read[1] <= read[2] == 5


def test_a_jump_needs_room() -> None:
    with pytest.raises(SpecError, match="must name a chunk to jump from and one to jump over"):
        lowered(JumpingChoice((1,), 1, GatingChoice("pooled_linear", "straight_through"), TARGET))
    with pytest.raises(SpecError, match="must be at least 1, but got 0"):
        JumpingChoice(ALL, 0, GatingChoice("pooled_linear", "straight_through"), TARGET)


def test_a_description() -> None:
    choice = JumpingChoice((0, 1), 2, GatingChoice("pooled_linear", "straight_through"), TARGET)
    assert Jumping.describe(choice) == "jumps 2 over 0,1 pooled_linear straight_through 0.6 rate"
