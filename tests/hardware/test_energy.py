"""Energy: counters of a made-up machine, read through windows of a made-up clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dynarch.hardware.energy import (
    Energy,
    NvmlCounter,
    RaplCounter,
    Unavailable,
    energy_counters,
    measure_energy,
    rapl_counters,
)
from dynarch.spaces.errors import SpecError

RANGE_UJ = 262_143_328_850  # of a desktop processor, in its file `max_energy_range_uj`


def domain(root: Path, folder: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """One folder as Linux shows it."""
    path = root / folder
    path.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", str(energy_uj)), ("max_energy_range_uj", str(range_uj))):
        (path / file).write_text(f"{text}\n")
    return path


class Machine:
    """Each call takes `seconds`, and each domain `watts`; counters turn back to zero at their range."""

    def __init__(self, seconds: float, watts: dict[Path, float]) -> None:
        self.seconds, self.watts, self.now_ns = seconds, watts, 0

    def call(self) -> None:
        self.now_ns += round(self.seconds * 1e9)
        for folder, watts in self.watts.items():
            energy = int((folder / "energy_uj").read_text()) + round(watts * self.seconds * 1e6)
            (folder / "energy_uj").write_text(str(energy % int((folder / "max_energy_range_uj").read_text())))

    def clock(self) -> int:
        return self.now_ns


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two sockets with memory, cores inside a package, the whole platform, and the second view of package 0."""
    domain(tmp_path, "intel-rapl:0", "package-0", 1_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 5)
    domain(tmp_path, "intel-rapl:0:1", "dram", 70)
    domain(tmp_path, "intel-rapl:1", "package-1", 2_000)
    domain(tmp_path, "intel-rapl:2", "psys", 9_000)
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000)
    (tmp_path / "intel-rapl").mkdir()  # the control type itself holds no counter
    return tmp_path


def counters_of(powercap: Path) -> tuple[RaplCounter, ...]:
    found = rapl_counters(powercap)
    assert isinstance(found, tuple)
    return tuple(counter for counter in found if isinstance(counter, RaplCounter))


def test_packages_and_their_memory_are_counted_once(powercap: Path) -> None:
    folders = [counter.folder.name for counter in counters_of(powercap)]
    assert folders == ["intel-rapl:0", "intel-rapl:1", "intel-rapl:0:1"]
    assert [counter.read_uj() for counter in counters_of(powercap)] == [1_000, 2_000, 70]


def test_energy_of_a_call_is_power_times_time(powercap: Path) -> None:
    # 20 + 10 + 3 W for 0.25 s a call: 8.25 J. Twenty calls fill five seconds.
    watts = {powercap / "intel-rapl:0": 20.0, powercap / "intel-rapl:1": 10.0, powercap / "intel-rapl:0:1": 3.0}
    machine = Machine(0.25, {**watts, powercap / "intel-rapl:2": 99.0})
    found = measure_energy(machine.call, counters_of(powercap), clock=machine.clock)
    assert found == Energy(8_250.0, "rapl", ("package-0", "package-1", "dram"), 20, 5.0)
    assert found.power_watts == pytest.approx(33.0)


@pytest.mark.parametrize(
    ("range_uj", "turns"),
    [
        # 100 W from 100 J on: 250 J after the three calls that come before the window, 750 J at its end.
        (RANGE_UJ, 0),
        (400_000_000, 1),
        (150_000_000, 4),  # it shows 100 J when the window starts; 600 J later are four times its range
    ],
)
def test_a_counter_that_wraps_around_is_followed(tmp_path: Path, range_uj: int, turns: int) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 100_000_000, range_uj)
    machine = Machine(0.5, {folder: 100.0})
    assert (250_000_000 % range_uj + 500_000_000) // range_uj == turns
    found = measure_energy(machine.call, counters_of(tmp_path), clock=machine.clock)
    assert isinstance(found, Energy)
    assert found.energy_mj == pytest.approx(50_000)  # 100 W for 0.5 s, each of ten calls
    assert found.calls == 10


