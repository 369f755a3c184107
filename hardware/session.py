"""Sessions: was the machine the same machine from the first measurement to the last?

A few fixed workloads, the canaries, are timed before, in the middle of and after each session. Their
change says how far the machine drifted (clock frequency, neighbours, heat) while the table was filled.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from torch import nn

from .device import AbstractDevice
from .timer import Clock, Protocol, Ready, Task, session_of, time_task

Verdict = Literal["open", "steady", "flagged", "rejected"]

FLAGGED_ABOVE = 0.03
REJECTED_ABOVE = 0.10

# Canaries are visited more often than tasks, so that one disturbed visit does not condemn a session.
_CANARY_PROTOCOL = Protocol(rounds=1, warmup_calls=3, warmup_ms=2, min_samples=15, min_ms=8, cap_ms=200)
_CANARY_VISITS = 3

_THIS_PROCESS = secrets.token_hex(4)


@final
@dataclass(frozen=True)
class Session:
    """One stretch of measuring.

    Args:
        session_id: unique.
        seed: order of the visits.
        protocol: settings of the visits.
        checks: per check, in time order, canary name and value in nanoseconds.
        load: one-minute load average of the machine at each check; empty where it is unknown.
        finished: whether the last check was made.
        forced: whether the rows are used although the drift says otherwise, for want of better ones.
        process: which process measured, a name that no other one has; empty where it is unknown.
    """

    session_id: str
    seed: int
    protocol: Protocol = field(default_factory=Protocol)
    checks: tuple[tuple[tuple[str, int], ...], ...] = ()
    load: tuple[float, ...] = ()
    finished: bool = False
    forced: bool = False
    process: str = ""

    @property
    def drift(self) -> float:
        """Median over the canaries of how far the slowest check lies above the fastest, as a fraction.

        The median, because one canary may meet a neighbour while a change of clock meets all of them.
        """
        if len(self.checks) < 2:
            return 0.0
        series = zip(*(tuple(value for _, value in check) for check in self.checks), strict=True)
        return float(statistics.median(max(values) / max(min(values), 1) - 1 for values in series))

    @property
    def scatter(self) -> float:
        """Median over the canaries of how far the second best check lies above the best, as a fraction.

        How sure the best is. The slowest check tells of a passing neighbour alone, whom the best has outlasted.
        """
        if len(self.checks) < 2:
            return 0.0
        series = (sorted(value for _, value in each)[:2] for each in zip(*self.checks, strict=True))
        return float(statistics.median(second / max(best, 1) - 1 for best, second in series))

    @property
    def verdict(self) -> Verdict:
        """What the canaries say; `open` while the session runs or if it was killed."""
        if not self.finished:
            return "open"
        if self.drift > REJECTED_ABOVE:
            return "rejected"
        return "flagged" if self.drift > FLAGGED_ABOVE else "steady"

    @property
    def accepted(self) -> bool:
        """Whether the rows of this session may be used."""
        return self.forced or self.verdict != "rejected"

    def checked(self, values_ns: Mapping[str, int]) -> Session:
        """This session with one more canary check."""
        load = (*self.load, os.getloadavg()[0]) if hasattr(os, "getloadavg") else self.load
        return replace(self, checks=(*self.checks, tuple(values_ns.items())), load=load)


def best_checks(sessions: Iterable[Session]) -> dict[str, int]:
    """The fastest that each canary ever was, in nanoseconds."""
    best: dict[str, int] = {}
    for session in sessions:
        for check in session.checks:
            for name, value in check:
                best[name] = max(1, min(value, best.get(name, value)))
    return best


def open_session(seed: int, protocol: Protocol) -> Session:
    """A session of this process with a fresh id and no checks yet."""
    return Session(uuid.uuid4().hex, seed, protocol, process=process_name())


def process_name() -> str:
    """A name that this process alone has: its number, which others get again, and a token drawn once."""
    return f"{os.getpid()}-{_THIS_PROCESS}"


def canaries(device: AbstractDevice) -> dict[str, Task]:
    """Five fixed workloads, from one that is all dispatch to one that is all arithmetic."""
    side, width = 16, 32
    generator = torch.Generator().manual_seed(0)
    image = device.place(torch.randn(1, width, side, side, generator=generator))
    vector = device.place(torch.randn(1, 256, generator=generator))
    with torch.random.fork_rng(devices=[]):  # building a module draws weights; the caller's stream stays
        torch.manual_seed(0)
        conv = nn.Conv2d(width, width, 3, padding=1)
        modules: dict[str, tuple[nn.Module, torch.Tensor]] = {
            "relu": (nn.ReLU(), vector),
            "linear": (nn.Linear(256, 256), vector),
            "conv1x1": (nn.Conv2d(width, width, 1), image),
            "conv3x3": (conv, image),
            "block": (nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()), image),
        }
    return {name: _bind(device.prepare(module), example) for name, (module, example) in modules.items()}


def _bind(module: nn.Module, example: torch.Tensor) -> Task:
    def task() -> object:
        return module(example)

    return task


def check_canaries(
    tasks: Mapping[str, Task],
    device: AbstractDevice | None = None,
    *,
    clock: Clock = time.perf_counter_ns,
    protocol: Protocol = _CANARY_PROTOCOL,
    ready: Ready | None = None,
) -> dict[str, int]:
    """Time every canary now, in nanoseconds: the best of a few interleaved visits, each when `ready` returns."""
    best: dict[str, int] = {}
    statistic = device.statistic if device is not None else "min"
    for _ in range(_CANARY_VISITS):
        for name, task in tasks.items():
            with session_of(device):
                value = time_task(task, protocol, clock=clock, device=device, ready=ready).value_ns(statistic)
            best[name] = min(value, best.get(name, value))
    return best
