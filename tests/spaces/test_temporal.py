"""Temporal families by hand: what is dropped leaves no trace, what is skimmed changes a part of the state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Outline, Signature, outline
from dynarch.spaces.backbones.recurrent import Recurrent, RecurrentChoice
from dynarch.spaces.choice_step import ChoiceStep
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import CoarseUpdate, PaddingSkip, SkipUpdate
from dynarch.spaces.families.temporal import CoarseUpdateChoice, PaddingSkipChoice, SkipUpdateChoice
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.gating import GatingChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.resource import ResourceChoice
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.space import Space, build
from dynarch.spaces.step import SegmentStep
from dynarch.spaces.trace import Recorder

SEQUENCE = Signature((6, 1 + 2), 3, "sequence")
GATING = GatingChoice("pooled_linear", "straight_through")
TARGET = ResourceChoice(0.6, "rate", "global", 1.0)
HIDDEN, NEVER = 4, Policy.never(0)


def backbone(chunks: int = 3, cell: str = "gru") -> Backbone:
    torch.manual_seed(0)
    return Recurrent.build(RecurrentChoice(HIDDEN, cell, chunks), SEQUENCE).eval()


def network(
    family: type[AbstractFamily], choice: Any, built: Backbone | None = None
) -> tuple[DynamicNetwork, Backbone]:
    made = built or backbone()
    plan = Plan(made, outline(made, SEQUENCE), SEQUENCE)
    family.apply(choice, plan)
    part = {family.name: choice.to_mapping()}
    return plan.lower(Architecture.of(backbone={}, families=part, training={})).eval(), made


def choices_of(whole: DynamicNetwork) -> list[ChoiceStep]:
    return [step for step in whole.steps if isinstance(step, ChoiceStep)]


def decide(whole: DynamicNetwork, picks: list[int]) -> None:
    """Let every gate pick this branch for everybody."""
    for step, pick in zip(choices_of(whole), picks, strict=True):
        *_, last = (module for module in step.modules() if isinstance(module, nn.Linear))
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()
            last.bias[pick] = 1.0


def full(count: int = 5) -> Tensor:
    x = random_inputs(SEQUENCE, count, torch.Generator().manual_seed(3))
    x[..., 0] = 1
    return x


def without(x: Tensor, steps: list[int]) -> Tensor:
    """The inputs with some steps cut out, as many padded steps behind."""
    kept = [step for step in range(x.shape[1]) if step not in steps]
    return torch.cat([x[:, kept], torch.zeros(len(x), len(steps), x.shape[2])], 1)


@pytest.mark.parametrize(
    ("picks", "cut"), [([1, 1, 1], []), ([0, 1, 1], [0, 1]), ([1, 0, 1], [2, 3]), ([1, 1, 0], [4, 5])]
)
def test_a_skipped_chunk_is_as_if_it_were_not_there(picks: list[int], cut: list[int]) -> None:
    whole, plain = network(SkipUpdate, SkipUpdateChoice((0, 1, 2), GATING, TARGET))
    decide(whole, picks)
    x = full()
    with torch.no_grad():
        expected = plain(without(x, cut))
        torch.testing.assert_close(whole(x)[-1], expected, rtol=0, atol=1e-5)
        recorder = Recorder(len(x))
        torch.testing.assert_close(whole.route(x, NEVER, recorder).logits, expected, rtol=0, atol=1e-5)
    parts = [part.info for part in whole.parts()]
    ran = dict(zip([info.name for info in parts], recorder.counts(tuple(parts)).sum(0), strict=True))
    assert [ran[f"branch.{i}.1"] for i in range(3)] == [5 * pick for pick in picks]


def test_who_skips_everything_knows_nothing() -> None:
    whole, plain = network(SkipUpdate, SkipUpdateChoice((0, 1, 2), GATING, TARGET))
    decide(whole, [0, 0, 0])
    with torch.no_grad():
        logits = whole(full())[-1]
        nothing = plain.head(torch.zeros(1, HIDDEN))
    assert torch.equal(logits, nothing.expand_as(logits))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_skimmed_chunk_changes_a_part_of_the_state(cell: str) -> None:
    choice = CoarseUpdateChoice((0, 1, 2), 0.5, False, GATING, TARGET)
    whole, _ = network(CoarseUpdate, choice, backbone(cell=cell))
    decide(whole, [0, 0, 0])
    states: list[Tensor] = []
    head = whole.steps[-1]
    assert isinstance(head, SegmentStep)
    head.body.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    with torch.no_grad():
        whole(full())
    hidden = states[-1][:, -HIDDEN:]
    assert bool(hidden[:, :2].all())
    assert not hidden[:, 2:].any()
    step = choices_of(whole)[0]
    # A GRU of 2 inputs: 3 x 2 x (2 + 2) of 3 x 4 x (2 + 4) weights a step, and likewise with four gates.
    assert step.decider.works.tolist() == pytest.approx([(2 * 4) / (4 * 6), 1])


def test_a_small_reader_is_one_for_all_chunks() -> None:
    choice = CoarseUpdateChoice((0, 1, 2), 0.5, True, GATING, TARGET)
    whole, plain = network(CoarseUpdate, choice)
    ours = sum(weight.numel() for weight in whole.parameters())
    # 3 gates of 2 units: inputs 2, state 2, two biases; three branches, a gate each: 7 inputs (4 + 2 + 1), a bias.
    assert ours - sum(weight.numel() for weight in plain.parameters()) == 3 * 2 * (2 + 2 + 2) + 3 * (7 * 3 + 3)
    decide(whole, [0, 2, 0])
    x = full()
    with torch.no_grad():
        torch.testing.assert_close(whole(x)[-1], plain(without(x, [0, 1, 4, 5])), rtol=0, atol=1e-5)


def test_padding_is_not_read_and_nothing_changes() -> None:
    whole, plain = network(PaddingSkip, PaddingSkipChoice((1, 2)))
    x = random_inputs(SEQUENCE, 40, torch.Generator().manual_seed(4))
    lengths = x[..., 0].sum(1)
    parts = tuple(part.info for part in whole.parts())
    recorder = Recorder(len(x))
    with torch.no_grad():
        expected = plain(x)
        torch.testing.assert_close(whole(x)[-1], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(whole.route(x, NEVER, recorder).logits, expected, rtol=0, atol=1e-5)
    ran = dict(zip([info.name for info in parts], recorder.counts(parts).sum(0), strict=True))
    assert ran["branch.0.1"] == int((lengths > 2).sum())  # chunks of two steps
    assert ran["branch.1.1"] == int((lengths > 4).sum())
    assert whole.knobs == ()


@pytest.mark.parametrize("family", [SkipUpdate(), CoarseUpdate(), PaddingSkip()], ids=lambda each: each.name)
def test_one_chunk_leaves_nothing_to_choose(family: AbstractFamily) -> None:
    assert family.size(outline(backbone(1), SEQUENCE)) == 0
    assert family.size(outline(backbone(3), SEQUENCE)) > 0
    image = Outline((2,), ((4, 8, 8),) * 2, (1, 1), 3, (4, 8, 8))
    assert family.size(image) == 0
    static = next(iter(Space((Recurrent(chunks=(1,)),), (family,)).baselines(SEQUENCE))).to_mapping()
    choice: dict[str, Any] = {"blocks": [0]}
    if family.name != "padding_skip":
        choice |= {"gating": GATING.to_mapping(), "target": TARGET.to_mapping()}
    if family.name == "coarse_update":
        choice |= {"share": 0.5, "skip": False}
    with pytest.raises(SpecError, match="must be a block that ") as caught:
        build(Architecture.from_mapping({**static, "families": {family.name: choice}}), SEQUENCE)
    assert caught.value.path == f"architecture.families.{family.name}.blocks.0"


def test_clips_have_no_padding_to_skip() -> None:
    clip = Signature((3, 1, 8, 8), 4, "clip")
    space = Space((), (PaddingSkip(), SkipUpdate()))
    sizes = {len(space.rivals(shapes)) for _, _, shapes in space.fitted(clip).outlines(clip)}
    assert sizes == {0, 1}
    assert all(not any(shapes.pads) for _, _, shapes in space.fitted(clip).outlines(clip))


def test_descriptions() -> None:
    assert SkipUpdate.describe(SkipUpdateChoice((0, 2), GATING, TARGET)) == (
        "skips chunks 0,2 pooled_linear straight_through 0.6 rate"
    )
    assert CoarseUpdate.describe(CoarseUpdateChoice((1,), 0.25, True, GATING, TARGET)) == (
        "skims or skips chunks 1 by 0.25 pooled_linear straight_through 0.6 rate"
    )
    assert PaddingSkip.describe(PaddingSkipChoice((1, 2))) == "skips padding 1,2"
