"""ONNX Runtime: the real one where it is installed, on networks that really route; and what is refused."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dynarch.hardware import onnx_runtime
from dynarch.hardware.cpu import Cpu
from dynarch.hardware.device import AbstractDevice, visible_cores
from dynarch.hardware.devices import device_from_dict
from dynarch.hardware.onnx_runtime import PACKAGES, OnnxCpu
from dynarch.hardware.programs import ProgramModule, with_programs
from dynarch.hardware.testing import DeviceContract
from dynarch.spaces import Architecture, DynamicNetwork, Policy, Signature
from dynarch.spaces.decisions import DECISIONS
from dynarch.spaces.errors import DeviceUnavailableError, SpecError
from dynarch.spaces.exit_step import ExitStep
from dynarch.spaces.network import RoutedNetwork
from dynarch.spaces.step import SegmentStep


def small_network() -> DynamicNetwork:
    """A convolution, an exit whose temperature matters, and a second convolution."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        last = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    early = ExitStep(0, head, decisions=DECISIONS, classes=3)
    early.temperature.fill_(0.05)
    steps = [SegmentStep(0, first, final=False), early, SegmentStep(1, last, final=True)]
    architecture = Architecture.of(backbone={"name": "by hand"}, families={}, training={})
    return DynamicNetwork(architecture, Signature((1, 8, 8), 3), steps).eval()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> DynamicNetwork:
    return small_network()


@pytest.fixture(scope="module")
def some_leave(network: DynamicNetwork, inputs: Tensor) -> Policy:
    """A threshold that the first of the inputs does not reach, and of the eight, half do not."""
    with torch.no_grad():
        scores = network(inputs)[0].softmax(1).amax(1)
    ordered = scores.sort().values
    threshold = float(ordered[3] + ordered[4]) / 2
    assert 0 < int((scores > threshold).sum()) < 8
    return Policy("max_prob", (threshold,))


# What needs no runtime.


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_its_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceUnavailableError, match=rf"but .*\b{name}\b.* installed; run `pip install dynarch\["):
        OnnxCpu()


def test_bad_options_are_refused_before_the_packages_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="dtype: must be one of float32, but got 'bfloat16'"):
        OnnxCpu(dtype="bfloat16")
    with pytest.raises(SpecError, match="batch"):
        OnnxCpu(batch=0)
    with pytest.raises(DeviceUnavailableError, match="threads <= visible cores"):
        OnnxCpu(threads=visible_cores() + 1)


