"""How much faster is the best dynamic network than the best static one, at equal accuracy, on Fashion-MNIST?

    python benchmarks/fashion_mnist.py --data DIR [--trials 60] [--storage DIR]

DIR holds the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`. A search over residual and
inverted-residual networks with early exits runs on a share of the training images; the 10,000 official test images
are opened once, at its end. Then every network in which all inputs take the same path (trained without exits, one
exit used alone, or all exits left out) is set against the fastest dynamic point of the front whose test accuracy is
at least the same, and both are run in routed mode at batch 1, and some at batch 32, where inputs that left are
removed from the batch. All networks are timed in one run a batch size: every round visits each of them once, in a new
order, on the same inputs; of each input the fastest round counts. The interval of a ratio is a bootstrap over inputs.

The partner is chosen by test accuracy among at most 16 points, so its accuracy is a little flattered: mind the Wilson
intervals. The search tunes for batch 1, so batch 32 shows what is left of that elsewhere.

Run again on the same storage, an interrupted search continues, and a finished one is only timed again.
"""

from __future__ import annotations

import argparse
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

import dynarch as da
from dynarch.evaluators.data import from_arrays, read_idx
from dynarch.evaluators.from_scratch import load_candidate
from dynarch.hardware.profile import time_network
from dynarch.search.candidate import candidate_folder
from dynarch.search.report import FrontReport, ReportRow, front_table
from dynarch.spaces.errors import SpecError
from dynarch.spaces.network import RoutedNetwork

Floats = NDArray[np.float64]
CALLS, ROUNDS, RESAMPLES = 200, 10, 10_000
BATCHES = (1, 32)
LARGE_BATCH_PAIRS = 3  # at batch 32 only the most accurate of those static networks that no other one beats
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def read_data(folder: Path, count: int, seed: int) -> da.Data:
    """`count` training images drawn at random, and the official test set; pixels in `[0, 1]`, `n x 1 x 28 x 28`."""
    x, y, x_test, y_test = (read_idx(folder / f"{name}-ubyte.gz", "--data") for name in FILES)
    if not 1 <= count <= len(x):
        raise SpecError("--train", f"must be between 1 and {len(x)}, but got {count}")
    rows = np.random.default_rng(seed).permutation(len(x))[:count]
    return from_arrays(x[rows], y[rows], x_test=x_test, y_test=y_test, name="fashion_mnist", path="--data")


def make_problem(data: da.Data, options: argparse.Namespace) -> da.Problem:
    """60 candidates that a core trains in one to four minutes each.

    Blocks of all stages cost about the same work here, so what an exit can save is the share of blocks behind it:
    deep networks are in the space for that. Exit heads with a convolution are, because average pooling alone reads
    little from the fine-grained features of the first blocks. The same recipe for all, static networks included.
    """
    backbones = (
        da.Residual(width=(8, 16), depth=(1, 2)),
        da.InvertedResidual(width=(8, 16), expansion=(2,), depth=(1, 2)),
    )
    return da.Problem(
        space=da.Space(
            backbones=backbones,
            families=(da.EarlyExit(min_exits=0, max_exits=3, heads=("linear", "conv")),),
            training=da.Recipe(learning_rate=(0.004,), batch_size=64),
        ),
        data=data,
        devices={"cpu": da.Cpu(batch=1, threads=1)},
        constraints=(da.Constraint("accuracy", minimum=options.floor),),
        budget=da.Budget(options.trials, options.epochs, options.minutes, options.workers),
        splits=da.SplitSpec(calibrate=0.08, tune=0.17, certify=0.08),
        strategy=da.Strategy(name="fashion_mnist", seed=options.seed, front=16),
    )


def searched(service: da.SearchService, problem: da.Problem) -> tuple[da.Search, FrontReport | None]:
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


@dataclass(frozen=True)
class Pair:
    """A static network, its dynamic partner, and whether that is at least as accurate on the test split."""

    static: ReportRow
    dynamic: ReportRow
    reached: bool


def pair(static: ReportRow, front: Sequence[ReportRow]) -> Pair:
    """The static network and the fastest point at least as accurate; if there is none, the most accurate one."""
    able = [row for row in front if row.accuracy >= static.accuracy]
    closest = max(front, key=lambda row: (row.accuracy, -_milliseconds(row)))
    return Pair(static, min(able, key=_milliseconds, default=closest), bool(able))


def by_paths(report: FrontReport) -> tuple[list[ReportRow], list[ReportRow]]:
    """Points of the front whose inputs take different paths; and networks where all take the same one.

    The latter begin with those trained without exits, the most accurate first. Points that leave everything at one
    early exit are not repeated among them: every such exit is a row of its own.
    """
    dynamic = [row for row in report.front if max(row.exit_share) < 1]
    whole = [row for row in report.front if row.exit_share[-1] == 1]
    statics = [*report.statics, *whole]
    return dynamic, sorted(statics, key=lambda row: (row.kind != "static", -row.accuracy, _milliseconds(row)))


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
    networks: Mapping[str, RoutedNetwork], x: Tensor, device: da.Cpu, *, calls: int, rounds: int, seed: int
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


