"""From the parts of networks to what the stopwatch times."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..spaces.trace import COMPACT, Part
from .device import AbstractDevice
from .inventory import Inventory, Place, batched
from .keys import PartKey
from .profile import Measurable
from .timer import Task


def places(found: Inventory, device: AbstractDevice) -> dict[str, Place]:
    """Where in the space the parts are that a device can be asked to run, by hash; one input is never compacted."""
    runs = {name for name, (_, part) in found.parts.items() if part.info.kind != COMPACT or device.batch > 1}
    return {name: place for name, place in found.places.items() if name in runs}


def measurable(key: PartKey, part: Part, device: AbstractDevice) -> Measurable:
    """A part as routed mode calls it, on its example input, repeated to the batch size (or the number of rows)."""

    def make(batch: int) -> Task:
        call = _prepared(part.call, device)
        inputs = tuple(device.place(x) for x in batched(part.inputs, batch))
        return lambda: call(*inputs)

    return Measurable(key, make)


def _prepared(call: Callable[..., object], device: AbstractDevice) -> Callable[..., object]:
    """The part on the device: a module, a method of one, or a function without weights."""
    if isinstance(call, nn.Module):
        return device.prepare(call)
    owner = getattr(call, "__self__", None)
    if isinstance(owner, nn.Module):
        method: Callable[..., object] = getattr(device.prepare(owner), call.__name__)
        return method
    return call
