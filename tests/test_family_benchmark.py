"""The benchmark of the families: what it compares, what it keeps, and what it says of numbers made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dynarch import FAMILIES, Architecture, LayerSkipping, Policy, Signature
from dynarch.benchmarks.families import Benchmark, Settings, parse
from dynarch.benchmarks.mechanisms.sources import EMBEDDED
from dynarch.benchmarks.mechanisms.subjects import QUICK_SIZES, narrowed, subjects
from dynarch.benchmarks.mechanisms.training import Examiner, Trained, chosen, work_book
from dynarch.benchmarks.mechanisms.verdicts import beats, really_faster, spread, verdict_table, verdicts
from dynarch.benchmarks.rows import Rows
from dynarch.evaluators.operating import OperatingPoint
from dynarch.evaluators.score_table import ScoreTable, ScoreTables, record
from dynarch.evaluators.splits import Part
from dynarch.evaluators.testing import small_architecture
from dynarch.hardware.inventory import costs_of
from dynarch.spaces.backbone import outline
from dynarch.spaces.space import build

SIGNATURE = Signature((1, 8, 8), 10)
SETTINGS = Settings(100, 50, 1, True)


# -- what is compared ------------------------------------------------------------------------------------------


def test_every_registered_family_is_a_subject_or_is_named_as_none() -> None:
    found = dict(subjects((), EMBEDDED, {"digits": SIGNATURE}, QUICK_SIZES))
    assert list(found) == [kind.name for kind in FAMILIES]
    for name, subject in found.items():
        if subject is not None:
            static, dynamic = subject.static(SIGNATURE), subject.dynamic(SIGNATURE)
            assert name in dynamic.families
            assert static.families == {}
            assert (static.backbone, static.training) == (dynamic.backbone, dynamic.training)
    assert found["layer_skipping"] is not None
    assert found["early_exit"] is not None


def test_a_narrowed_family_has_one_option_each_but_for_what_policies_choose() -> None:
    made = narrowed(LayerSkipping())
    assert (len(made.placement), len(made.gating.gate), len(made.target.target)) == (1, 1, 1)
    backbone = QUICK_SIZES[0].build(QUICK_SIZES[0].extremes()[0], SIGNATURE).eval()
    assert made.size(outline(backbone, SIGNATURE)) == 1


def test_the_cheapest_point_that_is_good_enough_is_chosen() -> None:
    points = [point(0.80, 1.0), point(0.90, 2.0), point(0.95, 3.0)]
    assert chosen(points, 0.85, "macs") is points[1]
    assert chosen(points, 0.99, "macs") is points[2]  # none is: the most accurate one


def point(accuracy: float, macs: float) -> OperatingPoint:
    return OperatingPoint(Policy("max_prob", (0.5,)), {"accuracy": accuracy, "macs": macs}, (0.5, 0.5))


def test_random_exits_are_an_expectation() -> None:
    """Shares times the accuracies of the exits, as who leaves where has nothing to do with the input."""
    architecture = small_architecture()
    network = build(architecture, Signature((1, 8, 8), 3)).eval()
    x, y = torch.randn(30, 1, 8, 8), torch.arange(30) % 3
    tables = ScoreTables((ScoreTable({}, np.zeros((1, 3), dtype=np.int64), np.zeros(1, dtype=np.int64)),))
    trained = Trained(network, costs_of(network), tables)
    made = OperatingPoint(Policy("max_prob", (0.5, 0.5)), {}, (0.25, 0.25, 0.5))
    exits = [float((each.argmax(1) == y).double().mean()) for each in record(network, x).logits]
    expected = 0.25 * exits[0] + 0.25 * exits[1] + 0.5 * exits[2]
    assert Examiner(trained, Part(x, y), work_book([trained.costs]), 0).by_chance(made) == pytest.approx(expected)


def test_latencies_of_the_training_phase_are_work() -> None:
    costs = costs_of(build(small_architecture(), Signature((1, 8, 8), 3)).eval())
    _, pages = work_book([costs]).first
    running = np.array([part.kind != "compact" for part in costs.parts])  # one input is never compacted
    assert pages.part_ms(costs)[running] == pytest.approx(np.maximum(costs.macs, 1)[running] * 1e-6)


# -- what is kept ----------------------------------------------------------------------------------------------


def test_rows_of_other_settings_and_half_lines_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    name = {"phase": "train", "family": "a", "source": "digits", "backbone": "residual", "seed": 0}
    Rows(file, vars(SETTINGS)).add(name)
    Rows(file, vars(Settings(200, 50, 1, True))).add({**name, "family": "b"})
    with file.open("a") as stream:
        stream.write(json.dumps(name)[:20])
    kept = Rows(file, vars(SETTINGS))
    assert [row["family"] for row in kept.rows] == ["a"]
    assert kept.where(name) == kept.rows
    assert kept.where({**name, "seed": 1}) == []


def test_an_unknown_family_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["train", "--families", "early_exit,nonsense"])
    assert "no such family: nonsense; there are layer_skipping" in capsys.readouterr().err


def test_both_phases_run_and_nothing_is_made_twice(tmp_path: Path) -> None:
    options = ["--quick", "--families", "layer_skipping", "--storage", str(tmp_path)]
    options += ["--count", "420", "--test", "60", "--epochs", "1"]
    said = Console(record=True, width=130, file=(tmp_path / "out").open("w"))
    Benchmark(parse(["time", *options]), said).time()
    assert "SKIPPED: layer_skipping, seed 0: not trained yet" in said.export_text()
    for _ in range(2):
        Benchmark(parse(["train", *options]), said).train()
        Benchmark(parse(["time", *options]), said).time()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["phase"], row["family"]) for row in rows] == [
        ("train", "static"),
        ("train", "layer_skipping"),
        ("time", "layer_skipping"),
    ]
    static, trained, timed = rows
    assert trained["static"]["accuracy"] == static["accuracy"]
    best = trained["points"][trained["chosen"]]
    assert trained["saved"] == pytest.approx(1 - best["macs"] / static["macs"])
    assert trained["gain"] is None or trained["gain"] == pytest.approx(best["accuracy"] - best["random_accuracy"])
    assert Architecture.from_mapping(trained["architecture"]).families.keys() == {"layer_skipping"}
    for batch in ("batch 1", "batch 32"):
        speed = timed[batch]
        assert speed["promised"] == pytest.approx(speed["promised_static_ms"] / speed["promised_dynamic_ms"])
        assert speed["measured"] == pytest.approx(speed["static_ms"] / speed["dynamic_ms"])
        assert speed["kept"] == pytest.approx(speed["measured"] / speed["promised"])


# -- what is said ----------------------------------------------------------------------------------------------


def test_spreads_by_hand() -> None:
    # Mean 2, sample deviation 1.
    assert spread([1, 2, 3]) == "2.0 ± 1.0"
    assert spread([0.5], scale=100) == "50.0"
    assert spread([]) == "-"


def test_two_standard_errors_are_sure() -> None:
    # Mean 2, deviation 1, so a standard error of 1 / sqrt(3) = 0.58; then 1 against 2 / sqrt(3), and -1.5 against
    # 0.71 / sqrt(2).
    assert beats([0.01, 0.02, 0.03]) == (True, "+2.00 points")
    assert beats([-0.01, 0.01, 0.03]) == (True, "+1.00 points, within the noise of the seeds")
    assert beats([-0.01, -0.02]) == (False, "-1.50 points")


def timing(measured: float, promised: float, *, accuracy: float = 0.9, static: float = 0.905) -> dict[str, Any]:
    speed = {"measured": measured, "promised": promised, "kept": measured / promised}
    name = {"phase": "time", "family": "early_exit", "seed": 0}
    return {**name, "accuracy": accuracy, "static_accuracy": static, "batch 1": speed, "batch 32": speed}


@pytest.mark.parametrize(
    ("rows", "faster"),
    [
        ([timing(1.2, 1.0)], True),
        ([timing(0.9, 1.0), timing(1.2, 1.0)], True),  # 1.05 on average
        ([timing(0.9, 1.0)], False),
        ([timing(1.2, 1.0, static=0.92)], False),  # two points lost
    ],
)
def test_faster_means_on_average_and_within_a_point(rows: list[Mapping[str, Any]], faster: bool) -> None:
    assert really_faster(rows) is faster


def test_every_target_is_met_or_missed() -> None:
    name = {"phase": "train", "family": "early_exit", "seed": 0, "source": "digits", "summary": "s", "saved": 0.4}
    row = {**name, "static": {"accuracy": 0.905}, "accuracy": 0.9, "gain": 0.02, "mean_gain": 0.03}
    rows = [row, timing(1.2, 1.5)]
    assert list(verdicts(rows)) == [
        "met: early_exit: learned against random decisions at equal rates +3.00 points, within the noise of the seeds",
        "MISSED: early_exit: measured / promised 0.80 at batch 1, at least 0.9",
        "MISSED: early_exit: measured / promised 0.80 at batch 32, at least 0.9",
        "MISSED: faster than static at batch 1 within a point: 1 of 1 families timed (early_exit), at least 8",
    ]
    assert verdict_table(rows).row_count == 1
