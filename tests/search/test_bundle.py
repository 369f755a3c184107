"""A bundle routes as dynarch does, for every family, and tells what it cannot take along."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynarch.evaluators.frozen_backbone import LookUpStep
from dynarch.search.bundle.bundle import write_bundle
from dynarch.spaces.errors import SpecError
from dynarch.spaces.families import FAMILIES, EarlyExit
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.network import DynamicNetwork, RoutedNetwork
from dynarch.spaces.policy import Policy
from dynarch.spaces.step import SegmentStep
from dynarch.tests.search.bundles import check_equal, more_inputs, routed_example, runner_of

# Neither is there: not dynarch, and nothing that dynarch needs and a bundle does not.
ALONE = """
import runpy, sys
for name in ("dynarch", "ray", "optuna", "mlflow", "safetensors", "onnxruntime"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Each input of a dynamic convolution has its own kernel: one convolution of as many groups as there are inputs, and the
# groups of ONNX are a constant.
WITHOUT_ONNX = frozenset({"dynamic_convolution"})
EXITS = EarlyExit(max_exits=2, heads=("linear",))


@pytest.fixture(scope="module")
def exits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network with early exits."""
    folder = tmp_path_factory.mktemp("exits") / "bundle"
    routed, _ = routed_example(EXITS)
    write_bundle(routed, folder, runtimes=("torch",), weights_licence="CC0-1.0")
    return folder


@pytest.fixture
def copied(exits: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    for file in exits.rglob("*"):
        if file.is_file():
            target = tmp_path / "copy" / file.relative_to(exits)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path / "copy"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_routes_as_in_dynarch(family: type[AbstractFamily], tmp_path: Path) -> None:
    routed, x = routed_example(family())
    write_bundle(routed, tmp_path / "bundle", runtimes=("torch",))
    router = runner_of(tmp_path / "bundle").Router(tmp_path / "bundle", threads=1)
    check_equal(routed, x, router, batches=(16,))
    check_equal(routed, x[:4], router, batches=(1,))


@pytest.mark.slow  # exporting to ONNX takes seconds a program; a single exit, below, holds that the runtimes agree
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_256_inputs_route_alike_with_both_runtimes(family: type[AbstractFamily], tmp_path: Path) -> None:
    routed, x = routed_example(family())
    bundle = write_bundle(routed, tmp_path / "bundle")
    assert (bundle.runtimes == ("torch", "onnxruntime")) == (family.name not in WITHOUT_ONNX), bundle.notes
    more = torch.cat([x, more_inputs(routed, 256 - len(x))])
    for runtime in bundle.runtimes:
        router = runner_of(bundle.folder).Router(bundle.folder, runtime, threads=1)
        check_equal(routed, more, router, batches=(32, 1))


def test_onnx_runtime_routes_as_pytorch_does(tmp_path: Path) -> None:
    routed, x = routed_example(EXITS)
    first = RoutedNetwork(routed.network, Policy.single(routed.network.exits, 0))
    bundle = write_bundle(first, tmp_path / "bundle", runtimes=("onnxruntime",))
    assert not list(bundle.folder.rglob("*.pt2"))
    check_equal(first, x, runner_of(bundle.folder).Router(bundle.folder, "onnxruntime", threads=1), batches=(16, 1))


@final
class Spectrum(nn.Module):
    """A program that ONNX has no operator for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)[:, 0, :8] @ self.weight
        made: Tensor = torch.linalg.eigvalsh(rows[:, :, None] + rows[:, None, :])
        return made


def test_what_onnx_cannot_say_is_named(tmp_path: Path) -> None:
    routed, x = routed_example(EXITS)
    steps = [SegmentStep(0, Spectrum(), final=True)]
    network = DynamicNetwork(routed.network.architecture, routed.network.signature, steps)
    odd, named = (
        RoutedNetwork(network, Policy.never(0)),
        "export.segment.0: must be a program that torch.onnx can export",
    )
    with pytest.raises(SpecError, match=re.escape(named)):
        write_bundle(odd, tmp_path / "strict", runtimes=("onnxruntime",))
    assert not (tmp_path / "strict").exists()
    bundle = write_bundle(odd, tmp_path / "bundle")
    assert bundle.runtimes == ("torch",)
    assert named in bundle.notes[0]
    assert not list(bundle.folder.rglob("*.onnx"))
    check_equal(odd, x, runner_of(bundle.folder).Router(bundle.folder), batches=(16, 1))


