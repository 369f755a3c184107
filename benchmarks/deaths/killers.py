"""Who kills what, and when: one killer a kind, at moments drawn from a seed."""

from __future__ import annotations

import abc
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import ClassVar, final

import psutil  # type: ignore[import-untyped]

from .searches import Life
from .services import Nodes, Postgres, SmallDisk, Tracking

PATIENCE_SECONDS = 60.0  # to wait for something that could be killed
MOST_COMMITS = 160  # about what all databases together see in one undisturbed life


class AbstractKiller(abc.ABC):
    """Kills one thing after another while a search runs.

    Args:
        chance: all that is random.
        most: kills in this search.
    """

    name: ClassVar[str]

    def __init__(self, chance: random.Random, most: int) -> None:
        self.chance = chance
        self.most = most
        self.kills: list[str] = []
        self._over = threading.Event()

    @property
    def left(self) -> int:
        """Kills still to be made."""
        return self.most - len(self.kills)

    def commits(self) -> int | None:
        """Inside which transaction the next driver is to kill itself, if so."""
        return None

    def haunt(self, life: Life) -> None:
        """Kill while this driver lives; returns when it is dead, or nothing is left to kill."""
        born = time.monotonic()
        while self.left > 0 and life.alive and not self._over.is_set():
            done = self.strike(life)
            if done is not None:
                self.kills.append(f"{time.monotonic() - born:.1f} s: {done}")

    @abc.abstractmethod
    def strike(self, life: Life) -> str | None:
        """Wait for a random moment and kill; what was done, or None if there was nothing to kill."""

    def sleep(self, life: Life, low: float, high: float) -> bool:
        """Wait for a random time; whether the driver still lives."""
        return self.wait(life, self.chance.uniform(low, high))

    def wait(self, life: Life, seconds: float) -> bool:
        """Wait for so long; whether the driver still lives."""
        until = time.monotonic() + seconds
        while life.alive and time.monotonic() < until:
            time.sleep(0.02)
        return life.alive

    def end(self) -> None:
        """Make whole what was broken, at the end of the search."""
        self._over.set()


@final
class DriverKiller(AbstractKiller):
    """Kills the whole driver process; the next one is `dynarch resume`."""

    name = "driver"

    def strike(self, life: Life) -> str | None:
        if not self.sleep(life, 0.5, 18.0):
            return None
        life.kill()
        return "SIGKILL to the driver"


@final
class WorkerKiller(AbstractKiller):
    """Kills a process in which candidates are trained."""

    name = "worker"

    def strike(self, life: Life) -> str | None:
        workers = _wait_for(life.workers, life)
        if not workers or not self.sleep(life, 0.2, 2.5):
            return None
        alive = [worker for worker in workers if worker.is_running()]
        if not alive:
            return None
        return _killed(self.chance.choice(alive))


def _wait_for(look: Callable[[], list[psutil.Process]], life: Life) -> list[psutil.Process]:
    until = time.monotonic() + PATIENCE_SECONDS
    while life.alive and time.monotonic() < until:
        found = look()
        if found:
            return sorted(found, key=lambda each: int(each.pid))
        time.sleep(0.05)
    return []


def _killed(process: psutil.Process) -> str | None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return None
    return "SIGKILL to a worker"


@final
class NodeKiller(AbstractKiller):
    """Removes a node of the cluster without grace, and adds a new one some seconds later."""

    name = "node"

    def __init__(self, chance: random.Random, most: int, nodes: Nodes) -> None:
        super().__init__(chance, most)
        self._nodes = nodes

    def strike(self, life: Life) -> str | None:
        if not self.sleep(life, 1.0, 8.0):
            return None
        done = self._nodes.kill(self.chance.randrange(self._nodes.count))
        self.sleep(life, 0.0, 3.0)
        self._nodes.add()
        return done


@final
class ServerKiller(AbstractKiller):
    """Kills the PostgreSQL server, and starts it again: sometimes later than is waited for on the spot."""

    name = "database"

    def __init__(self, chance: random.Random, most: int, server: Postgres) -> None:
        super().__init__(chance, most)
        self._server = server

    def strike(self, life: Life) -> str | None:
        if not self.sleep(life, 0.5, 10.0):
            return None
        done = self._server.kill(hard=self.chance.random() < 0.5)
        away = self.chance.choice((0.2, 2.0, 5.0, 20.0)) * self.chance.uniform(0.8, 1.2)
        time.sleep(away)
        self._server.start()
        return f"{done}, back after {away:.1f} s"


@final
class WriterKiller(AbstractKiller):
    """For SQLite, which has no server: the writer dies inside a transaction, or somebody else holds the file.

    Args:
        files: databases of the search.
    """

    name = "database"

    def __init__(self, chance: random.Random, most: int, files: Iterable[Path]) -> None:
        super().__init__(chance, most)
        self._files = tuple(files)
        self._die_at: int | None = None

    def commits(self) -> int | None:
        self._die_at = None
        if self.left > 0 and self.chance.random() < 0.5:
            self._die_at = self.chance.randint(1, MOST_COMMITS)
        return self._die_at

    def strike(self, life: Life) -> str | None:
        if self._die_at is not None:
            while life.alive:
                time.sleep(0.02)
            return f"SIGKILL to the driver inside its transaction {self._die_at}" if life.code == -9 else None
        if not self.sleep(life, 0.5, 10.0):
            return None
        return self._hold(self.chance.choice(self._files), self.chance.uniform(1.0, 8.0))

    def _hold(self, file: Path, seconds: float) -> str | None:
        try:
            with closing(sqlite3.connect(file, timeout=10.0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                other.execute("ROLLBACK")
        except sqlite3.OperationalError:  # it was not there yet, or never free
            return None
        return f"{file.name} locked for {seconds:.1f} s"


@final
class TrackingKiller(AbstractKiller):
    """Kills the MLflow server, and starts it again some seconds later."""

    name = "mlflow"

    def __init__(self, chance: random.Random, most: int, server: Tracking) -> None:
        super().__init__(chance, most)
        self._server = server

    def strike(self, life: Life) -> str | None:
        if not self.sleep(life, 0.5, 8.0):
            return None
        done = self._server.kill()
        away = self.chance.uniform(0.0, 8.0)
        time.sleep(away)
        self._server.start()
        return f"{done}, started again after {away:.1f} s"


@final
class DiskKiller(AbstractKiller):
    """Fills the disk, and makes room some seconds later."""

    name = "disk"

    def __init__(self, chance: random.Random, most: int, disk: SmallDisk) -> None:
        super().__init__(chance, most)
        self._disk = disk

    def strike(self, life: Life) -> str | None:
        if not self.sleep(life, 0.5, 8.0):
            return None
        full = self.chance.uniform(1.0, 15.0)
        self._disk.fill()
        self.wait(life, full)
        self._disk.clear()
        return f"disk full for {full:.1f} s"
