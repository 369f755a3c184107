"""Does each family learn to decide, and is what it saves really saved? On real data, against two baselines.

    python benchmarks/families.py train --data DIR [--families a,b] [--seeds 0,1,2] [--quick]
    python benchmarks/families.py time  --data DIR [...]
    python benchmarks/families.py table

Every registered family is put on a backbone and on data that it fits: Fashion-MNIST or CIFAR-10 for images, the sets
for text and sequences where the family is made for these. DIR holds the folders `image`, `text` and `sequence`; what
is absent is skipped, loudly. `train` needs no quiet machine: it trains the plain backbone and the dynamic network with
the same recipe, epochs and seed, chooses policies on the tune split, and compares on the test split with the static
network and with the same decisions dealt out at random. `time` wants the machine for itself: it measures the parts of
each network, promises a speed, and runs static and dynamic networks in turns at batch 1 and 32. `table` prints what
there is, with each target met or missed.

Every result is a line of `rows.jsonl` in `--storage`, written when it is known; what is there is not made again.
`--quick` tries all of it in a few minutes on embedded data and says nothing about any family.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import torch
from rich.console import Console

import dynarch as da
from dynarch.benchmarks.mechanisms.sources import EMBEDDED, SOURCES, Source
from dynarch.benchmarks.mechanisms.subjects import QUICK_SIZES, SIZES, STATIC, Subject, subjects
from dynarch.benchmarks.mechanisms.timing import profiled, timed
from dynarch.benchmarks.mechanisms.training import Bench, Trained, examine, summary, train, work_book
from dynarch.benchmarks.mechanisms.verdicts import verdict_table, verdicts
from dynarch.benchmarks.rows import Row, Rows
from dynarch.evaluators.splits import Part, sealed_test, visible_splits, with_vocabulary
from dynarch.spaces.errors import DataError

SPLITS = da.SplitSpec(calibrate=0.08, tune=0.17, certify=0.05)


@final
@dataclass(frozen=True)
class Settings:
    """What a row depends on, beside family and seed; rows of other settings stay in the file, unread.

    Args:
        count: inputs to train and tune on.
        test: test inputs at most.
        epochs: of a training; None: the data's own number.
        quick: embedded data, small networks, hasty timing.
    """

    count: int
    test: int
    epochs: int | None
    quick: bool

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data."""
        return EMBEDDED if self.quick else SOURCES


