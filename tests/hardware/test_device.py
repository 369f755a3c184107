"""Devices: the shipped contract, and what is particular to each kind."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from dynarch.hardware.cpu import Cpu
from dynarch.hardware.cuda import Cuda
from dynarch.hardware.device import AbstractDevice, Environment, visible_cores
from dynarch.hardware.devices import DEVICES, device_from_dict, to_dict
from dynarch.hardware.testing import DeviceContract
from dynarch.spaces.errors import DeviceUnavailableError, SpecError, UnknownNameError


class TestCpu(DeviceContract):
    @pytest.fixture(params=["float32", "bfloat16"])
    def device(self, request: pytest.FixtureRequest) -> AbstractDevice:
        return Cpu(dtype=request.param)


class TestCpuChannelsLast(DeviceContract):
    @pytest.fixture
    def device(self) -> AbstractDevice:
        return Cpu(memory_format="channels_last")


@pytest.mark.cuda
class TestCuda(DeviceContract):
    @pytest.fixture(params=["float32", "float16"])
    def device(self, request: pytest.FixtureRequest) -> AbstractDevice:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return Cuda(dtype=request.param)


def test_the_name_is_short_and_complete() -> None:
    assert Cpu().name == "cpu b1 t1 float32 eager"
    assert Cpu(batch=8, dtype="bfloat16").name == "cpu b8 t1 bfloat16 eager"


def test_absent_gpu_is_refused_with_the_reason() -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is present")
    with pytest.raises(DeviceUnavailableError, match=r"without CUDA|no GPU is visible"):
        Cuda()


def test_bad_options_of_a_gpu_are_refused_before_it_is_looked_for() -> None:
    with pytest.raises(SpecError, match="index"):
        Cuda(index=-1)
    with pytest.raises(SpecError, match="batch"):
        Cuda(batch=0)


def test_more_threads_than_cores_are_refused_with_the_number_that_works() -> None:
    cores = visible_cores()
    with pytest.raises(DeviceUnavailableError, match=f"use threads={cores} or fewer"):
        Cpu(threads=cores + 1)


def test_dtype_and_threads_change_the_environment() -> None:
    ids = {Cpu().environment().environment_id, Cpu(dtype="bfloat16").environment().environment_id}
    if visible_cores() > 1:
        ids.add(Cpu(threads=2).environment().environment_id)
    assert len(ids) == 1 + 1 + (visible_cores() > 1)


def test_memory_format_is_part_of_the_environment_and_reaches_images_and_weights() -> None:
    device = Cpu(memory_format="channels_last")
    assert device.environment() != Cpu().environment()
    assert dict(device.environment().items)["memory_format"] == "channels_last"
    assert device.place(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    assert device.place(torch.zeros(2, 3)).is_contiguous()
    prepared = device.prepare(torch.nn.Conv2d(3, 4, 3))
    assert isinstance(prepared.weight, torch.Tensor)
    assert prepared.weight.is_contiguous(memory_format=torch.channels_last)


def test_environment_id_covers_each_item() -> None:
    base = Environment((("kind", "cpu"), ("threads", 1)))
    assert base.environment_id == Environment((("threads", 1), ("kind", "cpu"))).environment_id
    assert base.environment_id != Environment((("kind", "cpu"), ("threads", 2))).environment_id
    assert base.environment_id != Environment((("kind", "cpu"), ("threads", 1), ("x", ""))).environment_id


def test_devices_are_values() -> None:
    assert Cpu(batch=2) == Cpu(batch=2)
    assert len({Cpu(), Cpu(), Cpu(batch=2)}) == 2
    with pytest.raises(FrozenInstanceError):
        setattr(Cpu(), "batch", 2)  # noqa: B010 - an assignment would not type-check


def test_kinds_are_unique() -> None:
    assert len({device.kind for device in DEVICES}) == len(DEVICES)


def test_to_dict_writes_every_option_out() -> None:
    written = {"kind": "cpu", "batch": 4, "threads": 1, "dtype": "float32", "memory_format": "contiguous"}
    assert to_dict(Cpu(batch=4)) == written


@pytest.mark.parametrize(
    ("mapping", "error", "path", "message"),
    [
        ({"kind": "cpu", "batch": 0}, SpecError, "devices[1].batch", "at least 1"),
        ({"kind": "cpu", "batch": True}, SpecError, "devices[1].batch", "integer"),
        ({"kind": "cpu", "batch": 2.0}, SpecError, "devices[1].batch", "integer"),
        ({"kind": "cpu", "threads": "two"}, SpecError, "devices[1].threads", "integer"),
        ({"kind": "cpu", "dtype": "float16"}, SpecError, "devices[1].dtype", "float32, bfloat16"),
        ({"kind": "cpu", "memory_format": "nhwc"}, SpecError, "devices[1].memory_format", "contiguous, channels_last"),
        ({"kind": "cpu", "index": 0}, UnknownNameError, "devices[1].index", "batch, dtype, memory_format, threads"),
        ({"kind": "cpu", "bacth": 2}, UnknownNameError, "devices[1].bacth", "did you mean 'batch'"),
        ({"kind": "cup"}, UnknownNameError, "devices[1].kind", "did you mean 'cpu'"),
        ({"batch": 1}, SpecError, "devices[1].kind", "cpu, cpu_compile, cpu_onnx, cuda"),
        ("cpu", SpecError, "devices[1]", "mapping"),
    ],
)
def test_mistakes_name_the_place(mapping: dict[str, object], error: type[SpecError], path: str, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        device_from_dict(mapping, "devices[1]")
    assert caught.value.path == path
