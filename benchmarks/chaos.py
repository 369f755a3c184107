"""Is anything lost, whatever dies? Short real searches, and random kills of everything that they rely on.

    python benchmarks/chaos.py [--kinds worker,driver,node,database,mlflow] [--databases sqlite,postgresql]
                               [--kills 20] [--seed 0] [--storage DIR]

Each search is the command line in a process of its own; while it runs one kind of thing is killed again and again, at
moments drawn from a seed that is printed:

- worker: SIGKILL to a process in which a candidate is trained;
- driver: SIGKILL to the whole driver process, then `dynarch resume`;
- node: a node of a Ray cluster of three removed without grace, and a new one some seconds later;
- database: with PostgreSQL, SIGKILL to the server and its backends or an immediate stop, back after 0.2 to 24 s;
  SQLite has no server: SIGKILL to the driver inside a transaction of any of its databases, or a file locked by another;
- mlflow: SIGKILL to the tracking server, started again some seconds later;
- disk (only if asked for, with SQLite, by a user who may mount): the storage's file system filled to the last byte.

After each search ledger, study, MLflow and folder are compared with each other and with a search that nobody disturbed:
asked = recorded = finished in Optuna = finished in MLflow, nothing running, nobody trained again after its end, one
front. Every search is a line of `rows.jsonl` in `--storage`; what is there is not made again. The exit code is 1 if
anything did not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_worker_niceness": "0"}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "Agg"}
os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of libraries, in hundreds of processes

from rich.console import Console
from rich.table import Table

from dynarch.benchmarks.deaths.course import Course
from dynarch.benchmarks.deaths.killers import (
    AbstractKiller,
    DiskKiller,
    DriverKiller,
    NodeKiller,
    ServerKiller,
    TrackingKiller,
    WorkerKiller,
    WriterKiller,
)
from dynarch.benchmarks.deaths.searches import MODES, Mode, write_spec
from dynarch.benchmarks.deaths.services import Nodes, Postgres, SmallDisk, Tracking
from dynarch.benchmarks.deaths.verdict import Remains, compared, remains, violations
from dynarch.benchmarks.rows import Rows
from dynarch.search.storage import Storage

KINDS = ("worker", "driver", "node", "database", "mlflow")
DISK = "disk"
DATABASES = ("sqlite", "postgresql")
KILLS_A_SEARCH = 7
WORKERS_A_SEARCH = 5  # fewer, as a candidate whose worker dies three times is a recorded failure
NODES = 3
OWN_RAY = ("worker", "driver")  # of which every other search starts a Ray of its own, as users do


def kills(rows: Rows, kind: str, database: str) -> int:
    """How many kills of a kind there were."""
    return sum(len(row["kills"]) for row in rows.where({"kind": kind, "database": database}))


@final
class Chaos:
    """All searches of all kinds.

    Args:
        options: command line.
        console: where to say what happens.
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.rows = Rows(options.storage / "rows.jsonl", {"trials": options.trials, "epochs": options.epochs})
        self._stack = ExitStack()
        self._nodes: Nodes | None = None
        self._server: Postgres | None = None
        self._disk: SmallDisk | None = None
        self._begun: set[str] = set()
        self._undisturbed: dict[tuple[str, str], Remains] = {}

    def run(self) -> None:
        """Kill as often as asked: one search of each kind after the other, and again."""
        cells = [(kind, database) for database in self.options.databases for kind in self.options.kinds]
        cells = [cell for cell in cells if cell != (DISK, "postgresql")]
        with self._stack:
            while wanting := [cell for cell in cells if kills(self.rows, *cell) < self.options.kills]:
                for kind, database in wanting:
                    left = self.options.kills - kills(self.rows, kind, database)
                    self._search(kind, database, min(left, WORKERS_A_SEARCH if kind == "worker" else KILLS_A_SEARCH))

    def _search(self, kind: str, database: str, most: int) -> None:
        number = len(self.rows.where({"kind": kind, "database": database}))
        mode = MODES[number % len(MODES)]
        place = DISK if kind == DISK else database
        undisturbed = self._reference(place, mode)
        seed = f"{self.options.seed}-{kind}-{database}-{number}"
        self._say(f"{kind}, {database}, {mode.name}: seed {seed}")
        started = time.monotonic()
        own_ray = kind in OWN_RAY and number // len(MODES) % 2 == 0
        storage = self._storage(place)
        with ExitStack() as stack:
            tracking = self._tracking(storage, stack) if kind == "mlflow" else None
            storage = Storage(storage.folder, storage.database, tracking.url if tracking else None)
            killer = self._killer(kind, random.Random(seed), most, storage, tracking)
            course = self._course(storage, mode, f"{kind}-{number}", own_ray=own_ray)
            search_id = course.run(killer)
            left = remains(storage, search_id)
            if not _written(left):
                course.catch_up()
                left = remains(storage, search_id)
        found = [*course.complaints, *violations(left, self.options.trials, course.endings)]
        row = {
            "kind": kind,
            "database": database,
            "number": number,
            "seed": seed,
            "mode": mode.name,
            "search": search_id,
        }
        row |= {"ray": "own" if own_ray else "cluster", "kills": killer.kills, "lives": course.lives}
        row |= {"violations": found, "front": compared(left, undisturbed), "seconds": time.monotonic() - started}
        self._tell(self.rows.add(row))

    def _reference(self, place: str, mode: Mode) -> Remains:
        """The search of that mode that nobody disturbs, made once."""
        key = (place, mode.name)
        if key not in self._undisturbed:
            self._say(f"undisturbed, {place}, {mode.name}")
            storage = self._storage(place)
            course = self._course(storage, mode, f"undisturbed-{mode.name}", own_ray=False)
            left = remains(storage, course.run(None))
            found = [*course.complaints, *violations(left, self.options.trials, course.endings)]
            if found:
                raise RuntimeError(f"an undisturbed search is not whole: {'; '.join(found)}")
            self._undisturbed[key] = left
        return self._undisturbed[key]

    def _course(self, storage: Storage, mode: Mode, name: str, *, own_ray: bool) -> Course:
        spec = write_spec(storage.folder.parent / "specs", mode, trials=self.options.trials, epochs=self.options.epochs)
        options = ["--storage", str(storage.folder)]
        options += [] if storage.database is None else ["--database", storage.database]
        options += [] if storage.tracking is None else ["--tracking", storage.tracking]
        options += [] if own_ray else ["--ray", self._cluster().address]
        return Course(storage, options, spec, storage.folder.parent / "said" / f"{storage.folder.name}-{name}")

    def _killer(
        self, kind: str, chance: random.Random, most: int, storage: Storage, tracking: Tracking | None
    ) -> AbstractKiller:
        if kind == "mlflow" and tracking is not None:
            return TrackingKiller(chance, most, tracking)
        if kind == "database" and self._server is not None and storage.database is not None:
            return ServerKiller(chance, most, self._server)
        if kind == DISK and self._disk is not None:
            return DiskKiller(chance, most, self._disk)
        if kind == "database":
            return WriterKiller(chance, most, sorted(storage.folder.glob("*.db")))
        if kind == "node":
            return NodeKiller(chance, most, self._cluster())
        return {"worker": WorkerKiller, "driver": DriverKiller}[kind](chance, most)

    def _storage(self, place: str) -> Storage:
        """One for each database, so that it is profiled once; made anew by every run of this program."""
        folder = self.options.storage.resolve() / place
        if place not in self._begun:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            self._begun.add(place)
            if place == DISK:
                self._disk = SmallDisk(folder)
                self._stack.callback(self._disk.close)
        if place != "postgresql":
            return Storage(folder)
        if self._server is None:
            self._server = Postgres()
            self._stack.callback(self._server.close)
        return Storage(folder, self._server.url)

    def _cluster(self) -> Nodes:
        if self._nodes is None:
            self._nodes = Nodes(NODES)
            self._stack.callback(self._nodes.close)
        return self._nodes

    def _tracking(self, storage: Storage, stack: ExitStack) -> Tracking:
        tracking = Tracking(storage.open_tracking_uri(), storage.folder / "mlflow-artifacts")
        stack.callback(tracking.kill)
        tracking.start()
        return tracking

    def _tell(self, row: Mapping[str, Any]) -> None:
        self._say(f"  {len(row['kills'])} kills, {row['lives']} lives, {row['seconds']:.0f} s, front {row['front']}")
        for text in row["kills"]:
            self._say(f"  - {text}")
        for text in row["violations"]:
            self.console.print(f"  VIOLATION: {text}", style="bold red", markup=False, highlight=False)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def _written(left: Remains) -> bool:
    """Whether MLflow seems to have everything."""
    ended = all(run.status == "FINISHED" for run in left.runs if run.number is None)
    return ended and all(each.logged for each in left.evaluations)


