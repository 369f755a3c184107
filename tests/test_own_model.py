"""A search over an adopted model goes on wherever its storage is: in other processes, when the first folder is gone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynarch.evaluators.data import load_data
from dynarch.evaluators.from_scratch import load_candidate
from dynarch.evaluators.splits import Splits, visible_splits
from dynarch.evaluators.testing import made_up_book
from dynarch.hardware.inventory import costs_of, inventory
from dynarch.search.problem import Budget, Problem
from dynarch.search.storage import Storage
from dynarch.search.worker import Assignment, Worker, arrays_of
from dynarch.spaces import Architecture, EarlyExit, LayerSkipping, Signature, Space, adopt, build
from dynarch.spaces.adopted import shelf
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families.sample.early_exit import EarlyExitChoice
from dynarch.spaces.probes import sample
from dynarch.tests.own_models import CifarResNet, TorchvisionResNet, settled

ROOT = Path(__file__).parent.parent
EXIT = EarlyExit(min_exits=1, max_exits=1, heads=("linear",), training=("equal",))


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    torch.manual_seed(0)
    x = torch.from_numpy(load_data("digits").x[:64])
    model = settled(TorchvisionResNet((2, 1), classes=10), x)
    adopted = adopt(model, x[:2], folder=tmp_path / "mine", rate=(0.0, 0.1))
    return Problem(space=Space((adopted,), (EXIT, LayerSkipping())), data="digits", budget=Budget(epochs=1))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process, which knows nothing of what was adopted here."""
    monkeypatch.setattr(shelf, "_SHELVES", {})
    shelf.load.cache_clear()


def frozen(problem: Problem) -> Architecture:
    """A member with an exit and frozen weights."""
    static = next(iter(problem.space.baselines(problem.data.signature)))
    exits = EarlyExitChoice((1,), ("linear",), "equal", ("max_prob",))
    return Architecture.of(
        backbone={**static.backbone, "rate": 0.0}, families={"early_exit": exits.to_mapping()}, training=static.training
    )


def kept(problem: Problem, folder: Path) -> Storage:
    storage = Storage(folder / "results")
    storage.prepare()
    storage.keep_models(problem.space)
    shutil.rmtree(folder / "mine")
    return storage


def assignment(problem: Problem, splits: Splits, storage: Storage) -> Assignment:
    folder = storage.search_folder("s1")
    folder.mkdir(parents=True)
    return Assignment(
        arrays=arrays_of(splits),
        signature=splits.signature.to_mapping(),
        book=made_up_book([costs_of(build(frozen(problem), splits.signature).eval())], {"cpu": 1}).to_mapping(),
        decisions=("max_prob",),
        evaluator="from_scratch",
        epochs=1,
        rungs=(),
        seed=0,
        max_points=4,
        folder=str(folder),
    )


def test_every_part_is_in_the_inventory(problem: Problem) -> None:
    signature = problem.data.signature
    found = inventory(problem.space, signature, compaction=False)
    for _, architecture in sample(problem.space, signature, number=4):
        keys = set(costs_of(build(architecture, signature).eval()).keys)
        compaction = {k for c in found.costs for k, part in zip(c.keys, c.parts, strict=True) if part.kind == "compact"}
        assert keys <= set(found.parts) | compaction