def test_a_process_without_dynarch_routes(exits: Path, tmp_path: Path) -> None:
    routed, _ = routed_example(EXITS)
    x = more_inputs(routed, 8)
    np.save(tmp_path / "inputs.npy", x.numpy())
    command = [sys.executable, "-c", ALONE, str(exits / "run.py"), str(tmp_path / "inputs.npy"), "--batch", "5"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    rows = [json.loads(line) for line in made.stdout.splitlines()]
    expected = routed.route(x)
    assert [row["exit"] for row in rows] == expected.exit_taken.tolist()
    assert [row["predicted"] for row in rows] == expected.logits.argmax(1).tolist()


def test_exits_divide_the_inputs(exits: Path) -> None:
    _, x = routed_example(EXITS)
    _, taken = runner_of(exits).Router(exits).route(x.numpy())
    assert len(set(taken.tolist())) > 1, "else the bundle is not asked to route"


def test_manifest_says_what_is_there(exits: Path) -> None:
    routed, _ = routed_example(EXITS)
    manifest = json.loads((exits / "manifest.json").read_text())
    assert manifest["policy"] == routed.policy.to_dict()
    assert manifest["signature"] == routed.network.signature.to_mapping()
    assert manifest["weights_licence"] == "CC0-1.0"
    assert manifest["runtimes"] == ["torch"]
    lying = {str(file.relative_to(exits)) for file in exits.rglob("*") if file.is_file()}
    assert lying == {*manifest["files"], "manifest.json"}
    assert {"run.py", "weights.safetensors"} < lying


def test_what_a_policy_never_runs_stays_behind(tmp_path: Path) -> None:
    routed, x = routed_example(EXITS)
    first = RoutedNetwork(routed.network, Policy.single(routed.network.exits, 0))
    write_bundle(first, tmp_path / "first", runtimes=("torch",))
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert list(manifest["programs"]) == ["segment.0", "exit.0"]
    check_equal(first, x, runner_of(tmp_path / "first").Router(tmp_path / "first"), batches=(16, 1))


def test_a_changed_file_is_refused(copied: Path) -> None:
    runner, manifest = runner_of(copied), json.loads((copied / "manifest.json").read_text())
    file = copied / next(name for name in manifest["files"] if name.endswith("segment.0.one.pt2"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    x = np.zeros((1, *manifest["signature"]["input_shape"]), np.float32)
    with pytest.raises(ValueError, match=r"segment\.0\.one\.pt2 is not the file that the manifest describes"):
        runner.Router(copied).route(x)


def test_a_manifest_of_another_digest_is_refused(copied: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json of .* is not the one with digest 00"):
        runner_of(copied).Router(copied, sha256="00")


def test_programs_that_hold_pickles_are_refused(exits: Path, tmp_path: Path) -> None:
    refuse = runner_of(exits).refuse_pickles
    plain = next(exits.rglob("*.pt2")).read_bytes()
    refuse(plain, "plain.pt2")
    file = tmp_path / "inputs.pt2"
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, file)  # as everybody saves it: with its example inputs, pickled
    with pytest.raises(ValueError, match=r"inputs\.pt2 must hold tensors and JSON alone, but holds data/sample_inputs"):
        refuse(file.read_bytes(), "inputs.pt2")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    with pytest.raises(ValueError, match="model_weights_config"):
        refuse(file.read_bytes(), "weights.pt2")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/aotinductor/model/a.so", "machine code")
    with pytest.raises(ValueError, match=r"aotinductor"):
        refuse(file.read_bytes(), "compiled.pt2")


def test_bad_requests_name_their_place(exits: Path, tmp_path: Path) -> None:
    routed, _ = routed_example(EXITS)
    with pytest.raises(SpecError, match=r"export\.folder: must be new or empty"):
        write_bundle(routed, exits)
    with pytest.raises(SpecError, match=r"export\.runtimes\.0: must be one of torch, onnxruntime, but got 'tflite'"):
        write_bundle(routed, tmp_path / "none", runtimes=("tflite",))
    with pytest.raises(SpecError, match=r"export\.runtimes: must name one"):
        write_bundle(routed, tmp_path / "none", runtimes=())
    assert not (tmp_path / "none").exists()
    router = runner_of(exits).Router(exits)
    with pytest.raises(ValueError, match="inputs must be b x"):
        router.route(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="must hold programs for 'onnxruntime', but holds those for torch"):
        runner_of(exits).Router(exits, "onnxruntime")


def test_a_step_without_operations_is_named(tmp_path: Path) -> None:
    routed, _ = routed_example(EXITS)
    network = routed.network
    odd = LookUpStep.__new__(LookUpStep)
    torch.nn.Module.__init__(odd)
    steps = [odd, *network.steps]
    other = DynamicNetwork(network.architecture, network.signature, steps)
    with pytest.raises(SpecError, match=r"export\.LookUpStep: each step must say its operations"):
        write_bundle(RoutedNetwork(other, routed.policy), tmp_path / "odd")
