"""Energy of a call, from hardware counters where there are any, and never from a guess.

A counter ticks every few milliseconds (RAPL) to a tenth of a second (NVML), and counts the whole package: so
a call is repeated through a window of seconds, and the result says which counter it comes from. Where there
is none, that is the answer: a value with the reason.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, final

import torch

from ..spaces.errors import SpecError
from .device import AbstractDevice
from .timer import Clock, Task, session_of

EnergySource = Literal["rapl", "nvml_counter"]

# At a tick of 0.1 s this window holds fifty; short ones of NVML are off by tens of percent.
# Source: Yang, Adamek, Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", arXiv 2312.02741.
WINDOW_SECONDS: Final = 5.0
POWERCAP: Final = Path("/sys/class/powercap")
_LOOK_EVERY_NS: Final = 1_000_000_000  # counters wrap after minutes: one look a second misses no turn
_WARMUP_CALLS: Final = 3


@final
@dataclass(frozen=True)
class Unavailable:
    """No energy can be told, and why."""

    reason: str


@final
@dataclass(frozen=True)
class Energy:
    """What a window of repeated calls took.

    Args:
        energy_mj: millijoules a call: of everything that the counters cover, neighbours and idling included.
        source: the kind of counter.
        counters: their names, such as `package-0`.
        calls: calls in the window.
        window_seconds: its length.
    """

    energy_mj: float
    source: EnergySource
    counters: tuple[str, ...]
    calls: int
    window_seconds: float

    @property
    def power_watts(self) -> float:
        """Mean power through the window."""
        return self.energy_mj * self.calls / 1000 / self.window_seconds


class AbstractEnergyCounter(ABC):
    """A counter of hardware that only rises, but for the turn back to zero at its end."""

    source: ClassVar[EnergySource]

    @property
    @abstractmethod
    def name(self) -> str:
        """Which part of the machine it counts."""

    @abstractmethod
    def read_uj(self) -> int:
        """Microjoules now.

        Raises:
            OSError: if the counter cannot be read.
        """

    @property
    @abstractmethod
    def range_uj(self) -> int | None:
        """Where it turns back to zero; None if never."""


@final
@dataclass(frozen=True)
class RaplCounter(AbstractEnergyCounter):
    """One domain of Running Average Power Limit, which AMD has too, as Linux shows it.

    Source: David et al., "RAPL: Memory Power Estimation and Capping", ISLPED 2010.

    Args:
        folder: of the domain, such as `/sys/class/powercap/intel-rapl:0`.
    """

    source: ClassVar[EnergySource] = "rapl"

    folder: Path

    @property
    def name(self) -> str:
        """Such as `package-0` or `dram`."""
        return (self.folder / "name").read_text().strip()

    def read_uj(self) -> int:
        """Microjoules now."""
        return int((self.folder / "energy_uj").read_text())

    @property
    def range_uj(self) -> int | None:
        """Where it turns back to zero."""
        return int((self.folder / "max_energy_range_uj").read_text())


@final
@dataclass(frozen=True)
class NvmlCounter(AbstractEnergyCounter):
    """The total energy counter of an NVIDIA GPU, of Volta or newer.

    Args:
        gpu: name of the GPU.
        read_mj: its millijoules since the driver was loaded; raises an error where it has no counter.
    """

    source: ClassVar[EnergySource] = "nvml_counter"

    gpu: str
    read_mj: Callable[[], int]

    @property
    def name(self) -> str:
        """The GPU's."""
        return self.gpu

    def read_uj(self) -> int:
        """Microjoules now."""
        try:
            return 1000 * self.read_mj()
        except Exception as error:  # the library that raises it is optional, so its errors have no name here
            raise OSError(str(error)) from error

    @property
    def range_uj(self) -> int | None:
        """Never: 64 bits of millijoules last for ages."""
        return None


def energy_counters(
    device: torch.device, *, powercap: Path = POWERCAP
) -> tuple[AbstractEnergyCounter, ...] | Unavailable:
    """The counters that cover where tensors live: of the processor packages and their memory, or of the GPU."""
    found = _nvml(device) if device.type == "cuda" else rapl_counters(powercap)
    if isinstance(found, Unavailable):
        return found
    for counter in found:
        try:
            counter.read_uj()
        except (OSError, ValueError) as error:
            return Unavailable(f"the {counter.source} counter of {counter.name} cannot be read: {error}")
    return found


