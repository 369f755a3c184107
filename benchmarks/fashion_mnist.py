"""How much faster is the best dynamic network than the best static one, at equal accuracy, on Fashion-MNIST?

    python benchmarks/fashion_mnist.py --data DIR [--trials 60] [--storage DIR]

DIR holds the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`. A search over residual and
inverted-residual networks with early exits is run on a share of the training images; the 10,000 official test images
are opened once, at its end. Then static networks (those trained without any exit, and single exits used alone) are
set against the fastest point of the front whose test accuracy is at least theirs, and both are run in routed mode at
batch 1 and, for the static networks that no other static one beats, at batch 32, where inputs that left are removed
from the batch. All networks of a batch size are timed in one run: every round visits each network once, in a new
order, on the same inputs; of each input the fastest round counts. The interval of a ratio is a bootstrap over inputs.

The partner is chosen by test accuracy among at most 16 points, so its own accuracy is a little flattered; look at the
Wilson intervals. The search tunes for batch 1, so batch 32 shows what is left of that elsewhere.

Run again on the same storage, an interrupted search continues, and a finished one is only timed again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dynarch import (
    Budget,
    Constraint,
    Cpu,
    Data,
    DynarchError,
    EarlyExit,
    InvertedResidual,
    Policy,
    Problem,
    Recipe,
    Residual,
    Search,
    SearchService,
    Space,
    SplitSpec,
    Strategy,
)
from dynarch.evaluators.from_scratch import load_candidate
from dynarch.hardware.profile import time_network
from dynarch.search.candidate import candidate_folder
from dynarch.search.report import FrontReport, ReportRow, front_table
from dynarch.spaces.errors import DataError, SpecError
from dynarch.spaces.network import RoutedNetwork

Floats = NDArray[np.float64]
CALLS, ROUNDS, RESAMPLES = 200, 10, 10_000
BATCHES = (1, 32)
DEAR_OPPONENTS = 6  # static networks timed at batch 32 as well, the most accurate ones
UNSIGNED_BYTE = 8  # type code of the format
_KINDS = ("images-idx3", "labels-idx1")


# -- data and problem ------------------------------------------------------------------------------------------


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array of a gzipped idx file of bytes: two zeros, type code, rank, then sizes as big-endian integers.

    Raises:
        DataError: if it cannot be read or is no such file.
    """
    try:
        raw = gzip.decompress(file.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError("--data", f"{file} cannot be read ({error}); give the folder of the idx.gz files") from None
    if len(raw) < 4 or raw[:3] != bytes((0, 0, UNSIGNED_BYTE)) or len(raw) < 4 + 4 * raw[3]:
        raise DataError("--data", f"{file} must be an idx file of unsigned bytes; fetch it again")
    start = 4 + 4 * raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    if len(raw) - start != int(np.prod(shape)):
        raise DataError("--data", f"{file} must hold {shape} bytes, but holds {len(raw) - start}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_data(folder: Path, count: int, seed: int) -> Data:
    """`count` training images drawn at random, and the official test set; pixels in `[0, 1]`, `n x 1 x 28 x 28`."""
    parts = [read_idx(folder / f"{part}-{kind}-ubyte.gz") for part in ("train", "t10k") for kind in _KINDS]
    x, y, x_test, y_test = parts
    if not 1 <= count <= len(x):
        raise SpecError("--train", f"must be between 1 and {len(x)}, but got {count}")
    rows = np.random.default_rng(seed).permutation(len(x))[:count]
    return Data(_pixels(x[rows]), _labels(y[rows]), 10, _pixels(x_test), _labels(y_test), "fashion_mnist")


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (images[:, None] / np.float32(255)).astype(np.float32)


def _labels(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    return labels.astype(np.int64)


def make_problem(data: Data, options: argparse.Namespace) -> Problem:
    """60 candidates that a core trains in one to four minutes each.

    Blocks of all stages cost about the same work here, so what an exit can save is the share of blocks behind it:
    deep networks are in the space for that. Exit heads with a convolution are, because average pooling alone reads
    little from the fine-grained features of the first blocks. The same recipe for all, static networks included.
    """
    backbones = (Residual(width=(8, 16), depth=(1, 2)), InvertedResidual(width=(8, 16), expansion=(2,), depth=(1, 2)))
    return Problem(
        space=Space(
            backbones=backbones,
            families=(EarlyExit(min_exits=0, max_exits=3, heads=("linear", "conv")),),
            training=Recipe(learning_rate=(0.004,), batch_size=64),
        ),
        data=data,
        devices={"cpu": Cpu(batch=1, threads=1)},
        constraints=(Constraint("accuracy", minimum=options.floor),),
        budget=Budget(options.trials, options.epochs, options.minutes, options.workers),
        splits=SplitSpec(calibrate=0.0625, tune=0.1875, certify=0.125),
        strategy=Strategy(name="fashion_mnist", seed=options.seed, front=16),
    )


# -- search ----------------------------------------------------------------------------------------------------


def searched(service: SearchService, problem: Problem) -> tuple[Search, FrontReport | None]:
    """The search of this storage, begun, continued or already finished; no report if it was cancelled.

    Raises:
        SpecError: if the storage holds a search with other settings.
    """
    if not service.list():
        search = service.launch(problem)
        return search, search.wait(progress=True)
    search = service.get()
    kept, asked = (json.dumps(each.to_mapping(), sort_keys=True) for each in (search.problem(), problem))
    if kept != asked:
        raise SpecError("--storage", f"{service.storage.folder} holds a search with other settings; choose another")
    if search.status().state == "finished":
        return search, read_report(search.folder / "report" / "report.json")
    return search, search.resume(warn=print).wait(progress=True)


def read_report(file: Path) -> FrontReport:
    """The report as it was written."""
    content: dict[str, Any] = json.loads(file.read_text())
    rows = tuple(ReportRow(**{name: _frozen(value) for name, value in row.items()}) for row in content.pop("rows"))
    names = {field.name for field in fields(FrontReport)}
    return FrontReport(rows=rows, **{name: _frozen(value) for name, value in content.items() if name in names})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


# -- comparison ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A static network and its dynamic partner.

    Args:
        static: trained without exits, or one exit used alone.
        dynamic: the fastest point of the front that is at least as accurate on the test split, or, if there is
            none, the most accurate one.
        reached: whether it is at least as accurate.
    """

    static: ReportRow
    dynamic: ReportRow
    reached: bool


def pair(static: ReportRow, front: Sequence[ReportRow]) -> Pair:
    """The partner of a static network in a front that is not empty."""
    able = [row for row in front if row.accuracy >= static.accuracy]
    if able:
        return Pair(static, min(able, key=_milliseconds), True)
    return Pair(static, max(front, key=lambda row: (row.accuracy, -_milliseconds(row))), False)


def best_static(rows: Sequence[ReportRow]) -> ReportRow:
    """The most accurate network trained without exits; of equals the fastest."""
    return max((row for row in rows if row.kind == "static"), key=lambda row: (row.accuracy, -_milliseconds(row)))


def unbeaten(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """Those that no other row of these beats in both accuracy and latency, the most accurate first."""
    kept: list[ReportRow] = []
    for row in sorted(rows, key=lambda row: (_milliseconds(row), -row.accuracy)):
        if not kept or row.accuracy > kept[-1].accuracy:
            kept.append(row)
    return kept[::-1]


def _milliseconds(row: ReportRow) -> float:
    return row.latency_ms if row.measured_ms is None else row.measured_ms


def speedup(static_ms: Floats, dynamic_ms: Floats, *, seed: int) -> tuple[float, float, float]:
    """Ratio of the means of two timings of the same inputs, with a 95 % bootstrap interval over the inputs."""
    rows = np.random.default_rng(seed).integers(len(static_ms), size=(RESAMPLES, len(static_ms)))
    drawn = static_ms[rows].mean(axis=1) / dynamic_ms[rows].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(static_ms.mean() / dynamic_ms.mean()), float(low), float(high)


def time_networks(
    networks: Mapping[str, RoutedNetwork], x: Tensor, device: Cpu, *, calls: int, rounds: int, seed: int
) -> dict[str, Floats]:
    """Milliseconds an input of each routed network on each of `calls` batches of `x`, the fastest of the rounds."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(np.arange(calls * device.batch) % len(x)).reshape(calls, device.batch)
    batches = [device.place(x[torch.from_numpy(row)]) for row in rows]
    ready = {label: device.prepare(network) for label, network in networks.items()}
    best = {label: np.full(calls, np.inf) for label in networks}
    for number in range(rounds):
        for label in generator.permutation(sorted(networks)):
            network = ready[label]

            def run(index: int, network: torch.nn.Module = network) -> object:
                return network(batches[index])

            once = time_network(run, calls, rounds=1, device=device, seed=seed + number)
            best[label] = np.minimum(best[label], once / device.batch)
    return best


def loaded(search: Search, rows: Sequence[ReportRow]) -> dict[str, RoutedNetwork]:
    """The network of each row, with its policy."""
    points = {point.label: point for point in search.front()}
    networks = {}
    for row in rows:
        if row.kind == "dynamic":
            networks[row.label] = points[row.label].load()
            continue
        network, _ = load_candidate(search.folder / candidate_folder(row.number))
        exit_index = network.exits if row.kind == "static" else int(row.label.rsplit(" ", 1)[1])
        networks[row.label] = RoutedNetwork(network, Policy.single(network.exits, exit_index))
    return networks


def compare(search: Search, report: FrontReport, test: Tensor, seed: int) -> list[dict[str, Any]]:
    """Each static network beside its partner, with what was measured; the best static network first."""
    best = best_static(report.statics)
    others = sorted((row for row in report.statics if row is not best), key=lambda row: -row.accuracy)
    pairs = [pair(row, report.front) for row in (best, *others)]
    dear = {row.label for row in unbeaten(report.statics)[:DEAR_OPPONENTS]} | {best.label}
    entries: list[dict[str, Any]] = [{**asdict(each), "batch": {}} for each in pairs]
    for batch in BATCHES:
        chosen = [(p, e) for p, e in zip(pairs, entries, strict=True) if batch == 1 or p.static.label in dear]
        rows = {row.label: row for p, _ in chosen for row in (p.static, p.dynamic)}
        networks = loaded(search, tuple(rows.values()))
        times = time_networks(networks, test, Cpu(batch=batch), calls=CALLS, rounds=ROUNDS, seed=seed)
        for p, entry in chosen:
            entry["batch"][str(batch)] = _measured(times[p.static.label], times[p.dynamic.label], seed)
    return entries


def _measured(static_ms: Floats, dynamic_ms: Floats, seed: int) -> dict[str, Any]:
    ratio, low, high = speedup(static_ms, dynamic_ms, seed=seed)
    each = {"static": static_ms, "dynamic": dynamic_ms}
    means = {f"{name}_ms": float(values.mean()) for name, values in each.items()}
    tails = {f"{name}_p95_ms": float(np.quantile(values, 0.95)) for name, values in each.items()}
    return {**means, **tails, "ratio": ratio, "ratio_low": low, "ratio_high": high, "calls": CALLS, "rounds": ROUNDS}


def latency_error(front: Sequence[ReportRow]) -> dict[str, float]:
    """Mean absolute error of the predicted mean latency over the points that were timed, in milliseconds and as a share."""
    both = np.array([(row.latency_ms, row.measured_ms) for row in front if row.measured_ms is not None])
    if not len(both):
        return {}
    errors = np.abs(both[:, 0] - both[:, 1])
    return {"ms": float(errors.mean()), "share": float((errors / both[:, 1]).mean()), "points": float(len(both))}


# -- output ----------------------------------------------------------------------------------------------------


def comparison_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """One line a pair; a ratio above 1 says that the dynamic network is faster."""
    table = Table(title="Routed and timed again: static against dynamic at equal test accuracy, static ms / dynamic ms")
    for head in ("static", "accuracy %", "dynamic", "accuracy %", *(f"batch {size}" for size in BATCHES)):
        table.add_column(head)
    for entry in entries:
        static, dynamic = entry["static"], entry["dynamic"]
        name = dynamic["label"] if entry["reached"] else f"({dynamic['label']})"
        times = (_ratio(entry["batch"].get(str(size))) for size in BATCHES)
        table.add_row(static["label"], _accuracy(static), name, _accuracy(dynamic), *times)
    table.caption = "(in brackets: no dynamic point is as accurate, this one comes closest)"
    return table


def _accuracy(row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_low"], row["accuracy_high"]
    return f"{100 * row['accuracy']:.2f}\n{100 * low:.2f}-{100 * high:.2f}"


def _ratio(timed: Mapping[str, Any] | None) -> str:
    if timed is None:
        return "-"
    ratio = f"{timed['ratio']:.2f} [{timed['ratio_low']:.2f}, {timed['ratio_high']:.2f}]"
    return f"{ratio}\n{timed['static_ms']:.3f} / {timed['dynamic_ms']:.3f} ms"


def headline(entry: Mapping[str, Any]) -> str:
    """The first pair in words."""
    static, dynamic = entry["static"], entry["dynamic"]
    gap = 100 * (dynamic["accuracy"] - static["accuracy"])
    verb = "matched by" if entry["reached"] else "reached by no dynamic point; closest is"
    speeds = "; ".join(f"batch {size}: {_ratio(timed).splitlines()[0]}" for size, timed in entry["batch"].items())
    return (
        f"best static network {static['label']} ({static['summary']}), {verb} {dynamic['label']} "
        f"({dynamic['summary']}; {dynamic['policy']}) at {gap:+.2f} points; times as fast: {speeds}"
    )


def show(console: Console, search: Search, report: FrontReport, options: argparse.Namespace, test: Tensor) -> None:
    """Print the report, compare, print that, and write all of it."""
    console.print(front_table(report, min(console.width, 120)))
    for note in report.notes:
        console.print(f"- {note}", highlight=False)
    if not report.front:
        console.print("nothing to compare: lower --floor or train longer")
        return
    entries = compare(search, report, test, options.seed)
    error = latency_error(report.front)
    console.print(comparison_table(entries))
    console.print(headline(entries[0]), highlight=False)
    if error:
        text = f"{error['ms']:.4f} ms or {error['share']:.1%} over {error['points']:.0f} points of the front"
        console.print(f"mean absolute error of predicted against measured latency: {text}", highlight=False)
    content = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "search": search.id,
        "machine": Cpu().environment().to_dict(),
        "headline": report.headline,
        "seconds": report.seconds,
        "latency_error": error,
        "pairs": entries,
    }
    file = search.folder / "report" / "fashion_mnist.json"
    file.write_text(json.dumps(content, indent=1))
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx.gz files")
    parser.add_argument("--train", type=int, default=16_000, help="training images used, for all splits but test")
    parser.add_argument("--trials", type=int, default=60, help="candidates")
    parser.add_argument("--epochs", type=int, default=6, help="of a full training")
    parser.add_argument("--minutes", type=float, help="wall clock of the search itself")
    parser.add_argument("--workers", type=int, default=2, help="candidates at the same time, a core each")
    parser.add_argument("--floor", type=float, default=0.85, help="least accuracy of a point on the front")
    parser.add_argument("--storage", type=Path, default=Path("dynarch-results/fashion_mnist"), help="results")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> int:
    """Search, report, compare."""
    options, console = parse(), Console()
    try:
        data = read_data(options.data, options.train, options.seed)
        search, report = searched(SearchService(options.storage), make_problem(data, options))
        if report is None:
            state = search.status()
            console.print(f"search {state.id} is {state.state}: {state.reason}", highlight=False)
            return 1
        show(console, search, report, options, torch.from_numpy(data.x_test))
    except DynarchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted, everything is saved; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
