"""Timing phase: what the latency table promises of a trained network, and what the stopwatch says of it.

The parts of one subject are measured right before its networks are, by the product's own profiler. Promise and
measurement speak of the same test inputs, and static and dynamic network take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

import dynarch as da
from dynarch.benchmarks.fashion_mnist import speedup, time_networks
from dynarch.benchmarks.mechanisms.subjects import Subject
from dynarch.benchmarks.mechanisms.training import WITHIN, Trained, chosen, examine
from dynarch.evaluators.operating import score
from dynarch.evaluators.score_table import score_tables
from dynarch.evaluators.splits import Part
from dynarch.hardware.book import LatencyBook
from dynarch.hardware.table import LatencyTable
from dynarch.hardware.timer import Protocol
from dynarch.search.profiling import Profiler
from dynarch.spaces.network import RoutedNetwork

BATCHES: Final = (1, 32)
CALLS: Final[Mapping[int, int]] = {1: 200, 32: 24}
ROUNDS: Final = 8
QUICK: Final = Protocol(rounds=1, warmup_ms=0, min_samples=2, min_ms=0.1, cap_ms=20)


def profiled(subject: Subject, signature: da.Signature, table: Path, *, seed: int, quick: bool) -> LatencyBook:
    """The parts of the subject's networks, measured at both batch sizes."""
    devices = {f"batch {size}": da.Cpu(batch=size, threads=1) for size in BATCHES}
    with LatencyTable.open(table) as opened:
        profiler = Profiler(subject.space, signature, opened, seed=seed, protocol=QUICK if quick else None)
        book, _ = profiler.book(devices)
    return book


def timed(
    static: Trained, dynamic: Trained, subject: Subject, test: Part, book: LatencyBook, *, seed: int, quick: bool
) -> dict[str, Any]:
    """The point of a dynamic network that is fastest at batch 1 within a point of accuracy of the static one.

    Returns:
        Its accuracy and that of the static network on the test split; for each batch size how many times as fast as
        the static network it was promised to be and measured to be, the latter with a 95 % interval over inputs.
    """
    first, _ = book.first
    points = dynamic.points(book, subject.space.decisions(), seed)
    best = chosen(points, static.tune_accuracy() - WITHIN, f"latency_ms@{first}")
    whole = da.Policy.never(0)
    made = examine(dynamic, best.policy, test, book, seed)
    made["static_accuracy"] = examine(static, whole, test, book, seed)["accuracy"]
    networks = {"static": RoutedNetwork(static.network, whole), "dynamic": RoutedNetwork(dynamic.network, best.policy)}
    for (name, pages), (calls, rounds) in zip(book.devices.items(), _effort(quick), strict=True):
        device = da.Cpu(batch=pages.batch, threads=1)
        some = Part(test.x[: calls * pages.batch], test.y[: calls * pages.batch])
        took = time_networks(networks, some.x, device, calls=calls, rounds=rounds, seed=seed)
        measured, low, high = speedup(took["static"], took["dynamic"], seed=seed)
        told = {
            label: promise(trained, policy, some, book, name, seed)
            for label, trained, policy in (("static", static, whole), ("dynamic", dynamic, best.policy))
        }
        promised = told["static"] / told["dynamic"]
        made[name] = {
            "promised": promised,
            "measured": measured,
            "low": low,
            "high": high,
            "kept": measured / promised,
            "static_ms": float(took["static"].mean()),
            "dynamic_ms": float(took["dynamic"].mean()),
            "promised_static_ms": told["static"],
            "promised_dynamic_ms": told["dynamic"],
        }
    return made


def _effort(quick: bool) -> list[tuple[int, int]]:
    """Calls and rounds at each batch size."""
    return [(4, 1) if quick else (CALLS[size], ROUNDS) for size in BATCHES]


@torch.no_grad()
def promise(trained: Trained, policy: da.Policy, part: Part, book: LatencyBook, device: str, seed: int) -> float:
    """Predicted milliseconds an input."""
    tables = score_tables(trained.network, part, (policy.setting,))
    return score(tables, trained.costs, book, policy, seed=seed).metrics[f"latency_ms@{device}"]