def rapl_counters(powercap: Path = POWERCAP) -> tuple[AbstractEnergyCounter, ...] | Unavailable:
    """Every processor package, and the memory beside it where that is counted apart."""
    packages = sorted(folder for folder in powercap.glob("intel-rapl:*") if folder.name.count(":") == 1)
    # Cores and graphics are inside their package, and `psys` holds the packages: adding them would count twice.
    counters = [RaplCounter(folder) for folder in packages if _name(folder).startswith("package")]
    memory = [
        RaplCounter(folder)
        for package in counters
        for folder in sorted(powercap.glob(f"{package.folder.name}:*"))
        if _name(folder) == "dram"
    ]
    if not counters:
        return Unavailable(f"this machine shows no RAPL package in {powercap}; virtual machines seldom do")
    return (*counters, *memory)


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _nvml(device: torch.device) -> tuple[AbstractEnergyCounter, ...] | Unavailable:
    if find_spec("pynvml") is None:
        return Unavailable("the energy of a GPU needs the package pynvml, which is not installed")
    pynvml: Any = import_module("pynvml")
    properties = torch.cuda.get_device_properties(device)
    try:
        pynvml.nvmlInit()
        # Not by index: CUDA_VISIBLE_DEVICES renumbers the GPUs of torch, but not those of the driver.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    except pynvml.NVMLError as error:
        return Unavailable(f"NVML does not answer for {properties.name}: {error}")
    return (NvmlCounter(str(properties.name), lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))),)


def measure_energy(
    task: Task,
    counters: tuple[AbstractEnergyCounter, ...] | Unavailable,
    *,
    device: AbstractDevice | None = None,
    seconds: float = WINDOW_SECONDS,
    clock: Clock = time.perf_counter_ns,
) -> Energy | Unavailable:
    """Repeat `task` for a window and read the counters around it.

    Args:
        task: a call.
        counters: what `energy_counters` found; of one source. `Unavailable` is handed through.
        device: whose session and synchronisation to use; none for plain host code.
        seconds: least length of the window, 5 or more.
        clock: nanoseconds.

    Raises:
        SpecError: if the window is too short for the counters, or there is no counter.
    """
    if isinstance(counters, Unavailable):
        return counters
    if not seconds >= WINDOW_SECONDS:
        raise SpecError("seconds", f"must be at least {WINDOW_SECONDS:g} for counters to tick, but got {seconds}")
    if len({counter.source for counter in counters}) != 1:
        raise SpecError("counters", f"must be one or more of one source, but got {len(counters)} of several or none")
    try:
        with session_of(device):
            total_uj, calls, elapsed_ns = _window(task, counters, device, seconds, clock)
    except (OSError, ValueError) as error:
        return Unavailable(f"a {counters[0].source} counter failed while it was read: {error}")
    if total_uj <= 0:
        return Unavailable(f"the {counters[0].source} counters stood still for {elapsed_ns / 1e9:.1f} s")
    names = tuple(counter.name for counter in counters)
    return Energy(total_uj / 1000 / calls, counters[0].source, names, calls, elapsed_ns / 1e9)


def _window(
    task: Task,
    counters: tuple[AbstractEnergyCounter, ...],
    device: AbstractDevice | None,
    seconds: float,
    clock: Clock,
) -> tuple[int, int, int]:
    """Microjoules, calls and nanoseconds."""
    synchronize = device.synchronize if device is not None else _nothing
    for _ in range(_WARMUP_CALLS):
        task()
    synchronize()
    meters = [_Meter(counter) for counter in counters]
    began = looked = now = clock()
    calls = 0
    while now - began < seconds * 1e9:
        task()
        synchronize()
        calls, now = calls + 1, clock()
        if now - looked >= _LOOK_EVERY_NS:
            looked = now
            for meter in meters:
                meter.look()
    return sum(meter.look() for meter in meters), calls, now - began


@final
class _Meter:
    """Adds up what a counter rises by between two looks, through its turns back to zero."""

    def __init__(self, counter: AbstractEnergyCounter) -> None:
        self._counter = counter
        self._range_uj = counter.range_uj
        self._last_uj = counter.read_uj()
        self._total_uj = 0

    def look(self) -> int:
        """Microjoules since the first look."""
        now = self._counter.read_uj()
        rise = now - self._last_uj
        if rise < 0:
            if self._range_uj is None:
                raise ValueError(f"the counter of {self._counter.name} fell from {self._last_uj} to {now} uJ")
            rise += self._range_uj
        self._last_uj = now
        self._total_uj += rise
        return self._total_uj


def _nothing() -> None:
    """The synchronisation of code that needs none."""
