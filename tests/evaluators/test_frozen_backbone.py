"""Heads on a frozen, adopted network: the same training as with the network itself, for the price of the heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from dynarch.evaluators.evaluator import Task
from dynarch.evaluators.evaluators import evaluator_of
from dynarch.evaluators.features import LOGITS, FeatureStore
from dynarch.evaluators.from_scratch import FromScratch, load_candidate
from dynarch.evaluators.frozen_backbone import FrozenBackbone, shadowed, taken_apart
from dynarch.evaluators.score_table import record
from dynarch.evaluators.splits import Splits
from dynarch.evaluators.testing import contract_book, contract_splits, run_to_end
from dynarch.evaluators.training import TrainingRun
from dynarch.spaces.adoption import adopt
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import ShapeError
from dynarch.spaces.recipe import RecipeChoice
from dynarch.spaces.space import build
from dynarch.tests.own_models import TorchvisionResNet, settled

MEASURES = ("max_prob", "learned_confidence")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return contract_splits()


@pytest.fixture(scope="module")
def model(splits: Splits) -> str:
    torch.manual_seed(0)
    shape, classes = splits.signature.input_shape, splits.signature.classes
    made = settled(TorchvisionResNet(channels=shape[0], classes=classes), splits.train.x[:32])
    return adopt(made, splits.train.x[:3]).model


def exits_on(model: str, heads: Sequence[str] = ("linear", "mlp"), *, rate: float = 0.0) -> Architecture:
    """Exits after the first blocks."""
    exits = {
        "positions": list(range(len(heads))),
        "heads": list(heads),
        "objective": "equal",
        "decisions": list(MEASURES),
    }
    return Architecture.of(
        backbone={"name": "adopted", "model": model, "rate": rate},
        families={"early_exit": exits} if heads else {},
        training=RecipeChoice(0.01, 0.01, 0.0, 16, 0, False).to_mapping(),
    )


def weights_of(folder: Path) -> Mapping[str, torch.Tensor]:
    return load_candidate(folder)[0].state_dict()


@pytest.mark.parametrize("heads", [("linear", "mlp"), ("conv", "linear")])
def test_heads_are_those_that_training_the_whole_network_gives(
    model: str, splits: Splits, tmp_path: Path, heads: Sequence[str]
) -> None:
    made = exits_on(model, heads)
    book, outcomes = contract_book(made), []
    for number, member in enumerate((FrozenBackbone(), FromScratch())):
        task = Task(made, 0, 2, tmp_path / str(number) / "candidates" / "00000", MEASURES, 6)
        outcomes.append(run_to_end(member.start(task, splits, book), 2))
    frozen, whole = (weights_of(tmp_path / name / "candidates" / "00000") for name in ("0", "1"))
    for name, value in whole.items():
        torch.testing.assert_close(frozen[name], value, rtol=1e-3, atol=1e-4)
    assert outcomes[0].curve == pytest.approx(outcomes[1].curve, abs=0.05)


def test_features_are_computed_once_for_all_candidates(model: str, splits: Splits, tmp_path: Path) -> None:
    parts = {"train": splits.train, "tune": splits.tune}
    trunk, _ = taken_apart(build(exits_on(model), splits.signature).eval())
    store = FeatureStore(tmp_path, trunk, parts)
    assert store.ensure([])
    assert store.computed == len(splits.train) + len(splits.tune)
    other, _ = taken_apart(build(exits_on(model, ("mlp",)), splits.signature).eval())
    again = FeatureStore(tmp_path, other, parts)
    assert again.ensure([])
    assert again.computed == 0
    assert isinstance(again.read("train", LOGITS), np.memmap)
    with torch.no_grad():
        expected = build(exits_on(model, ()), splits.signature).eval()(splits.tune.x)[-1]
    np.testing.assert_allclose(again.read("tune", LOGITS), expected.numpy(), atol=1e-5)


def _ensure(folder: Path, made: Architecture, splits: Splits) -> int:
    torch.set_num_threads(1)
    trunk, _ = taken_apart(build(made, splits.signature).eval())
    store = FeatureStore(folder, trunk, {"tune": splits.tune})
    assert store.ensure([0])
    return store.computed


def test_two_workers_compute_them_once(model: str, splits: Splits, tmp_path: Path) -> None:
    given = (tmp_path, exits_on(model), splits)
    with get_context("fork").Pool(2) as pool:
        counts = pool.starmap(_ensure, [given, given])
    assert sorted(counts) == [0, len(splits.tune)]


def test_what_would_need_too_much_room_is_not_kept(model: str, splits: Splits, tmp_path: Path) -> None:
    trunk, _ = taken_apart(build(exits_on(model), splits.signature).eval())
    n, classes = len(splits.tune), splits.signature.classes
    room = 4 * n * (4 + 4 + 8 + classes)  # means of 4, 4 and 8 channels after the first three blocks, logits
    assert not FeatureStore(tmp_path, trunk, {"tune": splits.tune}, largest_bytes=room - 1).ensure([])
    assert not list(tmp_path.rglob("*.npy"))
    assert FeatureStore(tmp_path, trunk, {"tune": splits.tune}, largest_bytes=room + 600).ensure([])  # with headers


def test_shadow_gives_what_the_network_gives(model: str, splits: Splits, tmp_path: Path) -> None:
    network = build(exits_on(model, ("conv", "linear", "mlp")), splits.signature).eval()
    made = shadowed(network, splits, tmp_path)
    assert made is not None
    shadow, numbered = made
    for part in ("train", "certify"):
        there, here = record(network, getattr(splits, part).x), record(shadow, getattr(numbered, part).x)
        for expected, found in zip(there.logits, here.logits, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    network.exit_steps[0].temperature.fill_(2.0)
    assert float(shadow.exit_steps[0].temperature) == 2.0


def test_cheapest_evaluator_that_suits_is_taken(model: str) -> None:
    assert evaluator_of(exits_on(model), "from_scratch").name == "frozen_backbone"
    assert evaluator_of(exits_on(model, ()), "from_scratch").name == "frozen_backbone"
    assert evaluator_of(exits_on(model, rate=0.1), "from_scratch").name == "from_scratch"
    others = {"layer_skipping": {"blocks": [0]}, **exits_on(model).families}
    skipping = Architecture.from_mapping({**exits_on(model).to_mapping(), "families": others})
    assert evaluator_of(skipping, "from_scratch").name == "from_scratch"
    assert evaluator_of(exits_on(model), "nothing").name == "nothing"


def test_features_of_a_network_that_learns_are_refused(model: str, splits: Splits) -> None:
    with pytest.raises(ShapeError, match="only of a network whose backbone is frozen"):
        taken_apart(build(exits_on(model, rate=0.1), splits.signature))


def test_adopted_weights_learn_at_their_own_rate(model: str, splits: Splits) -> None:
    made = exits_on(model, ("linear",), rate=0.25)
    run = TrainingRun(made, splits, signature=splits.signature, epochs=1, seed=0)
    run.train_to(1)
    new, adopted = run._optimizer.param_groups
    assert adopted["lr"] == pytest.approx(0.25 * new["lr"])
    assert len(new["params"]) == 2 + sum(1 for step in run.network.exit_steps for _ in step.learned.parameters())


def test_static_network_at_rate_0_is_the_users_own(model: str, splits: Splits) -> None:
    made = exits_on(model, ())
    run = TrainingRun(made, replace(splits), signature=splits.signature, epochs=3, seed=0)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.train_to(3)
    assert run.epochs_done == 3
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
