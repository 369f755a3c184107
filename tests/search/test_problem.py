"""The problem: every mistake is one line with its place and a remedy, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynarch.evaluators.data import from_arrays
from dynarch.evaluators.splits import SplitSpec
from dynarch.hardware.cpu import Cpu
from dynarch.search.problem import Budget, Constraint, Problem, Strategy
from dynarch.spaces.backbones import InvertedResidual, Residual
from dynarch.spaces.errors import DataError, DeviceUnavailableError, DynarchError, InfeasibleError, SpecError
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.space import Space
from dynarch.tests.inline_searches import small_data

EXITS = "space.families.early_exit"
RESIDUAL = "space.backbones.residual"


def family(**options: object) -> dict[str, object]:
    return {"space": {"families": {"early_exit": options}}}


def residual(**options: object) -> dict[str, object]:
    return {"space": {"backbones": {"residual": options}}}


def constraint(**options: object) -> dict[str, object]:
    return {"constraints": [options]}


def device(**options: object) -> dict[str, object]:
    return {"devices": {"cpu": options}}


METRICS = "accuracy, latency_ms, latency_p95_ms, latency_worst_ms, macs, parameters"
# A spec, what its error says. Unknown names first, then empty and impossible ranges, then wrong kinds.
BAD: tuple[tuple[object, str], ...] = (
    (
        {"serach": {}},
        "serach: 'serach' is not known; did you mean 'search'?"
        " (known: budget, cluster, constraints, data, devices, search, space)",
    ),
    ({"search": {"rungz": True}}, "search.rungz: 'rungz' is not known; did you mean 'rungs'?"),
    (
        {"search": {"sampler": "tep"}},
        "search.sampler: 'tep' is not known; did you mean 'tpe'? (known: nsga2, random, tpe)",
    ),
    (
        {"search": {"objectives": ["macs", "acuracy"]}},
        f"search.objectives.1: 'acuracy' is not known; did you mean 'accuracy'? (known: {METRICS})",
    ),
    ({"search": {"objectives": ["latency_ms@phone"]}}, "search.objectives.0: 'phone' is not known (known: cpu)"),
    (
        {"search": {"objectives": ["accuracy@cpu"]}},
        "search.objectives.0: accuracy is the same on every device; write 'accuracy'",
    ),
    ({"budget": {"epoch": 3}}, "budget.epoch: 'epoch' is not known; did you mean 'epochs'?"),
    ({"data": {"split": {}}}, "data.split: 'split' is not known; did you mean 'splits'?"),
    (
        {"data": {"source": "mnist"}},
        "data: must be one of 'digits', 'opinions', 'drifts' or the path of an .npz",
    ),
    (device(kind="cpuu"), "devices.cpu.kind: 'cpuu' is not known; did you mean 'cpu'?"),
    (device(kind="cpu", thread=1), "devices.cpu.thread: 'thread' is not known; did you mean 'threads'?"),
    (
        {"space": {"families": {"early_exits": {}}}},
        "space.families.early_exits: 'early_exits' is not known; did you mean 'early_exit'?",
    ),
    (family(max_exit=3), f"{EXITS}.max_exit: 'max_exit' is not known; did you mean 'max_exits'?"),
    (family(decision=["max_prop"]), f"{EXITS}.decision.0: 'max_prop' is not known; did you mean 'max_prob'?"),
    (family(placement="freee"), f"{EXITS}.placement: 'freee' is not known; did you mean 'free'?"),
    ({"space": {"backbones": {"resnet": {}}}}, "space.backbones.resnet: 'resnet' is not known (known: "),
    ({"space": {"trainings": {}}}, "space.trainings: 'trainings' is not known; did you mean 'training'?"),
    (constraint(metric="acc", minimum=0.5), f"constraints.0.metric: 'acc' is not known (known: {METRICS})"),
    (constraint(metric="latency_ms@phone", maximum=1), "constraints.0.metric: 'phone' is not known (known: cpu)"),
    (
        constraint(metric="accuracy", minimun=0.5),
        "constraints.0.minimun: 'minimun' is not known; did you mean 'minimum'?",
    ),
    ({"search": {"objectives": []}}, "search.objectives: must name at least one metric"),
    ({"search": {"objectives": ["latency_ms", "latency_ms@cpu"]}}, "search.objectives: must be distinct, but got"),
    ({"search": {"seed": -1}}, "search.seed: must be between 0 and 2147483647, but got -1"),
    ({"search": {"points": 0}}, "search.points: must be between 1 and 256, but got 0"),
    ({"search": {"reduction": 1}}, "search.reduction: must be between 2 and 10, but got 1"),
    ({"search": {"name": " "}}, "search.name: must not be empty"),
    ({"budget": {"trials": 0}}, "budget.trials: must be between 1 and 1000000, but got 0"),
    ({"budget": {"minutes": 0}}, "budget.minutes: must be above 0, but got 0"),
    ({"budget": {"minutes": float("nan")}}, "budget.minutes: input should be a finite number, but got nan"),
    ({"budget": {"workers": 0}}, "budget.workers: must be between 1 and 10000, but got 0"),
    ({"budget": {"cpus_per_worker": 0}}, "budget.cpus_per_worker: must be above 0, but got 0"),
    ({"budget": {"resources": {"disk": 0}}}, "budget.resources.disk: must be above 0, but got 0.0"),
    (
        {"budget": {"resources": {"GPU": 1}}},
        "budget.resources.GPU: is none of the custom resources; use cpus_per_worker and the like",
    ),
    ({"cluster": {"artefacts": "bucket"}}, "cluster.artefacts: must be a URL, but got 'bucket'"),
    ({"cluster": {"ray": " "}}, "cluster.ray: must not be empty; leave it out instead"),
    ({"budget": {"gpus_per_worker": -1}}, "budget.gpus_per_worker: must be 0 or more, got -1"),
    (device(kind="cpu", batch=0), "devices.cpu.batch: must be an integer of at least 1, but got 0; use 1 if unsure"),
    ({"devices": {"a@b": {"kind": "cpu"}}}, "devices.a@b: the name of a device must not contain '@'"),
    ({"devices": {" ": {"kind": "cpu"}}}, "devices: needs names, but got ' '"),
    (family(max_exits=0), f"{EXITS}.max_exits: must be between 1 and 32, but got 0"),
    (family(min_exits=3, max_exits=2), f"{EXITS}.min_exits: must be between 0 and 2, but got 3"),
    (family(heads=[]), f"{EXITS}.heads: needs at least one option, but the list is empty"),
    (family(training=["equal", "equal"]), f"{EXITS}.training: options must be distinct, but got ['equal', 'equal']"),
    ({"space": {"backbones": {}}}, "space.backbones: must name at least one backbone"),
    (residual(width=[]), f"{RESIDUAL}.width: needs at least one option, but the list is empty"),
    (residual(width=[0]), f"{RESIDUAL}.width: must be at least 1, but got [0]"),
    (
        residual(stages=6),
        "space.backbones: images of 8 x 8 cannot be halved 5 times; use fewer stages or larger images",
    ),
    ({"space": {"training": {"learning_rate": []}}}, "space.training.learning_rate: needs at least one option"),
    ({"space": {"training": {"learning_rate": [2.0]}}}, "space.training.learning_rate: must be in (0, 1], but got 2.0"),
    ({"space": {"training": {"batch_size": 1}}}, "space.training.batch_size: must be between 2 and 65536, but got 1"),
    ({"data": {"splits": {"tune": 2}}}, "data.splits.tune: must be a share between 0 and 1, but got 2"),
    (constraint(minimum=0.5), "constraints.0.metric: must be given"),
    (constraint(metric="accuracy"), "constraints.0.maximum: give either minimum or maximum, not both"),
    (constraint(metric="macs", minimum=1, maximum=2), "constraints.0.maximum: give either minimum or maximum, not"),
    (constraint(metric="accuracy", minimum=1.5), "constraints.0.minimum: accuracy is never above 1; lower the bound"),
    (
        constraint(metric="latency_ms", maximum=-1),
        "constraints.0.maximum: latency_ms is never below 0; raise the bound",
    ),
    (constraint(metric="macs", maximum=float("inf")), "constraints.0.maximum: input should be a finite number"),
    ([], "a spec must be a table, but got []"),
    (None, "a spec must be a table, but got None"),
    ({"search": []}, "search: must be a table, but got []"),
    ({"search": {"objectives": "accuracy"}}, "search.objectives: must be a list of metrics, but got 'accuracy'"),
    ({"search": {"seed": "x"}}, "search.seed: input should be a valid integer"),
    ({"budget": {"trials": 2.5}}, "budget.trials: input should be a valid integer"),
    ({"devices": [1]}, "devices: must be a table, but got [1]"),
    ({"devices": {"cpu": "cpu"}}, 'devices.cpu: must be a mapping such as {"kind": "cpu"}, but got \'cpu\''),
    (device(), "devices.cpu.kind: must be one of cpu, "),
    (device(kind="cpu", batch="many"), "devices.cpu.batch: must be an integer of at least 1, but got 'many'"),
    ({"space": []}, "space: must be a table, but got []"),
    ({"space": {"families": []}}, "space.families: must be a table of names, but got []"),
    (residual(width=8), f"{RESIDUAL}.width: input should be a valid tuple, but got 8"),
    (residual(depth=["a"]), f"{RESIDUAL}.depth.0: input should be a valid integer"),
    ({"constraints": {"metric": "macs"}}, "constraints: must be a list of tables, but got {'metric': 'macs'}"),
    ({"constraints": ["macs"]}, "constraints.0: must be a table of options, but got 'macs'"),
    ({"data": "digits"}, "data: must be a table, but got 'digits'"),
    ({"data": {"splits": []}}, "data.splits: must be a table of options, but got []"),
    ({"data": {"source": 3}}, "data: must be a name, an .npz or .tsv.gz file, a folder of images, (x, y) arrays"),
)


@pytest.mark.parametrize(("spec", "message"), BAD, ids=[message.split(":")[0] for _, message in BAD])
def test_a_bad_spec_is_refused_in_one_line_with_its_place(spec: object, message: str) -> None:
    names_data = isinstance(spec, dict) and "data" in spec and "split" not in str(spec["data"])
    with pytest.raises(SpecError) as caught:
        Problem.from_mapping(spec, data=None if names_data else small_data())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.path == (message.split(":")[0] if message.split(" ")[0].endswith(":") else "")


def test_a_device_that_is_not_there_is_refused_with_its_place() -> None:
    with pytest.raises(DeviceUnavailableError) as caught:
        Problem.from_mapping(device(kind="cpu", threads=4096), data=small_data())
    assert str(caught.value).startswith("devices.cpu: threads <= visible cores must hold, but got threads=4096 with ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_looked_for_beside_the_spec(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^data: {tmp_path}/x\.npz cannot be read"):
        Problem.from_mapping({"data": {"source": "x.npz"}}, folder=tmp_path)
    data = small_data()
    np.savez(tmp_path / "x.npz", x=data.x, y=data.y)
    assert Problem.from_mapping({"data": {"source": "x.npz"}}, folder=tmp_path).data.id == data.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": {"trials": 3}}, "budget: must be a Budget, but got {'trials': 3}"),
        ({"space": None}, "space: must be a Space, but got None"),
        ({"strategy": "tpe"}, "strategy: must be a Strategy, but got 'tpe'"),
        ({"splits": {}}, "splits: must be a SplitSpec, but got {}"),
        ({"devices": [Cpu()]}, "devices: must be a Mapping, but got [Cpu("),
        ({"devices": {}}, "devices: must name at least one device"),
        ({"devices": {"x": "cpu"}}, "devices.x: must be a device such as Cpu(), but got 'cpu'"),
        ({"objectives": "accuracy"}, "objectives: must be a tuple of str, but got 'accuracy'"),
        ({"objectives": (3,)}, "objectives: must be a tuple of str, but got (3,)"),
        ({"objectives": None}, "objectives: must be a tuple of str, but got None"),
        ({"constraints": ({"metric": "macs"},)}, "constraints: must be a tuple of Constraint, but got ("),
        ({"data": 3}, "data: must be a name, an .npz or .tsv.gz file, a folder of images, (x, y) arrays"),
    ],
)
def test_what_python_can_get_wrong_is_refused_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Problem(**{"data": small_data(), **options})
    assert str(caught.value).startswith(message)


def test_data_that_cannot_be_split_is_refused_before_anything_starts() -> None:
    x = np.zeros((60, 1, 8, 8), dtype=np.float32)
    with pytest.raises(
        DataError, match=r"^data\.splits\.calibrate: must have at least 10 inputs, but 60 inputs give 6;"
    ):
        Problem(data=(x, np.arange(60) % 2))


def test_flat_data_is_refused_for_images() -> None:
    data = from_arrays(np.zeros((300, 5), dtype=np.float32), np.arange(300) % 2)
    with pytest.raises(SpecError, match=r"^space\.backbones: an image backbone needs inputs of channels x height"):
        Problem(data=data)


# -- what is right --------------------------------------------------------------------------------------------


def full_problem() -> Problem:
    return Problem(
        space=Space(
            backbones=(Residual(width=(2, 4), stages=2), InvertedResidual(width=(4,))),
            families=(EarlyExit(max_exits=2, decision=("entropy",)),),
            training=Recipe(learning_rate=(0.01,)),
        ),
        data=small_data(),
        devices={"slow": Cpu(), "batched": Cpu(batch=4)},
        objectives=("accuracy", "latency_p95_ms@batched", "latency_ms"),
        constraints=(Constraint("latency_ms@batched", maximum=2.0), Constraint("accuracy", minimum=0.5, hard=False)),
        budget=Budget(trials=5, epochs=3, minutes=2.5),
        splits=SplitSpec(tune=0.2),
        strategy=Strategy(seed=3, sampler="random"),
    )


def test_a_problem_survives_as_plain_values() -> None:
    problem = full_problem()
    mapping = json.loads(json.dumps(problem.to_mapping(), allow_nan=False))
    again = Problem.from_mapping(mapping, data=small_data())
    assert again == problem
    assert again.to_mapping() == problem.to_mapping()


def test_an_empty_spec_is_the_default_problem() -> None:
    problem = Problem.from_mapping({})
    assert problem.data.name == "digits"
    assert problem.objectives == ("accuracy", "latency_ms")
    assert problem.budget == Budget()
    assert list(problem.devices) == ["cpu"]


def test_objectives_are_read_on_their_device() -> None:
    problem = full_problem()
    assert [reference.key for reference in problem.references] == [
        "accuracy",
        "latency_p95_ms@batched",
        "latency_ms@slow",  # no device named: the first
    ]
    assert problem.directions == ("maximize", "minimize", "minimize")
    metrics = {"accuracy": 0.9, "latency_p95_ms@batched": 3.0, "latency_ms@slow": 2.0, "latency_ms@batched": 1.0}
    assert problem.values(metrics) == (0.9, 3.0, 2.0)


@pytest.mark.parametrize(
    ("accuracy", "latency", "feasible", "excesses"),
    [
        (0.9, 1.0, True, (-1.0, -0.4)),
        (0.9, 2.0, True, (0.0, -0.4)),  # the bound itself is kept
        (0.9, 2.5, False, (0.5, -0.4)),
        (0.1, 1.0, True, (-1.0, 0.4)),  # a soft bound only steers
        (0.1, 3.0, False, (1.0, 0.4)),
    ],
)
def test_hard_constraints_decide_and_soft_ones_steer(
    accuracy: float, latency: float, feasible: bool, excesses: tuple[float, float]
) -> None:
    problem = full_problem()
    metrics = {"accuracy": accuracy, "latency_ms@batched": latency}
    assert problem.feasible(metrics) is feasible
    assert problem.excesses(metrics) == pytest.approx({"0:latency_ms@batched": excesses[0], "1:accuracy": excesses[1]})


def test_an_impossible_bound_is_told_apart() -> None:
    with pytest.raises(InfeasibleError):
        Problem(data=small_data(), constraints=(Constraint("accuracy", minimum=1.01),))
    Problem(data=small_data(), constraints=(Constraint("accuracy", minimum=1.0), Constraint("macs", maximum=0.0)))
    assert issubclass(InfeasibleError, DynarchError)
