"""The parts of the benchmark scripts that compute, by hand-made files and hand-calculated ratios."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynarch import Architecture, Cpu, Policy, Recipe, Signature, build
from dynarch.benchmarks import fashion_mnist as bench
from dynarch.search.report import FrontReport, ReportRow, write_report
from dynarch.spaces.errors import SpecError
from dynarch.spaces.network import RoutedNetwork
from dynarch.spaces.scope import Chance, Scope

ROW = ReportRow(
    label="1.0",
    kind="dynamic",
    number=1,
    architecture_id="a",
    backbone="residual",
    families=("early_exit",),
    summary="residual w8",
    policy="max_prob 0.9",
    front=True,
    accuracy=0.9,
    accuracy_low=0.85,
    accuracy_high=0.95,
    tune_accuracy=0.9,
    latency_ms=1.0,
    latency_p95_ms=1.5,
    measured_ms=None,
    measured_p95_ms=None,
    macs=1e6,
    work_saved=0.5,
    exit_share=(0.5, 0.5),
)


def row(label: str, accuracy: float, ms: float, measured: float | None = None, *, static: bool = False) -> ReportRow:
    low, high = accuracy - 0.01, accuracy + 0.01
    made = replace(ROW, label=label, accuracy=accuracy, accuracy_low=low, accuracy_high=high)
    made = replace(made, latency_ms=ms, measured_ms=measured)
    return replace(made, kind="static", exit_share=(1.0,), front=False) if static else made


def report(*rows: ReportRow) -> FrontReport:
    return FrontReport("s", "name", "cpu", (), rows, 1, 0, 0, None, (), 1.0, 1.0)


def write_idx(file: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """As the format's author describes it: 0, 0, type 8, rank, sizes as big-endian 32-bit integers, then bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(header + array.tobytes()))


def folder_of(folder: Path, count: int = 30) -> Path:
    images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
    labels = (np.arange(count) % 3).astype(np.uint8)
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


# -- data ------------------------------------------------------------------------------------------------------


def test_the_official_test_set_is_the_test_split(tmp_path: Path) -> None:
    data = bench.read_data(folder_of(tmp_path), 12, seed=0)
    assert data.x.shape == (12, 1, 2, 2)
    assert data.x_test is not None
    assert data.x_test.shape == (30, 1, 2, 2)
    # The first test image holds the bytes 0, 1, 2, 3; pixels are shares of 255.
    np.testing.assert_allclose(data.x_test[0, 0], [[0, 1 / 255], [2 / 255, 3 / 255]], rtol=1e-6)
    # Image k begins with byte 4 k and has label k mod 3, so a shuffled pair must still say the same.
    np.testing.assert_array_equal(np.round(data.x[:, 0, 0, 0] * 255) / 4 % 3, data.y)


@pytest.mark.parametrize("count", [0, 31])
def test_no_more_images_than_there_are(tmp_path: Path, count: int) -> None:
    with pytest.raises(SpecError, match="between 1 and 30"):
        bench.read_data(folder_of(tmp_path), count, seed=0)


# -- comparison ------------------------------------------------------------------------------------------------


def test_a_ratio_of_means_by_hand() -> None:
    # Means 4 and 2. A ratio of medians would be 4, a mean of ratios 7.5 / 3.
    static, dynamic = np.array([2.0, 4.0, 6.0]), np.array([1.0, 1.0, 4.0])
    assert bench.speedup(static, dynamic, seed=0)[0] == 2.0


def test_inputs_are_drawn_in_pairs() -> None:
    # Three times as slow on each input: every sample of inputs says 3, so the interval has no width.
    dynamic = np.random.default_rng(0).uniform(1, 9, size=50)
    assert bench.speedup(3 * dynamic, dynamic, seed=0) == pytest.approx((3, 3, 3))


def test_the_interval_is_that_of_the_bootstrap_distribution() -> None:
    # Two inputs with ratios 1 and 3 and equal denominators: a sample gives 1, 2 or 3 with chances 1/4, 1/2, 1/4,
    # so the 2.5 % and 97.5 % quantiles are 1 and 3.
    assert bench.speedup(np.array([1.0, 3.0]), np.ones(2), seed=0) == (2.0, 1.0, 3.0)


FRONT = (row("1.0", 0.80, 1.0), row("1.1", 0.90, 2.0), row("2.0", 0.91, 3.0, 1.5), row("2.1", 0.93, 4.0))


