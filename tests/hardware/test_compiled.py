"""Compiled programs: refusals at once, and, marked slow, the real compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dynarch.hardware import compiled
from dynarch.hardware.compiled import CompiledCpu
from dynarch.hardware.cpu import Cpu
from dynarch.hardware.device import AbstractDevice, visible_cores
from dynarch.hardware.devices import device_from_dict
from dynarch.hardware.testing import DeviceContract
from dynarch.spaces import Architecture, DynamicNetwork, Policy, Signature
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.errors import DeviceUnavailableError, SpecError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.step import SegmentStep


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only compiler on the path is one that tells its version, and nothing more."""
    path = tmp_path / "g++"
    path.write_text("#!/bin/sh\necho 'g++ (made up) 1.2.3'\necho 'with a second line'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    compiled._compiler_version.cache_clear()
    return path


def test_a_missing_compiler_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceUnavailableError, match=r"no 'no-such-compiler' on the PATH; install g\+\+.*cpu device"):
        CompiledCpu()
    monkeypatch.delenv("CXX")
    with pytest.raises(DeviceUnavailableError, match=r"no '(g|clang)\+\+' on the PATH"):
        device_from_dict({"kind": "cpu_compile"})


def test_bad_options_are_refused_before_the_compiler_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match="dtype: must be one of float32, bfloat16, but got 'float16'"):
        CompiledCpu(dtype="float16")
    with pytest.raises(SpecError, match="batch: must be an integer of at least 1"):
        CompiledCpu(batch=0)
    with pytest.raises(DeviceUnavailableError, match="threads <= visible cores"):
        CompiledCpu(threads=visible_cores() + 1)


def test_identity_names_the_compiler(compiler: Path) -> None:
    device = CompiledCpu(batch=4)
    items = device.environment().to_dict()
    assert (items["kind"], items["runtime"]) == ("cpu_compile", "compile")
    assert items["compiler"] == "g++ (made up) 1.2.3"
    assert device.name == "cpu b4 t1 float32 compile"
    assert device.environment() == CompiledCpu().environment()
    assert device.environment().environment_id != Cpu().environment().environment_id
    compiler.write_text("#!/bin/sh\necho 'g++ (made up) 2.0.0'\n")
    compiled._compiler_version.cache_clear()
    assert CompiledCpu().environment() != CompiledCpu(dtype="bfloat16").environment()
    assert device.environment().to_dict()["compiler"] == "g++ (made up) 2.0.0"


def test_modules_of_one_class_have_code_of_their_own(compiler: Path) -> None:
    """The compiler counts its attempts by code object, and would give up on a class of many modules."""
    first, second = (compiled._function_of(nn.Linear(2, 2)) for _ in range(2))
    assert first.__code__ is not second.__code__
    assert first(torch.zeros(1, 2)).shape == (1, 2)


def test_threads_are_set_while_compiling_and_restored(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def compile_(function: object, *, fullgraph: bool, dynamic: bool) -> object:
        assert fullgraph
        assert not dynamic

        def program(x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

        return program

    monkeypatch.setattr(torch, "compile", compile_)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        CompiledCpu(threads=1).prepare(nn.ReLU())(torch.ones(1))
        assert seen == [1, 2]  # the build is under the device's threads; outside of a session the call is not
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_failing_compiler_is_told_as_such(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(function: object, *, fullgraph: bool, dynamic: bool) -> object:
        def fail(*inputs: Tensor) -> Tensor:
            raise subprocess.SubprocessError("\n  the header Python.h is missing\n  and more")

        return fail

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(DeviceUnavailableError, match=r"ReLU does not \(the header Python.h is missing\); use a cpu"):
        CompiledCpu().prepare(nn.ReLU())(torch.ones(1))


# The real compiler: seconds a program.


@pytest.mark.slow
class TestCompiledCpu(DeviceContract):
    @pytest.fixture
    def device(self) -> AbstractDevice:
        return CompiledCpu()


def small_network() -> DynamicNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        last = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    steps = [
        SegmentStep(0, first, final=False),
        ExitStep(0, head, decisions=DECISIONS, classes=3),
        SegmentStep(1, last, final=True),
    ]
    architecture = Architecture.of(backbone={"name": "by hand"}, families={}, training={})
    return DynamicNetwork(architecture, Signature((1, 8, 8), 3), steps).eval()


@pytest.mark.slow
def test_routed_mode_answers_as_eager() -> None:
    network, device = small_network(), CompiledCpu(batch=8)
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ordered = network(x)[0].softmax(1).amax(1).sort().values
    ready = device.prepare(network)
    assert isinstance(ready, DynamicNetwork)
    for size in (1, 8):
        policy = Policy("max_prob", (float(ordered[3] + ordered[4]) / 2,))
        with device.session():
            routed = ready.route(device.place(x[:size]), policy)
        wanted = network.route(x[:size], policy)
        torch.testing.assert_close(routed.logits, wanted.logits, atol=1e-4, rtol=0)
        assert torch.equal(routed.exit_taken, wanted.exit_taken)


class Branching(nn.Module):
    """Decides in Python on a value that is only known when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.slow
def test_what_is_no_single_graph_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="compiles as one graph, but Branching does not"):
        CompiledCpu().prepare(Branching())(torch.ones(2))


@pytest.mark.slow
def test_more_modules_of_a_class_than_the_compiler_keeps_are_all_compiled() -> None:
    """At the ninth set of results for one piece of code it goes back to eager PyTorch; here it never does."""
    stats = torch._dynamo.utils.counters["stats"]
    before = stats["unique_graphs"]
    with torch.inference_mode():
        for width in range(2, 12):
            module = nn.Linear(width, 2)
            program = CompiledCpu().prepare(module)
            torch.testing.assert_close(program(torch.ones(1, width)), module(torch.ones(1, width)))
    assert stats["unique_graphs"] - before >= 10
