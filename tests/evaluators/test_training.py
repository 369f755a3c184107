"""Training: continued bit for bit, seeded by nothing but the seed, ended by what cannot go on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.evaluators.augmentation import augment
from dynarch.evaluators.data import from_arrays
from dynarch.evaluators.splits import Part, Splits, SplitSpec, visible_splits
from dynarch.evaluators.testing import contract_splits, pattern_data, same_weights, small_architecture
from dynarch.evaluators.training import TrainingRun, fit_normalization, training_device
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import EvaluationFailed
from dynarch.spaces.exit_objectives import EXIT_OBJECTIVES
from dynarch.spaces.normalize import Normalize
from dynarch.spaces.space import backbone_outline, build

SIGNATURE = pattern_data().signature


def run_of(*, epochs: int = 4, seed: int = 5, splits: Splits | None = None, **recipe: float) -> TrainingRun:
    architecture = small_architecture().to_mapping()
    architecture["training"] |= recipe
    return TrainingRun(
        Architecture.from_mapping(architecture),
        splits or contract_splits(),
        signature=SIGNATURE,
        epochs=epochs,
        seed=seed,
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def whole() -> TrainingRun:
    """Four epochs without a break."""
    run = run_of()
    run.train_to(4)
    return run


@pytest.mark.parametrize("breaks", [(1,), (3,), (1, 2, 3), (0,)])
def test_a_continued_run_is_the_whole_one_bit_for_bit(
    tmp_path: Path, whole: TrainingRun, breaks: tuple[int, ...]
) -> None:
    run = run_of()
    for epoch in breaks:
        run.train_to(epoch)
        run.save(tmp_path / "checkpoint.pt")
        run = run_of()
        torch.manual_seed(epoch)
        run.load(tmp_path / "checkpoint.pt")
        assert run.epochs_done == epoch
    run.train_to(4)
    assert same_weights(run.network, whole.network)
    assert run.train_loss == whole.train_loss
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint.pt"]


def test_a_stopped_run_is_the_beginning_of_a_finished_one(whole: TrainingRun) -> None:
    """The schedule is that of the full training: two epochs of four are not two epochs of two."""
    begun, short = run_of(), run_of(epochs=2)
    begun.train_to(2)
    short.train_to(2)
    assert begun.train_loss == whole.train_loss[:2]
    assert not same_weights(begun.network, short.network)


def test_no_more_than_the_full_training(whole: TrainingRun) -> None:
    losses = list(whole.train_loss)
    whole.train_to(9)
    assert whole.epochs_done == 4
    assert whole.train_loss == losses


def test_training_learns(whole: TrainingRun) -> None:
    """The mean cross entropy of the exits falls below ln 3, which is what a guess costs."""
    assert whole.train_loss == sorted(whole.train_loss, reverse=True)
    assert whole.train_loss[-1] < math.log(3)


@pytest.mark.parametrize("objective", [member.name for member in EXIT_OBJECTIVES])
def test_every_objective_trains(objective: str) -> None:
    document = small_architecture().to_mapping()
    document["families"]["early_exit"]["objective"] = objective
    run = TrainingRun(Architecture.from_mapping(document), contract_splits(), signature=SIGNATURE, epochs=2, seed=0)
    run.train_to(2)
    assert run.objective.name == objective
    assert run.train_loss[1] < run.train_loss[0]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Neither on torch's generator, nor on whether the outline of the backbone is known already."""
    torch.manual_seed(0)
    backbone_outline.cache_clear()
    cold = run_of()
    torch.manual_seed(123)
    torch.rand(5)
    warm = run_of()
    assert same_weights(cold.network, warm.network)
    assert not same_weights(cold.network, run_of(seed=6).network)


def test_the_generator_of_the_process_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run = run_of(epochs=1, flip=True)
    run.train_to(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_reads_the_train_split_alone() -> None:
    """Nothing in the other splits makes a difference."""
    splits = contract_splits()
    blank = Part(torch.zeros_like(splits.tune.x), splits.tune.y)
    losses = []
    for each in (splits, replace(splits, calibrate=blank, tune=blank, certify=blank)):
        run = run_of(epochs=1, splits=each)
        run.train_to(1)
        losses.append(run.train_loss)
    assert losses[0] == losses[1]


# -- ends -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_in_its_epoch() -> None:
    """From the second epoch on the inputs are infinite."""
    run = run_of()
    run.train_to(1)
    run._train.x.fill_(math.inf)
    with pytest.raises(EvaluationFailed, match="the training loss became nan in epoch 2"):
        run.train_to(4)
    assert run.epochs_done == 1
    assert len(run.train_loss) == 1


@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("no room")])
def test_a_lack_of_memory_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> float:
        raise error

    run = run_of()
    monkeypatch.setattr(run, "_step", step)
    with pytest.raises(EvaluationFailed, match="out of memory in epoch 1: no room"):
        run.train_to(1)