@pytest.mark.parametrize(
    ("accuracy", "label", "reached"),
    [
        (0.70, "1.0", True),
        (0.80, "1.0", True),  # equal is enough
        (0.85, "2.0", True),  # measured 1.5 ms goes before predicted 2 and 3
        (0.92, "2.1", True),
        (0.94, "2.1", False),  # nothing is as accurate: the most accurate one
    ],
)
def test_the_partner_is_the_fastest_that_is_as_accurate(accuracy: float, label: str, reached: bool) -> None:
    made = bench.pair(row("0 static", accuracy, 9.0, static=True), FRONT)
    assert (made.dynamic.label, made.reached) == (label, reached)


def test_a_network_with_one_path_is_static() -> None:
    whole = replace(row("3.0", 0.95, 1.0), exit_share=(0.0, 1.0))
    first = replace(row("3.1", 0.5, 0.1), exit_share=(1.0, 0.0))
    statics = row("4 static", 0.6, 1.0, static=True), row("5 static", 0.7, 2.0, static=True)
    dynamic, static = bench.by_paths(report(*FRONT, whole, first, *statics))
    assert {each.label for each in dynamic} == {"1.0", "1.1", "2.0", "2.1"}
    assert [each.label for each in static] == ["5 static", "4 static", "3.0"]


def test_unbeaten_rows_by_hand() -> None:
    # b is slower than a and no better; c is slower and better; d equals c in accuracy and is slower.
    rows = [row("d", 0.9, 4.0), row("a", 0.8, 1.0), row("c", 0.9, 3.0), row("b", 0.8, 2.0)]
    assert [each.label for each in bench.unbeaten(rows)] == ["c", "a"]


def test_latency_error_by_hand() -> None:
    # |1 - 2| = 1 and 1/2 of it, |3 - 2.5| = 0.5 and 1/5 of it; the third was never timed.
    error = bench.latency_error((row("a", 0.9, 1.0, 2.0), row("b", 0.9, 3.0, 2.5), row("c", 0.9, 7.0)))
    assert error == pytest.approx({"ms": 0.75, "share": 0.35, "points": 2})


@pytest.mark.parametrize("batch", [1, 3])
def test_every_network_is_timed_on_every_batch_in_every_round(batch: int) -> None:
    signature = Signature((1, 8, 8), 3)
    scope = Scope(Chance(np.random.default_rng(0)))
    backbone = {"name": "residual", "width": 2, "depths": [1]}
    architecture = Architecture.of(
        backbone=backbone, families={}, training=Recipe().suggest(scope, exits=False).to_mapping()
    )
    x = torch.rand(12, 1, 8, 8)
    seen: dict[str, list[Tensor]] = {"a": [], "b": []}
    networks = {label: RoutedNetwork(build(architecture, signature), Policy.never(0)) for label in seen}
    for label, network in networks.items():  # a hook is shared with the copy that is timed
        network.register_forward_pre_hook(lambda module, args, label=label: seen[label].append(args[0]))
    times = bench.time_networks(networks, x, Cpu(batch=batch), calls=4, rounds=2, seed=0)
    assert {label: values.shape for label, values in times.items()} == {"a": (4,), "b": (4,)}
    assert all((values > 0).all() and np.isfinite(values).all() for values in times.values())
    counts = {label: Counter(each.numpy().tobytes() for each in inputs) for label, inputs in seen.items()}
    assert set(counts["a"]) == set(counts["b"])
    assert len(counts["a"]) == 4  # 4 x 3 = 12 inputs are enough for four different batches
    assert min(min(count.values()) for count in counts.values()) >= 2  # once a round, and warm-up calls
    assert {each.shape[0] for inputs in seen.values() for each in inputs} == {batch}


# -- report ----------------------------------------------------------------------------------------------------


def test_a_written_report_is_read_as_it_was(tmp_path: Path) -> None:
    made = report(*FRONT, row("4 static", 0.6, 1.0, static=True))
    made = replace(made, notes=("one", "two"), hypervolume_history=((1, 0.5), (2, 0.75)), hypervolume=0.75)
    assert bench.read_report(write_report(made, tmp_path)["report.json"]) == made


def test_the_headline_tells_a_miss_from_a_match() -> None:
    timed = {"1": {"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "static_ms": 3.0, "dynamic_ms": 2.0}}
    for accuracy, word in ((0.91, "matched by 2.0"), (0.99, "no dynamic point")):
        made = bench.pair(row("0 static", accuracy, 9.0, static=True), FRONT)
        entry = {**asdict(made), "batch": timed}
        assert word in bench.headline(entry)
        assert "1.50 [1.40, 1.60]" in bench.headline(entry)
        bench.comparison_table([entry])
