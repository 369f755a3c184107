"""Frame selection by hand: scripted scores, every chunk accounted for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Backbone, Signature, outline
from dynarch.spaces.backbones.recurrent import Recurrent, RecurrentChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import FrameSelection
from dynarch.spaces.families.temporal import FrameSelectionChoice
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.packed import ABSENT, ReadChunk, Sampler
from dynarch.spaces.plan import Plan
from dynarch.spaces.policy import Policy
from dynarch.spaces.sample_step import SampleStep, best, relaxed
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.trace import Recorder

CHUNKS, HIDDEN = 5, 4
SEQUENCE = Signature((2 * CHUNKS, 1 + 2), 3, "sequence")
ALL = tuple(range(CHUNKS))


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Recurrent.build(RecurrentChoice(HIDDEN, "gru", CHUNKS), SEQUENCE).eval()


def lowered(choice: FrameSelectionChoice) -> DynamicNetwork:
    built = backbone()
    plan = Plan(built, outline(built, SEQUENCE), SEQUENCE)
    FrameSelection.apply(choice, plan)
    part = {FrameSelection.name: choice.to_mapping()}
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


def test_the_best_by_hand() -> None:
    scores = torch.tensor([[1.0, 5, 3], [2, 1, 0]])
    assert best(scores, 1).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert best(scores, 2).tolist() == [[0, 1, 1], [1, 1, 0]]
    assert relaxed(scores, 2).tolist() == best(scores, 2).tolist()
    assert relaxed(scores, 3).tolist() == [[1, 1, 1]] * 2


def test_the_gradient_of_the_border_by_hand() -> None:
    scores = torch.tensor([[1.0, 5, 3]], requires_grad=True)
    relaxed(scores, 1).sum().backward()  # type: ignore[no-untyped-call]
    # The border between 5 and 3 is 4: s (1 - s) at 1 - 4, 5 - 4 and 3 - 4.
    slope = [float(torch.sigmoid(torch.tensor(d)) * torch.sigmoid(torch.tensor(-d))) for d in (-3.0, 1.0, -1.0)]
    assert scores.grad is not None
    assert scores.grad[0].tolist() == pytest.approx(slope)


class Fixed(nn.Module):
    """Scores that the inputs carry: the first channel of the first step of each chunk."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, 1 : 6 * CHUNKS : 6]


def test_the_best_chunks_are_read_in_their_order() -> None:
    network, plain = lowered(FrameSelectionChoice(ALL, (0.2, 0.4, 1.0), 4)), backbone()
    (step,) = (step for step in network.steps if isinstance(step, SampleStep))
    step.sampler = Fixed()
    assert (step.keep, step.levels, network.knobs) == ((1, 2, 5), (-2.0, -1.0, 0.0), ("frame_selection",))
    x = full(6)
    scores = torch.tensor([[5.0, 1, 4, 0, 2]] * 6)
    x[:, ::2, 1] = scores
    for level, chunks in ((-2.0, [0]), (-1.0, [0, 2]), (0.0, list(ALL))):
        setting = (("frame_selection", level),)
        with torch.no_grad():
            expected = plain(only(x, chunks))
            run = network.simulate(x, setting=dict(setting))
        torch.testing.assert_close(run.logits[-1], expected, rtol=0, atol=1e-5)
        for rows in (x, x[:1]):
            logits, counts = ran(network, rows, Policy("max_prob", (), setting))
            torch.testing.assert_close(logits, expected[: len(rows)], rtol=0, atol=1e-5)
            assert [counts[f"branch.{chunk}.1"][0] for chunk in ALL] == [float(chunk in chunks) for chunk in ALL]


def test_in_training_inputs_keep_different_numbers() -> None:
    network = lowered(FrameSelectionChoice(ALL, (0.2, 0.4, 1.0), 4)).train()
    run = network.simulate(full(200), progress=0.3, generator=torch.Generator().manual_seed(0))
    kept = torch.stack([run.usage[f"branch.{chunk}.1"] for chunk in ALL], 1).sum(1).round()
    assert set(kept.tolist()) == {1, 2, 5}


def test_samplers_see_each_chunk_and_no_padding() -> None:
    chunks = [block for block in backbone().blocks if isinstance(block, ReadChunk)]
    sampler = Sampler(chunks[1:], chunks[0].taken, 3)
    x = full(2)
    x[1, 6:] = 0  # two chunks of padding
    row = x.flatten(1)
    with torch.no_grad():
        scores = sampler(row)
        x[0, 2:4, 1:] += 1
        changed = sampler(x.flatten(1))
    assert scores.shape == (2, CHUNKS - 1)
    assert (scores[0] != changed[0]).tolist() == [True, False, False, False]
    assert (scores[1] == ABSENT).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("blocks", "keep", "hidden", "path"),
    [(ALL, (), 4, "keep"), (ALL, (0.5, 0.2), 4, "keep"), (ALL, (0.0, 1.0), 4, "keep"), (ALL, (0.5,), 0, "hidden")],
)
def test_impossible_selections_name_the_field(
    blocks: tuple[int, ...], keep: tuple[float, ...], hidden: int, path: str
) -> None:
    with pytest.raises(SpecError) as caught:
        FrameSelectionChoice(blocks, keep, hidden)
    assert caught.value.path == path


def test_chunks_that_compete_are_neighbours() -> None:
    with pytest.raises(SpecError, match="must be neighbours") as caught:
        lowered(FrameSelectionChoice((0, 2, 4), (0.5,), 4))
    assert caught.value.path == "blocks"


def test_a_budget_that_is_no_level_is_refused() -> None:
    network = lowered(FrameSelectionChoice(ALL, (0.4, 1.0), 4))
    with pytest.raises(SpecError, match="must be one of its levels") as caught:
        network.route(full(2), Policy("max_prob", (), (("frame_selection", -2.0),)))
    assert caught.value.path == "policy.setting.frame_selection"


def test_a_description() -> None:
    assert FrameSelection.describe(FrameSelectionChoice((0, 1), (0.5, 1.0), 8)) == "keeps 0.5-1 of 0,1 h8"
