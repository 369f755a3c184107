"""The course of one search under a killer: drivers that follow each other to its end, and somebody who looks on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from dynarch.search.ledger import Ledger, Search
from dynarch.search.storage import Storage
from dynarch.spaces.errors import StoreError

from .killers import AbstractKiller
from .searches import Life, living
from .verdict import endings_of

LIFE_SECONDS = 1500.0  # after which a driver counts as hanging
MOST_LIVES = 60
KILLED = -9


@final
@dataclass
class Course:
    """One search from its first driver to its end.

    Args:
        storage: where it is kept.
        options: of the command line, which every driver gets.
        spec: what is searched.
        out: folder of what the drivers say.
    """

    storage: Storage
    options: Sequence[str]
    spec: Path
    out: Path
    search_id: str | None = None
    lives: int = 0
    endings: dict[int, object] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def run(self, killer: AbstractKiller | None) -> str:
        """Drive it to its end, with as many drivers as it takes; the id of the search."""
        before = {search.id for search in self._searches()}
        while self.lives < MOST_LIVES:
            what = ["search", str(self.spec)] if self.search_id is None else ["resume", self.search_id]
            self._live(what, killer)
            new = [search.id for search in self._searches() if search.id not in before]
            self.search_id = new[0] if new else None
            if len(new) > 1:
                self.complaints.append(f"there are {len(new)} searches instead of one")
            if self.search_id is not None and self._status() == "finished":
                break
        if killer is not None:
            killer.end()
        if self.search_id is None:
            raise RuntimeError(f"no search came about in {self.lives} lives; see {self.out}")
        return self.search_id

    def catch_up(self) -> None:
        """Have what MLflow missed written."""
        self._live(["resume", str(self.search_id)], None)

    def _live(self, what: Sequence[str], killer: AbstractKiller | None) -> None:
        self.lives += 1
        out = self.out / f"{self.lives:02}.txt"
        commits = None if killer is None else killer.commits()
        with living(out, [*what, *self.options], die_at_commit=commits) as life, self._looked_on(life):
            if killer is not None:
                killer.haunt(life)
            life.process.join(LIFE_SECONDS)
            if life.alive:
                self.complaints.append(f"driver {self.lives} hung for {LIFE_SECONDS:.0f} s")
        self._judge(life)

    def _judge(self, life: Life) -> None:
        """A driver that ends by itself before its time says how to go on."""
        if life.code in (0, KILLED):
            return
        said = life.said().strip().splitlines()
        last = said[-1] if said else ""
        if life.code != 1 or "dynarch resume" not in last:
            self.complaints.append(f"driver {self.lives} ended with code {life.code}: {last[:300]}")

    @contextmanager
    def _looked_on(self, life: Life) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.2):
                self._look()

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _look(self) -> None:
        if self.search_id is None:
            return
        try:
            with Ledger.open(self.storage.ledger_url) as ledger:
                for number, ending in endings_of(ledger, self.search_id).items():
                    self.endings.setdefault(number, ending)
        except StoreError:
            return

    def _searches(self) -> tuple[Search, ...]:
        """All searches, whenever the database is there."""
        until = time.monotonic() + LIFE_SECONDS
        while True:
            try:
                with Ledger.open(self.storage.ledger_url) as ledger:
                    return ledger.searches()
            except StoreError:
                if time.monotonic() > until:
                    raise

    def _status(self) -> str:
        return next(search.status for search in self._searches() if search.id == self.search_id)
