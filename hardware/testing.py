"""The contract of a device, as a test suite. Imports pytest: no facade may import this module.

Subclass it and supply one fixture:

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self) -> AbstractDevice:
            return MyDevice()
"""

from __future__ import annotations

import gc
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from ..spaces.errors import SpecError
from .device import DTYPES, AbstractDevice, Environment
from .devices import DEVICES, device_from_dict, to_dict
from .session import canaries
from .timer import Protocol, measure

_SHORT = Protocol(rounds=2, warmup_calls=1, warmup_ms=0, min_samples=3, min_ms=0, cap_ms=200)


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


class DeviceContract:
    """What every device keeps to; the fixture `device` supplies one."""

    def test_name_says_batch_threads_and_dtype(self, device: AbstractDevice) -> None:
        for word in (f"b{device.batch}", f"t{device.threads}", device.dtype, device.runtime):
            assert word in device.name.split()

    def test_environment_is_stable_and_survives_storage(self, device: AbstractDevice) -> None:
        environment = device.environment()
        assert environment == device.environment()
        assert re.fullmatch("[0-9a-f]{16}", environment.environment_id)
        assert Environment.from_dict(environment.to_dict()) == environment
        assert {"kind", "torch", "threads", "dtype", "runtime"} <= set(environment.to_dict())

    def test_batch_is_in_the_device_but_not_in_the_environment(self, device: AbstractDevice) -> None:
        larger = replace(device, batch=device.batch + 1)
        assert larger.environment() == device.environment()
        assert larger.device_id != device.device_id

    def test_plain_data_round_trip(self, device: AbstractDevice) -> None:
        if type(device) not in DEVICES:
            pytest.skip("a device outside DEVICES has no plain form")
        assert device_from_dict(to_dict(device)) == device

    def test_counts_below_one_are_refused(self, device: AbstractDevice) -> None:
        with pytest.raises(SpecError, match="batch: must be an integer of at least 1"):
            replace(device, batch=0)
        with pytest.raises(SpecError, match="threads: must be an integer of at least 1"):
            replace(device, threads=0)

    def test_unknown_dtype_is_refused(self, device: AbstractDevice) -> None:
        with pytest.raises(SpecError, match="float32"):
            replace(device, dtype="float7")

    def test_prepare_leaves_the_original_alone(self, device: AbstractDevice) -> None:
        network = _network().train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        prepared = device.prepare(network)
        assert network.training
        assert not any(module.training for module in prepared.modules())
        assert all(value.dtype == DTYPES[device.dtype] for value in prepared.parameters())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert {value.device.type for value in network.parameters()} == {"cpu"}

    def test_place_casts_floats_only(self, device: AbstractDevice) -> None:
        assert device.place(torch.ones(2)).dtype == DTYPES[device.dtype]
        assert device.place(torch.ones(2, dtype=torch.int64)).dtype == torch.int64
        assert device.place(torch.ones(2)).device.type == device.torch_device.type

    def test_session_sets_and_restores_everything(self, device: AbstractDevice) -> None:
        threads, collecting = torch.get_num_threads(), gc.isenabled()

        def fail_inside() -> None:
            with device.session():
                assert torch.get_num_threads() == device.threads
                assert torch.is_inference_mode_enabled()
                assert not gc.isenabled()
                raise KeyError

        with pytest.raises(KeyError):
            fail_inside()
        assert torch.get_num_threads() == threads
        assert gc.isenabled() == collecting
        assert not torch.is_inference_mode_enabled()

    def test_runs_a_network_at_two_batch_sizes(self, device: AbstractDevice) -> None:
        network = device.prepare(_network())
        for batch in (1, 3):
            with device.session():
                out = network(device.place(torch.zeros(batch, 3, 8, 8)))
                device.synchronize()
            assert out.shape == (batch, 5)

    def test_measures_finite_ordered_times(self, device: AbstractDevice) -> None:
        timings = measure(canaries(device), protocol=_SHORT, seed=0, device=device)
        for timing in timings.values():
            assert timing.statistic == device.statistic
            assert timing.value_ms > 0
            for one in timing.rounds:
                assert one.n >= 1
                assert 0 < one.min_ns <= one.p10_ns <= one.median_ns <= one.p90_ns <= one.max_ns