# -- parts ----------------------------------------------------------------------------------------------------


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    """108 inputs in batches of 32 are 4 steps an epoch, 40 in ten epochs, the first 4 of them warm-up.

    So step 0 has 1/4 of the rate, step 3 all of it, step 22 (half way from 4 to 40) half of it, and the end none.
    """
    run = run_of(epochs=10, learning_rate=0.1)
    assert len(contract_splits().train) == 108
    for step, rate in ((0, 0.025), (3, 0.1), (4, 0.1), (22, 0.05), (40, 0.0)):
        run._set_rate(step)
        assert [group["lr"] for group in run._optimizer.param_groups] == [pytest.approx(rate, abs=1e-9)]


def test_a_batch_of_one_is_left_out() -> None:
    """97 inputs in batches of 32 leave one; batch normalisation of a single value a channel would fail."""
    splits = contract_splits()
    run = run_of(epochs=1, splits=replace(splits, train=Part(splits.train.x[:97], splits.train.y[:97])))
    run.train_to(1)
    assert math.isfinite(run.train_loss[0])


def test_inputs_are_normalised_by_the_train_split() -> None:
    """Channel 0 holds 1 and 3 in equal parts, channel 1 a constant: mean 2, deviation sqrt(4/(4-1)*...) by torch."""
    x = torch.tensor([1.0, 3.0]).repeat(20).view(40, 1, 1, 1).expand(40, 1, 8, 8)
    both = torch.cat([x, torch.full_like(x, 5.0)], 1).contiguous()
    network = build(small_architecture(), from_arrays(both.numpy(), np.arange(40) % 2).signature)
    fit_normalization(network, Part(both, torch.zeros(40)))
    normalize = next(module for module in network.modules() if isinstance(module, Normalize))
    assert normalize.mean.flatten().tolist() == pytest.approx([2.0, 5.0])
    # n = 2560 values at distance 1 from their mean: sqrt(n / (n - 1)); a constant is held above 0.
    assert normalize.std.flatten().tolist() == pytest.approx([math.sqrt(2560 / 2559), 1e-3])


def test_flat_inputs_are_normalised_by_feature() -> None:
    data = from_arrays(np.arange(300.0).reshape(100, 3), np.arange(100) % 2)
    assert data.x.mean(0).tolist() == [148.5, 149.5, 150.5]
    train = visible_splits(from_arrays(np.tile(data.x, (3, 1)), np.arange(300) % 2), SplitSpec(), 0).train
    normalize = Normalize(data.signature)
    holder = torch.nn.Sequential(normalize)
    fit_normalization(holder, train)  # type: ignore[arg-type]
    assert normalize.mean.tolist() == pytest.approx(train.x.mean(0).tolist())


def test_the_device_is_cuda_where_there_is_one() -> None:
    assert training_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


# -- augmentation ---------------------------------------------------------------------------------------------


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """An image `c x h x w` moved, zeros coming in: pixel by pixel."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)),
    shift=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_every_image_is_one_of_its_allowed_moves(
    shape: tuple[int, int, int, int], shift: int, flip: bool, seed: int
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1
    made = augment(x, torch.Generator().manual_seed(seed), shift=shift, flip=flip)
    assert made.shape == x.shape
    assert made.stride() == torch.empty(shape).stride()  # see `augment`: nothing may pass for channels-last
    for image, result in zip(x, made, strict=True):
        sources = [image, image.flip(2)] if flip else [image]
        moves = range(-shift, shift + 1)
        assert any(torch.equal(result, shifted(s, d, r)) for s in sources for d in moves for r in moves)
    assert torch.equal(augment(x, torch.Generator().manual_seed(seed), shift=shift, flip=flip), made)


def test_augmentation_moves_something() -> None:
    x = torch.rand(64, 1, 4, 4)
    for options in ({"shift": 1, "flip": False}, {"shift": 0, "flip": True}):
        made = augment(x, torch.Generator().manual_seed(0), shift=int(options["shift"]), flip=bool(options["flip"]))
        changed = [not torch.equal(a, b) for a, b in zip(x, made, strict=True)]
        assert 16 < sum(changed) <= 64


def test_what_is_no_image_is_left_as_it_is() -> None:
    x = torch.rand(5, 7)
    assert augment(x, torch.Generator(), shift=2, flip=True) is x