def test_the_window_lasts_until_the_end_of_the_call_that_fills_it(tmp_path: Path) -> None:
    machine = Machine(2.0, {domain(tmp_path, "intel-rapl:0", "package-0"): 1.0})
    found = measure_energy(machine.call, counters_of(tmp_path), clock=machine.clock, seconds=5)
    assert isinstance(found, Energy)
    assert (found.calls, found.window_seconds, found.power_watts) == (3, 6.0, 1.0)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    found = energy_counters(torch.device("cpu"), powercap=tmp_path / "absent")
    assert isinstance(found, Unavailable)
    assert "no RAPL package" in found.reason
    calls: list[None] = []
    assert measure_energy(lambda: calls.append(None), found) is found
    assert not calls


def test_a_counter_that_may_not_be_read_says_so(powercap: Path) -> None:
    broken = powercap / "intel-rapl:1" / "energy_uj"
    broken.unlink()
    broken.mkdir()  # cannot be read even by those who may read everything
    found = energy_counters(torch.device("cpu"), powercap=powercap)
    assert isinstance(found, Unavailable)
    assert "package-1 cannot be read" in found.reason


def test_a_counter_that_stands_still_is_no_measurement(powercap: Path) -> None:
    machine = Machine(1.0, {})
    found = measure_energy(machine.call, counters_of(powercap), clock=machine.clock)
    assert found == Unavailable("the rapl counters stood still for 5.0 s")


def test_a_counter_that_fails_in_the_window_is_no_measurement() -> None:
    readings = iter([10, 20])
    machine = Machine(1.0, {})
    counter = NvmlCounter("gpu", lambda: next(readings))
    found = measure_energy(machine.call, (counter,), clock=machine.clock)
    assert isinstance(found, Unavailable)
    assert "failed while it was read" in found.reason


@pytest.mark.parametrize("seconds", [0.0, 4.9, float("nan")])
def test_short_windows_are_refused(seconds: float) -> None:
    with pytest.raises(SpecError, match="seconds: must be at least 5"):
        measure_energy(lambda: None, (NvmlCounter("gpu", lambda: 0),), seconds=seconds)


def test_counters_of_two_sources_are_never_added(powercap: Path) -> None:
    mixed = (*counters_of(powercap), NvmlCounter("gpu", lambda: 0))
    for counters in (mixed, ()):
        with pytest.raises(SpecError, match="one source"):
            measure_energy(lambda: None, counters)


def test_the_counter_of_a_gpu_is_in_millijoules_and_never_turns() -> None:
    machine = Machine(1.0, {})
    counter = NvmlCounter("H200", lambda: 5_000_000 + machine.now_ns // 10_000_000)  # 100 mJ a second
    found = measure_energy(machine.call, (counter,), clock=machine.clock)
    assert found == Energy(100.0, "nvml_counter", ("H200",), 5, 5.0)
    fell = iter([7, 3, 3])
    found = measure_energy(machine.call, (NvmlCounter("H200", lambda: next(fell)),), clock=machine.clock)
    assert isinstance(found, Unavailable)
    assert "fell from 7000 to 3000" in found.reason


class FakeNvml:
    """The four names of pynvml that are used."""

    class NVMLError(Exception):
        pass

    def __init__(self, energy: Callable[[], int]) -> None:
        self.nvmlInit = lambda: None
        self.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
        self.nvmlDeviceGetTotalEnergyConsumption = lambda handle: energy() if handle == "GPU-abc" else 1 / 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The second GPU that torch sees, wherever the driver counts it."""
    properties = type("Properties", (), {"uuid": "abc", "name": "H200"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return torch.device("cuda", 1)


def test_the_gpu_is_found_by_its_own_id(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(lambda: 12)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr("dynarch.hardware.energy.find_spec", lambda name: name)
    found = energy_counters(gpu)
    assert isinstance(found, tuple)
    assert [(counter.name, counter.read_uj()) for counter in found] == [("H200", 12_000)]


def test_a_gpu_without_the_counter_says_so(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise FakeNvml.NVMLError("Not Supported")

    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(refuse))
    monkeypatch.setattr("dynarch.hardware.energy.find_spec", lambda name: name)
    found = energy_counters(gpu)
    assert found == Unavailable("the nvml_counter counter of H200 cannot be read: Not Supported")


def test_without_the_library_a_gpu_has_no_energy(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = energy_counters(gpu)
    assert isinstance(found, Unavailable)
    assert "pynvml" in found.reason
