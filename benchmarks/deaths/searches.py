"""Short real searches, and the processes that drive them: the command line itself, forked after its imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import final

import numpy as np
import psutil  # type: ignore[import-untyped]
from sqlalchemy import Engine, event

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["dynarch.service", "dynarch.search.tracking", "ray.tune", __name__])

SPEC = """
[search]
name = "chaos"
seed = 0
sampler = "{sampler}"
rungs = {rungs}
points = 6
front = 3
[budget]
trials = {trials}
epochs = {epochs}
workers = {workers}
[data]
source = "patterns.npz"
[space.backbones.residual]
width = [4]
depth = [1]
stages = 3
[space.families.early_exit]
max_exits = 2
heads = ["linear"]
[space.training]
learning_rate = [0.02]
batch_size = 16
[devices.cpu]
kind = "cpu"
"""


@final
@dataclass(frozen=True)
class Mode:
    """A way to search whose outcome follows from the seed alone, whatever is killed when.

    Two workers end in any order, so what they are asked must not depend on it: no rungs, a sampler without memory.
    One worker may have both.
    """

    name: str
    sampler: str
    rungs: bool
    workers: int


MODES = (Mode("two workers", "random", False, 2), Mode("rungs", "tpe", True, 1))


def write_spec(folder: Path, mode: Mode, *, trials: int, epochs: int) -> Path:
    """The search as a file, with its data beside it: three patterns of 8 x 8 pixels under noise."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    y = np.arange(300) % 3
    patterns, strength = generator.normal(size=(3, 1, 8, 8)), generator.uniform(0.3, 2.2, size=(300, 1, 1, 1))
    noise = strength * generator.normal(size=(300, 1, 8, 8))
    if not (folder / "patterns.npz").exists():
        np.savez(folder / "patterns.npz", x=(patterns[y] + noise).astype(np.float32), y=y)
    spec = folder / f"{mode.name.replace(' ', '-')}.toml"
    rungs = "true" if mode.rungs else "false"
    spec.write_text(SPEC.format(sampler=mode.sampler, rungs=rungs, trials=trials, epochs=epochs, workers=mode.workers))
    return spec


@final
@dataclass
class Life:
    """A driver from its start to its end or death."""

    process: ForkServerProcess
    out: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.is_alive()

    @property
    def code(self) -> int | None:
        """Its exit code, below zero if it was killed; None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """Kill the driver, and nothing but the driver, in the hardest way."""
        self.process.kill()
        self.process.join(60)

    def said(self) -> str:
        """All that it has written so far."""
        return self.out.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """The processes in which candidates are trained: below it, or below a cluster that was started here."""
        return workers_below(os.getpid())


def workers_below(pid: int) -> list[psutil.Process]:
    """The processes below another one in which candidates are trained."""
    found = []
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for each in below:
        try:
            if " ".join(each.cmdline()).startswith(("ray::_Evaluation", "ray::ResourceTrainable")):
                found.append(each)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@contextmanager
def living(out: Path, arguments: Sequence[str], *, die_at_commit: int | None = None) -> Iterator[Life]:
    """Start `dynarch` with these arguments; what is left of it in the end is killed.

    Args:
        out: where it writes.
        arguments: of the command line.
        die_at_commit: kill itself inside the transaction of that number, of all its databases, counted from 1.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    process = _PROCESSES.Process(target=_drive, args=(str(out), list(arguments), die_at_commit))
    process.start()
    life = Life(process, out)
    try:
        yield life
    finally:
        if life.alive:
            doomed = psutil.Process(process.pid).children(recursive=True)
            life.kill()
            for each in doomed:
                with _already_gone():
                    each.kill()


@contextmanager
def _already_gone() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def _drive(out: str, arguments: list[str], die_at_commit: int | None) -> None:
    os.setsid()
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.argv = ["dynarch", *arguments]
    if die_at_commit is not None:
        _die_inside_transaction(die_at_commit)
    from dynarch.service import main

    main()


def _die_inside_transaction(number: int) -> None:
    left = [number]

    def before(_connection: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", before)