@final
class Benchmark:
    """All rows of all phases.

    Args:
        options: command line.
        console: where to say what happens.
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.settings = Settings(options.count, options.test, options.epochs, options.quick)
        self.rows = Rows(options.storage / "rows.jsonl", vars(self.settings))
        self.failed: list[str] = []
        self._data = lru_cache(maxsize=4)(self._load)

    def train(self) -> None:
        """Train what is not trained."""
        for subject, seed in self._subjects():
            if self._known("train", subject.family.name, subject, seed) is None:
                with self._going_on(f"training {subject.family.name}, seed {seed}"):
                    bench, static = self._bench(subject, seed), self._static(subject, seed)
                    self._say(self._trained(subject, bench, static))

    def time(self) -> None:
        """Time what is trained and not timed."""
        for subject, seed in self._subjects():
            trained = self._known("train", subject.family.name, subject, seed)
            if trained is None:
                self._loud(f"{subject.family.name}, seed {seed}: not trained yet")
            elif self._known("time", subject.family.name, subject, seed) is None:
                with self._going_on(f"timing {subject.family.name}, seed {seed}"):
                    self._say(self._timed(subject, self._bench(subject, seed)))

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """An error ends one row, not the hours of the others; it is told at once and again at the end."""
        try:
            yield
        except da.DynarchError as error:
            self.failed.append(f"{what}: {error}")
            self._loud(f"FAILED {self.failed[-1]}")

    def _trained(self, subject: Subject, bench: Bench, static: Row) -> Row:
        architecture = subject.dynamic(bench.signature)
        decisions, folder = subject.space.decisions(), bench.folder / subject.family.name
        seconds = train(architecture, bench, decisions, folder)
        made = summary(Trained.load(folder), static, bench.test, decisions, bench.seed)
        kept = {name: static[name] for name in ("accuracy", "tune_accuracy", "macs")}
        row = self._named("train", subject.family.name, subject, bench.seed)
        words = {"summary": subject.describe(bench.signature), "architecture": architecture.to_mapping()}
        return self.rows.add({**row, **words, **made, "static": kept, "seconds": seconds})

    def _static(self, subject: Subject, seed: int) -> Row:
        """The plain backbone, trained once for all families on it."""
        known = self._known("train", STATIC, subject, seed)
        if known is not None:
            return known
        bench = self._bench(subject, seed)
        folder = bench.folder / STATIC
        seconds = train(subject.static(bench.signature), bench, (), folder)
        trained = Trained.load(folder)
        made = examine(trained, da.Policy.never(0), bench.test, work_book([trained.costs]), seed)
        row = self._named("train", STATIC, subject, seed)
        return self.rows.add({**row, **made, "tune_accuracy": trained.tune_accuracy(), "seconds": seconds})

    def _timed(self, subject: Subject, bench: Bench) -> Row:
        started, quick = time.perf_counter(), self.settings.quick
        static, dynamic = (Trained.load(bench.folder / name) for name in (STATIC, subject.family.name))
        # A table of its own for each: what is promised was measured a moment before it is kept.
        table = bench.folder / f"{subject.family.name}.table.db"
        book = profiled(subject, bench.signature, table, seed=bench.seed, quick=quick)
        made = timed(static, dynamic, subject, bench.test, book, seed=bench.seed, quick=quick)
        row = self._named("time", subject.family.name, subject, bench.seed)
        machine = da.Cpu().environment().to_dict()
        return self.rows.add({**row, **made, "machine": machine, "seconds": time.perf_counter() - started})

    def _subjects(self) -> Iterator[tuple[Subject, int]]:
        """Families and seeds, the seeds outside: all families have been tried once before the second seed."""
        signatures = {}
        for source in self.settings.sources:
            try:
                signatures[source.name] = self._data(source, self.options.seeds[0])[0].signature
            except DataError as error:
                self._loud(f"no {source.name}: {error}")
        sizes = QUICK_SIZES if self.settings.quick else SIZES
        found = list(subjects(self.options.families, self.settings.sources, signatures, sizes))
        for family, subject in found:
            if subject is None:
                self._loud(f"{family}: no data or backbone here that it fits")
        for seed in self.options.seeds:
            yield from ((subject, seed) for _, subject in found if subject is not None)

    def _load(self, source: Source, seed: int) -> tuple[da.Data, Part]:
        data = with_vocabulary(source.load(self.options.data, self.settings.count, seed), SPLITS, seed)
        test = sealed_test(data, SPLITS, seed)
        return data, Part(test.x[: self.settings.test], test.y[: self.settings.test])

    def _bench(self, subject: Subject, seed: int) -> Bench:
        data, test = self._data(subject.source, seed)
        backbone = subject.space.backbones[0].name
        folder = self.options.storage / f"{self.rows_id()}.{subject.source.name}.{backbone}.{seed}"
        epochs = self.settings.epochs or subject.source.epochs
        return Bench(visible_splits(data, SPLITS, seed), test, data.signature, epochs, seed, folder)

    def rows_id(self) -> str:
        """Names the folders of these settings."""
        return ".".join(str(value) for value in vars(self.settings).values())

    def _known(self, phase: str, family: str, subject: Subject, seed: int) -> Row | None:
        return next(iter(self.rows.where(self._named(phase, family, subject, seed))), None)

    def _named(self, phase: str, family: str, subject: Subject, seed: int) -> Row:
        backbone = subject.space.backbones[0].name
        return {"phase": phase, "family": family, "source": subject.source.name, "backbone": backbone, "seed": seed}

    def _say(self, row: Mapping[str, Any]) -> None:
        self.console.print(
            f"{row['phase']} {row['family']} seed {row['seed']}: {row['seconds']:.0f} s", highlight=False
        )

    def _loud(self, text: str) -> None:
        self.console.print(text if text.startswith("FAILED") else f"SKIPPED: {text}", highlight=False, style="bold")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `--quick` changes the defaults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("phase", choices=("train", "time", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the folders image, text, sequence")
    parser.add_argument("--families", type=_names, default=(), help="names, with commas between; all if absent")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), help="with commas between")
    parser.add_argument("--count", type=int, default=5000, help="inputs to train and tune on")
    parser.add_argument("--test", type=int, default=5000, help="test inputs at most")
    parser.add_argument("--epochs", type=int, help="of a training; else what suits the data")
    parser.add_argument("--storage", type=Path, default=Path("dynarch-results/families"), help="results")
    parser.add_argument("--quick", action="store_true", help="embedded data, small networks, one seed")
    quick, _ = parser.parse_known_args(arguments)
    if quick.quick:
        parser.set_defaults(seeds=(0,), count=600, test=300, epochs=2)
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    known = [family.name for family in da.FAMILIES]
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such family: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main(arguments: Sequence[str] | None = None) -> int:
    """One phase, then what is known by now."""
    options, console = parse(arguments), Console(width=None if sys.stdout.isatty() else 130)
    torch.set_num_threads(1)
    benchmark = Benchmark(options, console)
    try:
        if options.phase != "table":
            {"train": benchmark.train, "time": benchmark.time}[options.phase]()
    except da.DynarchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted, everything is saved; the same command continues", file=sys.stderr)
        return 130
    rows = [row for row in benchmark.rows.rows if not options.families or row["family"] in options.families]
    console.print(verdict_table(rows))
    for text in verdicts(rows):
        console.print(text, highlight=False)
    for text in benchmark.failed:
        console.print(f"FAILED {text}", highlight=False, style="bold")
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main())