def table(rows: Sequence[Mapping[str, Any]], kinds: Sequence[str], databases: Sequence[str]) -> Table:
    """What was killed how often, and what did not hold."""
    made = Table(
        "killed", "database", "kills", "searches", "drivers", "violations", "front same", "other table", "differs"
    )
    for kind in kinds:
        for database in databases:
            some = [row for row in rows if (row["kind"], row["database"]) == (kind, database)]
            fronts = [str(row["front"]) for row in some]
            numbers = (
                sum(len(row["kills"]) for row in some),
                len(some),
                sum(row["lives"] for row in some),
                sum(len(row["violations"]) for row in some),
                fronts.count("same"),
                fronts.count("other table"),
                sum(front.startswith("differs") for front in fronts),
            )
            made.add_row(kind, database, *map(str, numbers))
    return made


def held(row: Mapping[str, Any]) -> bool:
    """Whether all that must hold of a search held."""
    return not row["violations"] and not str(row["front"]).startswith("differs")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", type=_names((*KINDS, DISK)), default=KINDS, help="with commas between")
    parser.add_argument("--databases", type=_names(DATABASES), default=DATABASES, help="with commas between")
    parser.add_argument("--kills", type=int, default=20, help="of each kind, on each database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8, help="candidates of a search")
    parser.add_argument("--epochs", type=int, default=12, help="of a full training")
    parser.add_argument("--storage", type=Path, default=Path("dynarch-results/chaos"), help="results")
    return parser.parse_args(arguments)


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return read


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, compare, and say what was found."""
    options, console = parse(arguments), Console(width=None if sys.stdout.isatty() else 150)
    chaos = Chaos(options, console)
    try:
        chaos.run()
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    console.print(table(chaos.rows.rows, options.kinds, options.databases))
    wanted = [row for row in chaos.rows.rows if row["kind"] in options.kinds and row["database"] in options.databases]
    return 0 if all(map(held, wanted)) else 1


if __name__ == "__main__":
    sys.exit(main())