def doubling(module: nn.Module, examples: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """A runtime whose programs answer twice the module's output, so that one sees what they ran."""
    assert all(not example.is_inference() for example in examples)
    built.append((type(module).__name__, tuple(examples[0].shape)))
    return lambda *inputs: 2 * module(*inputs)


built: list[tuple[str, tuple[int, ...]]] = []


@pytest.fixture(autouse=True)
def nothing_built() -> None:
    built.clear()


def test_the_children_of_steps_become_programs_and_the_rest_stays(network: DynamicNetwork, inputs: Tensor) -> None:
    ready = with_programs(copy.deepcopy(network), doubling)
    assert isinstance(ready, DynamicNetwork)
    with torch.inference_mode():
        routed = ready.route(inputs, Policy.single(1, 0))
        body, head = network.steps[0].body, network.steps[1].head
        assert isinstance(body, nn.Module)
        assert isinstance(head, nn.Module)
        # Twice the segment, twice the head of that, and the temperature once, on the host.
        torch.testing.assert_close(routed.logits, 2 * head(2 * body(inputs)) / 0.05)
    assert built == [("Sequential", (8, 1, 8, 8)), ("Sequential", (8, 4, 4, 4))]


def test_a_program_is_built_once_for_each_shape() -> None:
    module = with_programs(nn.Linear(2, 2), doubling)
    for rows in (1, 3, 1, 3):
        module(torch.zeros(rows, 2))
    assert built == [("Linear", (1, 2)), ("Linear", (3, 2))]
    copy.deepcopy(module)(torch.zeros(1, 2))  # a copy builds its own
    assert len(built) == 3


def test_programs_are_found_in_wrappers_lists_and_single_steps(network: DynamicNetwork, inputs: Tensor) -> None:
    def programs(module: nn.Module) -> int:
        return sum(isinstance(inner, ProgramModule) for inner in with_programs(module, doubling).modules())

    assert programs(nn.Sequential(nn.ReLU(), nn.ReLU())) == 1
    assert programs(nn.ModuleList([nn.ReLU(), nn.ModuleList([nn.ReLU()])])) == 2
    assert programs(copy.deepcopy(network.exit_steps[0])) == 1
    assert programs(RoutedNetwork(copy.deepcopy(network), Policy.never(1))) == 3


# The real runtime.


@pytest.fixture
def device() -> OnnxCpu:
    for name in PACKAGES:
        pytest.importorskip(name)
    return OnnxCpu()


@pytest.mark.slow
class TestOnnxCpu(DeviceContract):
    """Exports about a dozen modules, at seconds each."""


def test_identity_names_the_runtime(device: OnnxCpu) -> None:
    items = device.environment().to_dict()
    assert items["runtime"] == "onnxruntime"
    assert items["onnxruntime"] == pytest.importorskip("onnxruntime").__version__
    assert {"onnx", "onnxscript", "provider"} <= set(items)
    assert device.name == "cpu b1 t1 float32 onnxruntime"
    assert device.environment().environment_id != Cpu().environment().environment_id
    assert OnnxCpu(batch=8).environment() == device.environment()
    assert device_from_dict({"kind": "cpu_onnx", "batch": 8}) == OnnxCpu(batch=8)


def test_routed_mode_answers_as_eager(
    device: OnnxCpu, network: DynamicNetwork, inputs: Tensor, some_leave: Policy
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ready = device.prepare(network)
    assert isinstance(ready, DynamicNetwork)
    assert sum(isinstance(inner, ProgramModule) for inner in ready.modules()) == 3
    for size in (1, 8):
        x = device.place(inputs[:size])
        with device.session():
            routed = ready.route(x, some_leave)
        wanted = network.route(inputs[:size], some_leave)
        torch.testing.assert_close(routed.logits, wanted.logits, atol=1e-4, rtol=0)
        assert torch.equal(routed.exit_taken, wanted.exit_taken)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_parts_that_are_timed_are_the_programs_that_run(device: OnnxCpu, network: DynamicNetwork) -> None:
    """What profiling does with an exit: it prepares the step and times its method."""
    part = next(part for part in network.parts() if part.info.kind == "exit")
    owner = getattr(part.call, "__self__", None)
    assert isinstance(owner, ExitStep)
    ready = device.prepare(owner)
    assert isinstance(ready, ExitStep)
    assert isinstance(ready.head, ProgramModule)
    with device.session():
        torch.testing.assert_close(ready.tempered(*part.inputs), part.call(*part.inputs), atol=1e-4, rtol=0)


class TwoHeads(nn.Module):
    """Two inputs and two outputs of different types."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.t() @ y, (x > y).sum(1)


def test_several_inputs_and_outputs(device: OnnxCpu) -> None:
    x, y = torch.arange(6.0).reshape(3, 2).t(), torch.ones(2, 3)  # the first does not lie in order in memory
    module = TwoHeads()
    product, count = device.prepare(module)(x, y)
    torch.testing.assert_close(product, module(x, y)[0])
    assert torch.equal(count, module(x, y)[1])


class Branching(nn.Module):
    """Decides in Python on a value that is only known when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_exported_is_refused_with_the_reason(device: OnnxCpu) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"torch\.onnx can export, but Branching failed \(.+\); use a cpu"):
        device.prepare(Branching())(torch.ones(2))


def test_equal_graphs_with_equal_weights_are_exported_once(device: OnnxCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[object] = []

    def translate(program: torch.export.ExportedProgram) -> bytes:
        exported.append(program)
        return bytes(40)

    monkeypatch.setattr(onnx_runtime, "_translated", translate)
    models = onnx_runtime._Models(limit=100)

    def made(module: nn.Module, rows: int = 1) -> bytes:
        return models.of(torch.export.export(module.eval(), (torch.ones(rows, 2),)))

    linear = nn.Linear(2, 2)
    other = copy.deepcopy(linear)
    made(linear), made(copy.deepcopy(linear))
    assert len(exported) == 1
    with torch.no_grad():
        other.weight[0, 0] += math.pi
    made(other)
    made(nn.Sequential(linear, nn.ReLU()))  # the third of forty bytes: the oldest goes
    assert len(exported) == 3
    made(other)
    assert len(exported) == 3
    made(linear)
    assert len(exported) == 4
    made(linear, rows=2)
    assert len(exported) == 5


def test_every_device_kind_is_a_value(device: AbstractDevice) -> None:
    assert device == OnnxCpu()
    assert len({device, OnnxCpu(), OnnxCpu(batch=2)}) == 2
