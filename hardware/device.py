"""What a latency is measured on: hardware, batch, runtime, dtype and threads together.

Two devices that differ in one of these are two devices. Everything but the batch size also names the
software environment, so a table entry is never used where it was not measured.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..spaces.errors import DeviceUnavailableError, SpecError

Statistic = Literal["min", "median"]

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
MEMORY_FORMATS: Mapping[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def content_id(value: object, length: int = 16) -> str:
    """The first hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Environment:
    """The hardware and software that an entry of a latency table belongs to; batch is no part of it."""

    items: tuple[tuple[str, str | int | bool], ...]

    @property
    def environment_id(self) -> str:
        """Sixteen hex digits; equal exactly when every item is."""
        return content_id(self.to_dict())

    def to_dict(self) -> dict[str, str | int | bool]:
        """The items as a new mapping, in order."""
        return dict(self.items)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, str | int | bool]) -> Environment:
        """The inverse of `to_dict`."""
        return cls(tuple(mapping.items()))


@dataclass(frozen=True)
class AbstractDevice(ABC):
    """A place to run networks on, at one batch size.

    `statistic` says which number of a round stands for the undisturbed latency: the minimum where
    other processes only ever add time (CPU), the median where the clock of the chip moves (GPU).
    """

    kind: ClassVar[str]
    runtime: ClassVar[str] = "eager"
    statistic: ClassVar[Statistic]

    batch: int
    threads: int
    dtype: str

    @property
    @abstractmethod
    def torch_device(self) -> torch.device:
        """Where tensors live."""

    @abstractmethod
    def synchronize(self) -> None:
        """Return once all work handed to the device is done."""

    @abstractmethod
    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """What identifies the hardware and its drivers in the environment."""

    @property
    def memory_format(self) -> str:
        """How images and weights of convolutions lie in memory, one of `MEMORY_FORMATS`."""
        return "contiguous"

    @property
    def name(self) -> str:
        """Short text for people, such as `cpu b1 t1 float32 eager`."""
        return f"{self.torch_device} b{self.batch} t{self.threads} {self.dtype} {self.runtime}"

    def environment(self) -> Environment:
        """Everything except the batch size that makes two devices two."""
        return Environment(
            (
                ("kind", self.kind),
                *self.hardware_items(),
                ("cores_visible", visible_cores()),
                ("torch", str(torch.__version__)),
                ("onednn", bool(torch.backends.mkldnn.is_available())),  # type: ignore[no-untyped-call]
                ("mkl", bool(torch.backends.mkl.is_available())),  # type: ignore[no-untyped-call]
                ("os", f"{platform.system()} {platform.release()}"),
                ("python", ".".join(str(part) for part in sys.version_info[:3])),
                ("threads", self.threads),
                ("dtype", self.dtype),
                ("runtime", self.runtime),
                ("memory_format", self.memory_format),
            )
        )

    @property
    def device_id(self) -> str:
        """Sixteen hex digits that cover the environment and the batch size."""
        return content_id({"environment": self.environment().environment_id, "batch": self.batch})

    def prepare(self, module: nn.Module) -> nn.Module:
        """A copy of `module` in evaluation mode, of this dtype, on this device.

        A copy, because timing a network must not change the one that is being searched. It has the shape of
        the original: of a dynamic network it is one whose decisions, and methods such as `route`, work as before.
        """
        copied = copy.deepcopy(module).eval().to(device=self.torch_device, dtype=DTYPES[self.dtype])
        if self.memory_format != "contiguous":
            copied = copied.to(memory_format=MEMORY_FORMATS[self.memory_format])  # type: ignore[call-overload]
        return copied

    def place(self, tensor: Tensor) -> Tensor:
        """`tensor` on this device; floating-point ones take this dtype, indices and masks keep theirs."""
        dtype = DTYPES[self.dtype] if tensor.is_floating_point() else tensor.dtype
        placed = tensor.to(device=self.torch_device, dtype=dtype)
        if placed.dim() == 4 and self.memory_format != "contiguous":
            placed = placed.contiguous(memory_format=MEMORY_FORMATS[self.memory_format])
        return placed

    @contextmanager
    def session(self) -> Iterator[None]:
        """Run under this device's threads, in inference mode, without garbage collection; then restore."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode(), collection_paused():
                yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run small operations on one thread, then restore: two that wait for each other are slower than one,
    and on a busy machine many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running inside a timed call."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def visible_cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine's."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cpu_items() -> tuple[tuple[str, str | int | bool], ...]:
    """Model of the processor and a hash of its instruction sets."""
    fields: dict[str, str] = {}
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    # ARM kernels list no model name; implementer and part identify the core instead.
    arm = " ".join(fields[name] for name in ("CPU implementer", "CPU part") if name in fields)
    model = fields.get("model name") or arm or platform.processor() or platform.machine()
    flags = sorted((fields.get("flags") or fields.get("Features") or "").split())
    return (
        ("machine", platform.machine()),
        ("cpu_model", model),
        ("cpu_stepping", fields.get("stepping", "")),
        ("isa_hash", content_id(flags)),
        ("cpu_capability", torch.backends.cpu.get_cpu_capability()),
    )


def check_count(name: str, value: object) -> None:
    """Refuse anything but an integer of at least one.

    Raises:
        SpecError: if `value` is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(name, f"must be an integer of at least 1, but got {value!r}; use 1 if unsure")


def check_threads(threads: object) -> None:
    """Refuse a number of threads that this process has no cores for.

    Raises:
        SpecError: if `threads` is no integer of at least one.
        DeviceUnavailableError: if it exceeds the cores this process may use.
    """
    check_count("threads", threads)
    cores = visible_cores()
    if isinstance(threads, int) and threads > cores:
        raise DeviceUnavailableError(
            f"threads <= visible cores must hold, but got threads={threads} with {cores} visible;"
            f" use threads={cores} or fewer"
        )


def check_dtype(dtype: object, known: tuple[str, ...]) -> None:
    """Refuse a dtype that the device kind cannot run.

    Raises:
        SpecError: if `dtype` is not among `known`.
    """
    if dtype not in known:
        raise SpecError("dtype", f"must be one of {', '.join(known)}, but got {dtype!r}")
