"""A device of another machine: read from a spec, never touched here, and mistakes are told before anything starts."""

from __future__ import annotations

import pytest

from dynarch.hardware.devices import device_from_dict, to_dict
from dynarch.hardware.elsewhere import Elsewhere
from dynarch.spaces.errors import DeviceUnavailableError, SpecError, UnknownNameError


def test_it_is_known_by_its_options_and_goes_back_to_them() -> None:
    spec = {"kind": "cpu", "batch": 8, "node": "board"}
    device = device_from_dict(spec)
    assert isinstance(device, Elsewhere)
    assert (device.batch, device.threads, device.dtype, device.node) == (8, 1, "float32", "board")
    assert to_dict(device) == spec
    assert device.name == "cpu b8 t1 float32 on board"


def test_what_this_machine_lacks_may_be_there() -> None:
    """No machine of a test run has 10,000 cores or a hundredth GPU."""
    for spec in ({"kind": "cpu", "threads": 10_000}, {"kind": "cuda", "index": 99}):
        with pytest.raises(DeviceUnavailableError):
            device_from_dict(spec)
        assert to_dict(device_from_dict({**spec, "node": "big"})) == {**spec, "node": "big"}


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"kind": "cpu", "batch": 0}, "device.batch"),
        ({"kind": "cpu", "dtype": "int3"}, "device.dtype"),
        ({"kind": "cpu", "node": ""}, "device.node"),
        ({"kind": "cpu", "node": 3}, "device.node"),
    ],
)
def test_a_mistake_is_told_at_once(spec: dict[str, object], place: str) -> None:
    with pytest.raises(SpecError) as caught:
        device_from_dict({"node": "board", **spec})
    assert caught.value.path == place


def test_unknown_kinds_and_options_are_named() -> None:
    with pytest.raises(UnknownNameError, match="toaster"):
        device_from_dict({"kind": "toaster", "node": "kitchen"})
    with pytest.raises(UnknownNameError, match=r"device\.colour"):
        device_from_dict({"kind": "cpu", "colour": "red", "node": "kitchen"})


def test_nothing_of_it_is_here() -> None:
    device = device_from_dict({"kind": "cpu", "node": "board"})
    for touch in (device.environment, device.synchronize, device.hardware_items, lambda: device.torch_device):
        with pytest.raises(DeviceUnavailableError, match="on board is not on this machine"):
            touch()