def test_a_stored_problem_finds_its_model_in_the_storage(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping, before = json.loads(json.dumps(problem.to_mapping())), frozen(problem)
    storage = kept(problem, tmp_path)
    forget(monkeypatch)
    with pytest.raises(SpecError, match=r"no adopted model .* was found") as caught:
        Problem.from_mapping(mapping, data="digits")
    assert caught.value.path == "space.backbones.adopted.folder"
    storage.prepare()
    again = Problem.from_mapping(mapping, data="digits")
    assert frozen(again).id == before.id
    moved = again.space.backbones[0].to_mapping()["folder"]
    assert Path(moved).is_relative_to(storage.folder.resolve()), "where processes without a storage look"


def test_a_worker_finds_it_and_the_result_is_whole(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = visible_splits(problem.data, problem.splits, 0)
    architecture = frozen(problem)
    given = assignment(problem, splits, kept(problem, tmp_path))
    forget(monkeypatch)
    worker = Worker(given)
    worker.assign(0, architecture, "candidates/00000")
    message = worker.step()
    assert (message.state, message.cause) == ("finished", None)
    network, _ = load_candidate(Path(given.folder) / "candidates" / "00000")
    assert network.architecture.id == architecture.id
    own = build(architecture, splits.signature).eval()
    with torch.no_grad():
        assert torch.equal(network(splits.tune.x)[-1], own(splits.tune.x)[-1]), (
            "the user's own answers, to the last bit"
        )


def test_a_damaged_model_is_refused(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (adopted,) = problem.space.backbones
    forget(monkeypatch)  # others of these tests adopted the same model into their folders
    shelf.add_shelf(tmp_path / "mine")
    home = tmp_path / "mine" / frozen(problem).backbone["model"]
    architecture = frozen(problem)
    whole = (home / shelf.WEIGHTS).read_bytes()
    (home / shelf.WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SpecError, match="must have the digest"):
        build(architecture, problem.data.signature)
    (home / shelf.WEIGHTS).write_bytes(whole[:100])
    with pytest.raises(SpecError, match="cannot be read"):
        build(architecture, problem.data.signature)
    document = json.loads((home / shelf.STRUCTURE).read_text())
    document["head"]["steps"].append(["call", "os.system", ["ls"], {}])
    (home / shelf.STRUCTURE).write_text(json.dumps(document))
    with pytest.raises(SpecError, match="must hold the model"):
        replace(adopted)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (["call", "torch.load", [{"slot": 0}], {}], "an operation that can be adopted, but calls 'torch.load'"),
        (["call", "builtin.eval", ["1"], {}], "but calls 'builtin.eval'"),
        (["call", "method.numpy", [{"slot": 0}], {}], "but calls 'method.numpy'"),
        (["call", "aten.from_file.default", ["x"], {}], "but calls 'aten.from_file.default'"),
        (["call", "torch.relu", [{"slot": 999}], {}], "number of an earlier step"),
        (["leaf", "nothing", [{"slot": 0}], {}], "must name one of"),
        (["goto", 3], "must be one of leaf, call, tensor, batch"),
    ],
)
def test_a_structure_can_ask_for_nothing_but_known_operations(problem: Problem, step: object, says: str) -> None:
    structure, weights = shelf.load(frozen(problem).backbone["model"])
    document = json.loads(structure.canonical)
    document["head"]["steps"].append(step)
    with pytest.raises(SpecError, match=says):
        structure.of(document).build(weights, rate=0.0)


@pytest.mark.parametrize("depth", [20, 56])
def test_trained_networks_of_others(shared_data: Path, depth: int) -> None:
    """The published CIFAR-10 networks: multiply-accumulates and blocks as their paper has them."""
    file = next((shared_data / "weights" / "resnet_cifar10").glob(f"resnet{depth}-*.th"))
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in state.items()}
    each = (depth - 2) // 6
    adopted = adopt(CifarResNet(each), torch.randn(2, 3, 32, 32), weights=weights)
    document = shelf.load(adopted.model)[0].document
    assert document["stages"] == [each] * 3
    assert document["skippable"].count(True) == 3 * each - 2  # all but those that halve the sides
    (static,) = Space((adopted,), ()).baselines(Signature((3, 32, 32), 10))
    costs = costs_of(build(static, Signature((3, 32, 32), 10)).eval())
    assert sum(costs.macs) == pytest.approx({20: 40.6e6, 56: 125.5e6}[depth], rel=0.005)


def test_the_page_and_the_readme_show_lines_of_the_example() -> None:
    lines = [line.strip() for line in (ROOT / "examples" / "own_model.py").read_text().splitlines()]
    for page in ("README.md", "docs/own-model.md"):
        shown = [
            block for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S) if "adopt" in block
        ]
        assert shown
        assert [line for block in shown for line in block.splitlines() if line.strip() not in lines] == []
