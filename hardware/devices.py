"""The device kinds that a spec may name, and their plain-data form."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from ..spaces.errors import DeviceUnavailableError, SpecError, UnknownNameError
from .compiled import CompiledCpu
from .cpu import Cpu
from .cuda import Cuda
from .device import AbstractDevice
from .elsewhere import Elsewhere
from .onnx_runtime import OnnxCpu

# A new device kind is one file and one entry here.
DEVICES: tuple[type[AbstractDevice], ...] = (Cpu, CompiledCpu, OnnxCpu, Cuda)


def device_from_dict(mapping: Mapping[str, object], path: str = "device") -> AbstractDevice:
    """Build a device from plain data such as `{"kind": "cpu", "batch": 8}`.

    Args:
        mapping: `kind`, and any of that kind's options; `node` if it is on the nodes that carry this resource.
        path: the place in the spec, for error messages.

    Raises:
        UnknownNameError: if the kind or an option is not known.
        SpecError: if `mapping` is no mapping, has no kind, or an option has a value it cannot take.
        DeviceUnavailableError: if the device is not on this machine.
    """
    if not isinstance(mapping, Mapping):
        raise SpecError(path, f'must be a mapping such as {{"kind": "cpu"}}, but got {mapping!r}')
    kinds = {device.kind: device for device in DEVICES}
    kind = mapping.get("kind")
    if not isinstance(kind, str):
        raise SpecError(f"{path}.kind", f"must be one of {', '.join(sorted(kinds))}, but got {kind!r}")
    if kind not in kinds:
        raise UnknownNameError(f"{path}.kind", kind, kinds)
    options = {str(name): value for name, value in mapping.items() if name not in ("kind", "node")}
    known = {field.name for field in fields(kinds[kind])}
    for name in options:
        if name not in known:
            raise UnknownNameError(f"{path}.{name}", name, known)
    if "node" in mapping:
        return _elsewhere(kinds[kind], options, mapping["node"], path)
    return _build(kinds[kind], options, path)


def _elsewhere(device: type[AbstractDevice], options: Mapping[str, object], node: object, path: str) -> Elsewhere:
    if not isinstance(node, str) or not node.strip():
        raise SpecError(f"{path}.node", f"must name a resource that a node carries, but got {node!r}")
    with suppress(DeviceUnavailableError):  # which says nothing of another machine
        _build(device, options, path)
    defaults = {field.name: field.default for field in fields(device)}
    full: dict[str, Any] = {**defaults, **options}
    return Elsewhere(full["batch"], full["threads"], full["dtype"], node, {"kind": device.kind, **options})


def _build(device: type[AbstractDevice], options: Mapping[str, object], path: str) -> AbstractDevice:
    values: Mapping[str, object] = dict(options)
    try:
        return device(**values)  # type: ignore[arg-type]  # each device checks its own options
    except SpecError as error:
        raise SpecError(f"{path}.{error.path}", error.message) from error
    except DeviceUnavailableError as error:
        raise DeviceUnavailableError(f"{path}: {error}") from error


def to_dict(device: AbstractDevice) -> dict[str, object]:
    """The inverse of `device_from_dict`: plain data with every option written out."""
    if isinstance(device, Elsewhere):
        return {**device.options, "node": device.node}
    return {"kind": device.kind, **asdict(device)}
