"""Problems on texts and sequences: what they search, what is kept of them, and that a resumed one has the same data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynarch import (
    EarlyExit,
    FrameSelection,
    LayerSkipping,
    Problem,
    Recurrent,
    Residual,
    SkipUpdate,
    Space,
    TemporalExit,
)
from dynarch.evaluators.data import from_clips
from dynarch.evaluators.splits import visible_splits
from dynarch.evaluators.testing import made_up_book
from dynarch.hardware.inventory import inventory
from dynarch.search.spec_file import load_spec
from dynarch.search.storage import Storage
from dynarch.search.worker import Assignment, Worker, arrays_of
from dynarch.spaces.errors import SpecError
from dynarch.spaces.scope import Chance, Scope
from dynarch.spaces.signature import Signature

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "kind", "shape", "classes"), [("opinions", "text", None, 2), ("drifts", "sequence", (24, 5), 4)]
)
def test_a_resumed_search_has_the_same_data(
    tmp_path: Path, name: str, kind: str, shape: tuple[int, ...] | None, classes: int
) -> None:
    problem = Problem.from_mapping({"data": {"source": name}})
    data = problem.data
    assert (data.kind, data.classes, data.name) == (kind, classes, name)
    assert shape is None or data.signature.input_shape == shape
    assert {kind in member.kinds for member in problem.space.backbones} == {True}
    storage = Storage(tmp_path)
    storage.keep_data(data)
    kept = storage.kept_data(data.id, data.name)
    again = Problem.from_mapping(problem.to_mapping(), data=kept)
    assert again.data.id == data.id
    assert again.data.signature == data.signature
    assert again.data.words == data.words
    assert again.to_mapping() == problem.to_mapping()


def test_words_come_from_the_train_split_of_the_problems_own_seed() -> None:
    words = [Problem.from_mapping({"data": {"source": "opinions"}, "search": {"seed": seed}}).data for seed in (0, 1)]
    assert len(words[0].words or ()) == len(words[1].words or ())  # frequent ones: all of them, in another order
    assert words[0].id != words[1].id


def test_workers_get_the_kind() -> None:
    problem = Problem(data="drifts", space=Space((Recurrent(),)))
    splits = visible_splits(problem.data, problem.splits, 0)
    assignment = Assignment(
        arrays=arrays_of(splits),
        signature=splits.signature.to_mapping(),
        book={},
        decisions=(),
        evaluator="from_scratch",
        epochs=1,
        rungs=(),
        seed=0,
        max_points=1,
        folder="",
    )
    assert assignment.splits().signature == problem.data.signature


def test_backbones_of_another_kind_are_refused_with_their_place() -> None:
    with pytest.raises(SpecError, match=r"does not take inputs of kind 'text' \(but these do: .*recurrent") as caught:
        Problem(data="opinions", space=Space((Residual(),)))
    assert caught.value.path == "space.backbones.residual"
    with pytest.raises(SpecError, match="does not take inputs of kind 'image'") as caught:
        Problem(space=Space((Residual(), Recurrent())))
    assert caught.value.path == "space.backbones.recurrent"


def test_clips_have_backbones() -> None:
    clips = np.random.default_rng(0).normal(size=(200, 5, 1, 8, 8)).astype(np.float32)
    problem = Problem(data=from_clips(list(clips), np.arange(200) % 2, frames=3))
    assert problem.data.signature == Signature((3, 1, 8, 8), 2, "clip")
    assert [member.name for member in problem.space.backbones] == ["frame_recurrent"]


def test_a_spec_says_how_its_file_is_read(tmp_path: Path) -> None:
    lines = [f"{i % 2}\tword{i % 7} word{i % 3} {'good' if i % 2 else 'bad'} end" for i in range(200)]
    for name in ("train.tsv", "test.tsv"):
        (tmp_path / name).write_text("\n".join(["label\ttext", *lines]) + "\n")
    section = {"source": "train.tsv", "test": "test.tsv", "length": 3}
    problem = Problem.from_mapping({"data": section}, folder=tmp_path)
    assert problem.data.x.shape == (200, 3)
    assert problem.data.x_test is not None
    assert "end" not in (problem.data.words or ())
    for option, value in (("lenght", 3), ("frames", 3), ("length", 0)):
        with pytest.raises(SpecError) as caught:
            Problem.from_mapping({"data": {**section, option: value}}, folder=tmp_path)
        assert caught.value.path == f"data.{option}"


def test_the_examples_are_of_their_tasks() -> None:
    for name, kind in (("opinions", "text"), ("drifts", "sequence")):
        problem = load_spec(EXAMPLES / f"{name}.toml")
        assert problem.data.kind == kind
        assert problem.space.size(problem.data.signature) > 100


SMALL = {
    "digits": Space((Residual(width=(4,), depth=(1,)),), (EarlyExit(max_exits=1), LayerSkipping())),
    "opinions": Space((Recurrent(),), (SkipUpdate(),)),
    "drifts": Space((Recurrent(),), (FrameSelection(), TemporalExit())),
}


@pytest.mark.parametrize("name", SMALL)
def test_nobody_writes_into_the_data_that_workers_share(tmp_path: Path, name: str) -> None:
    """Where Ray keeps it, a write would end the process; here it goes into a copy of the page that was written to."""
    problem = Problem(data=name, space=SMALL[name])
    splits = visible_splits(problem.data, problem.splits, 0)
    given = {key: array[:48] for key, array in arrays_of(splits).items()}
    shared = {}
    for key, array in given.items():
        np.save(tmp_path / f"{key}.npy", array)
        shared[key] = np.load(tmp_path / f"{key}.npy", mmap_mode="c")
    found = inventory(problem.space, problem.data.signature, compaction=False)
    assignment = Assignment(
        arrays=shared,
        signature=splits.signature.to_mapping(),
        book=made_up_book(found.costs, {"cpu": 1}).to_mapping(),
        decisions=problem.space.decisions(),
        evaluator="from_scratch",
        epochs=2,
        rungs=(1,),
        seed=0,
        max_points=2,
        folder=str(tmp_path),
    )
    worker = Worker(assignment)
    for number in range(2):
        chance = Chance(np.random.default_rng(number))
        worker.assign(number, problem.space.sample(Scope(chance), problem.data.signature), f"candidates/{number:05d}")
        assert [worker.step().state for _ in range(2)] == ["reading", "finished"]
    for key, array in given.items():
        assert np.array_equal(shared[key], array)