def loaded(search: da.Search, rows: Sequence[ReportRow]) -> dict[str, RoutedNetwork]:
    """The network of each row, with its policy."""
    points = {point.label: point for point in search.front()}
    networks = {}
    for row in rows:
        if row.kind == "dynamic":
            networks[row.label] = points[row.label].load()
            continue
        network, _ = load_candidate(search.folder / candidate_folder(row.number))
        exit_index = network.exits if row.kind == "static" else int(row.label.rsplit(" ", 1)[1])
        networks[row.label] = RoutedNetwork(network, da.Policy.single(network.exits, exit_index))
    return networks


def compare(search: da.Search, report: FrontReport, test: Tensor, seed: int) -> list[dict[str, Any]]:
    """Each static network beside its partner, with what was measured; the best static network first."""
    dynamic, statics = by_paths(report)
    pairs = [pair(row, dynamic) for row in statics]
    large = {row.label for row in (statics[0], *unbeaten(statics)[:LARGE_BATCH_PAIRS])}
    entries: list[dict[str, Any]] = [{**asdict(each), "batch": {}} for each in pairs]
    for batch in BATCHES:
        chosen = [(p, e) for p, e in zip(pairs, entries, strict=True) if batch == 1 or p.static.label in large]
        rows = {row.label: row for p, _ in chosen for row in (p.static, p.dynamic)}
        networks = loaded(search, tuple(rows.values()))
        times = time_networks(networks, test, da.Cpu(batch=batch), calls=CALLS, rounds=ROUNDS, seed=seed)
        for p, entry in chosen:
            entry["batch"][str(batch)] = _measured(times[p.static.label], times[p.dynamic.label], seed)
    return entries


def _measured(static_ms: Floats, dynamic_ms: Floats, seed: int) -> dict[str, float]:
    made = dict(zip(("ratio", "ratio_low", "ratio_high"), speedup(static_ms, dynamic_ms, seed=seed), strict=True))
    for name, values in (("static", static_ms), ("dynamic", dynamic_ms)):
        made |= {f"{name}_ms": float(values.mean()), f"{name}_p95_ms": float(np.quantile(values, 0.95))}
    return {**made, "calls": CALLS, "rounds": ROUNDS}


def latency_error(front: Sequence[ReportRow]) -> dict[str, float]:
    """Mean absolute error of the predicted mean latency over the points timed, in milliseconds and as a share."""
    both = np.array([(row.latency_ms, row.measured_ms) for row in front if row.measured_ms is not None])
    errors = np.abs(both[:, 0] - both[:, 1])
    return {"ms": float(errors.mean()), "share": float((errors / both[:, 1]).mean()), "points": float(len(both))}


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
    verb = "matched by" if entry["reached"] else "reached by no dynamic point, the closest being"
    gap = 100 * (dynamic["accuracy"] - static["accuracy"])
    speeds = "; ".join(f"batch {size}: {_ratio(timed).splitlines()[0]}" for size, timed in entry["batch"].items())
    one, other = (f"{row['label']} ({row['summary']}; {row['policy']})" for row in (static, dynamic))
    return f"best static network {one}, {verb} {other} at {gap:+.2f} points; times as fast: {speeds}"


def show(console: Console, search: da.Search, report: FrontReport, options: argparse.Namespace, test: Tensor) -> None:
    """Print the report, compare, print that, and write all of it."""
    console.print(front_table(report, min(console.width, 120)))
    for note in report.notes:
        console.print(f"- {note}", highlight=False)
    if not all(by_paths(report)):
        console.print("nothing to compare: no dynamic point or no static network; lower --floor or train longer")
        return
    console.print("timing static and dynamic networks side by side", highlight=False)
    entries = compare(search, report, test, options.seed)
    error = latency_error(report.front)
    console.print(comparison_table(entries))
    console.print(headline(entries[0]), highlight=False)
    text = f"{error['ms']:.4f} ms or {error['share']:.1%} over {error['points']:.0f} points of the front"
    console.print(f"mean absolute error of predicted against measured latency: {text}", highlight=False)
    content = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "search": search.id,
        "machine": da.Cpu().environment().to_dict(),
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
    parser.add_argument("--train", type=int, default=12_000, help="training images used, for all splits but test")
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
    options, console = parse(), Console(width=None if sys.stdout.isatty() else 110)
    try:
        data = read_data(options.data, options.train, options.seed)
        search, report = searched(da.SearchService(options.storage), make_problem(data, options))
        if report is None:
            raise SpecError(search.id, f"is {search.status().state}; the same command continues it")
        show(console, search, report, options, torch.from_numpy(data.x_test))
    except da.DynarchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted, everything is saved; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
