"""The summary by hand: rows of the report, work saved, random gates, hypervolume and its reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dynarch.evaluators.operating import OperatingPoint
from dynarch.hardware.book import DevicePages, LatencyBook
from dynarch.hardware.composition import PartCurve
from dynarch.hardware.correction import IDENTITY
from dynarch.hardware.drift import Shift
from dynarch.hardware.inventory import Costs
from dynarch.search.ledger import Ledger, NewPoint
from dynarch.search.machine import drift_notes
from dynarch.search.outcome import Scored
from dynarch.search.problem import Constraint, Problem
from dynarch.search.report_rows import FrontReport, ReportRow, wilson
from dynarch.search.summary import Examined, Progress, build_report, history_of, reference_of
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.policy import Policy
from dynarch.spaces.trace import PartInfo
from dynarch.tests.inline_searches import ID, quick_folder, small_problem

RECIPE = {
    "learning_rate": 0.02,
    "weight_decay": 0.01,
    "label_smoothing": 0.0,
    "batch_size": 16,
    "shift": 0,
    "flip": False,
}
EXITS = {"early_exit": {"positions": [0], "heads": ["linear"], "objective": "equal"}}


def architecture(width: int, *, exits: bool) -> Architecture:
    return Architecture.of(
        backbone={"name": "residual", "width": width, "depths": [1, 1, 1]},
        families=EXITS if exits else {},
        training=RECIPE,
    )


# 0: the static network of width 4. 1: the same with an exit. 2: width 2 with an exit, whose static one was not tried.
CANDIDATES = (architecture(4, exits=False), architecture(4, exits=True), architecture(2, exits=True))


def point(
    accuracy: float, latency_ms: float, *, macs: float = 1.0, shares: tuple[float, ...], policy: Policy
) -> OperatingPoint:
    metrics = {
        "accuracy": accuracy,
        "macs": macs,
        "parameters": 9.0,
        "latency_ms@cpu": latency_ms,
        "latency_p95_ms@cpu": 1.5 * latency_ms,
        "latency_worst_ms@cpu": 2 * latency_ms,
    }
    return OperatingPoint(policy, metrics, shares)


SOME = Policy("max_prob", (0.8,))
NEVER, ALL = Policy.never(1), Policy.single(1, 0)


def scored(
    number: int, made: OperatingPoint, *, exit_accuracy: tuple[float, ...], whole: float, timed: bool = True
) -> Scored:
    """On 200 test inputs."""
    measured = {"cpu": {"latency_ms": 1.1 * made.metrics["latency_ms@cpu"], "latency_p95_ms": 7.0, "calls": 100.0}}
    right = round(made.metrics["accuracy"] * 200)
    return Scored(number, made, right, 200, exit_accuracy, whole, measured if timed else {})


FRONT = {
    # Half leave at an exit that is right for 60 % of all inputs, half go to a head that is right for 90 %.
    (1, 0): scored(1, point(0.85, 3.0, macs=600, shares=(0.5, 0.5), policy=SOME), exit_accuracy=(0.6, 0.9), whole=1020),
    # Everybody takes the same path, so nothing is decided.
    (1, 1): scored(1, point(0.6, 2.0, macs=300, shares=(1.0, 0.0), policy=ALL), exit_accuracy=(0.6, 0.9), whole=1020),
    (2, 0): scored(2, point(0.5, 1.0, macs=50, shares=(0.25, 0.75), policy=SOME), exit_accuracy=(0.4, 0.5), whole=200),
}
STATIC = scored(
    0, point(0.92, 5.0, macs=1000, shares=(1.0,), policy=Policy.never(0)), exit_accuracy=(0.92,), whole=1000
)
SINGLE = scored(2, point(0.4, 0.5, macs=40, shares=(1.0, 0.0), policy=ALL), exit_accuracy=(0.4, 0.5), whole=200)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with quick_folder() as folder, Ledger.open(f"sqlite:///{folder / 'l.db'}") as opened:
        opened.create_search(ID, name="small", spec={}, seed=0, created_at=1.0)
        for number, made in enumerate(CANDIDATES):
            opened.propose(
                ID,
                number=number,
                architecture_id=made.id,
                architecture=made.to_mapping(),
                params={},
                level=1.0,
                seed=0,
                fidelity=4,
                evaluator="tabular",
                created_at=1.0,
            )
        yield opened


def finish(
    ledger: Ledger, number: int, at: float, *pairs: tuple[float, float], exit_accuracy: tuple[float, ...] = ()
) -> None:
    points = [
        NewPoint(
            NEVER.to_dict(),
            {"metrics": {"accuracy": a, "latency_ms@cpu": ms, "macs": 1.0}, "certify_accuracy": a},
        )
        for a, ms in pairs
    ]
    ledger.finish(
        ID,
        number,
        state="finished",
        finished_at=at,
        epochs_done=4,
        seconds=1.0,
        points=points,
        metrics={"exit_accuracy": list(exit_accuracy)},
    )


def report_of(ledger: Ledger, *, problem: Problem | None = None) -> FrontReport:
    finish(ledger, 0, 30.0, (0.93, 5.0), exit_accuracy=(0.93,))
    finish(ledger, 1, 20.0, (0.86, 3.0), (0.61, 2.0), exit_accuracy=(0.61, 0.91))
    finish(ledger, 2, 10.0, (0.55, 1.0), exit_accuracy=(0.45, 0.52))
    ledger.set_hypervolume_reference(ID, (0.0, 10.0))
    examined = Examined(FRONT, frozenset({(1, 0), (2, 0)}), [STATIC], [SINGLE])
    return build_report(problem or small_problem(), ledger, ID, examined, seconds=90.0, notes=["why"], shifts={})


def rows_of(report: FrontReport) -> dict[str, ReportRow]:
    return {row.label: row for row in report.rows}


def test_the_rows_of_a_report(ledger: Ledger) -> None:
    rows = rows_of(report_of(ledger))
    assert {label: (row.kind, row.front) for label, row in rows.items()} == {
        "1.0": ("dynamic", True),
        "1.0 random": ("random_exit", False),
        "1.1": ("single_exit", False),
        "2.0": ("dynamic", True),
        "2.0 random": ("random_exit", False),
        "0 static": ("static", False),
        "2 exit 0": ("single_exit", False),
    }
    assert len(rows) == 7


def test_a_dynamic_row_by_hand(ledger: Ledger) -> None:
    row = rows_of(report_of(ledger))["1.0"]
    assert row.accuracy == 170 / 200
    assert (row.accuracy_low, row.accuracy_high) == wilson(170, 200)
    assert row.tune_accuracy == 0.86
    assert (row.latency_ms, row.latency_p95_ms) == (3.0, 4.5)
    assert (row.measured_ms, row.measured_p95_ms) == pytest.approx((3.3, 7.0))
    assert (row.macs, row.exit_share) == (600, (0.5, 0.5))
    assert row.work_saved == pytest.approx(1 - 600 / 1000)  # of the static network of the same backbone
    assert (row.number, row.architecture_id, row.backbone, row.families) == (
        1,
        CANDIDATES[1].id,
        "residual",
        ("early_exit",),
    )
    assert row.summary == "residual w4 d1-1-1, exits 0 linear equal"
    assert row.policy == "max_prob 0.8"


def test_work_saved_without_a_static_twin_is_of_the_network_run_whole(ledger: Ledger) -> None:
    rows = rows_of(report_of(ledger))
    assert rows["2.0"].work_saved == pytest.approx(1 - 50 / 200)
    assert rows["2 exit 0"].work_saved == pytest.approx(1 - 40 / 200)
    assert rows["0 static"].work_saved == 0


def test_a_random_gate_is_right_at_the_shares_of_its_exits(ledger: Ledger) -> None:
    """0.5 * 0.6 + 0.5 * 0.9 = 0.75, and 0.25 * 0.4 + 0.75 * 0.5 = 0.475: 150 and 95 of 200."""
    report = report_of(ledger)
    rows = rows_of(report)
    for label, accuracy, right in (("1.0 random", 0.75, 150), ("2.0 random", 0.475, 95)):
        row, own = rows[label], rows[label.removesuffix(" random")]
        assert row.accuracy == pytest.approx(accuracy)
        assert (row.accuracy_low, row.accuracy_high) == wilson(right, 200)
        assert (row.latency_ms, row.macs, row.exit_share) == (own.latency_ms, own.macs, own.exit_share)
        assert (row.measured_ms, row.measured_p95_ms) == (None, None)
        assert row.policy == "same rates, drawn at random"
    assert report.against_random == (2, 2)


def test_baselines_by_hand(ledger: Ledger) -> None:
    rows = rows_of(report_of(ledger))
    static = rows["0 static"]
    assert (static.accuracy, static.tune_accuracy, static.latency_ms, static.macs) == (0.92, 0.93, 5.0, 1000)
    assert (static.families, static.policy, static.summary) == ((), "full network", "residual w4 d1-1-1")
    assert static.measured_ms == pytest.approx(5.5)
    single = rows["2 exit 0"]
    assert (single.accuracy, single.tune_accuracy, single.latency_ms) == (0.4, 0.45, 0.5)
    assert (single.policy, single.exit_share) == ("max_prob all", (1.0, 0.0))


def test_a_static_member_of_the_front_is_listed_once_and_marked(ledger: Ledger) -> None:
    finish(ledger, 0, 1.0, (0.93, 5.0), exit_accuracy=(0.93,))
    examined = Examined({(0, 0): STATIC}, frozenset({(0, 0)}), [STATIC], [])
    report = build_report(small_problem(), ledger, ID, examined, seconds=1.0, notes=[], shifts={})
    assert [(row.label, row.kind, row.front) for row in report.rows] == [("0 static", "static", True)]


def test_what_was_not_timed_has_no_measured_latency(ledger: Ledger) -> None:
    finish(ledger, 1, 1.0, (0.86, 3.0), exit_accuracy=(0.6, 0.9))
    examined = Examined({(1, 0): replace(FRONT[1, 0], measured={})}, frozenset(), [], [])
    report = build_report(small_problem(), ledger, ID, examined, seconds=1.0, notes=[], shifts={})
    assert [(row.measured_ms, row.measured_p95_ms) for row in report.rows] == [(None, None)] * 2
    assert report.latency_error is None


def test_the_head_of_a_report(ledger: Ledger) -> None:
    report = report_of(ledger)
    assert (report.search_id, report.name, report.seconds, report.notes) == (ID, "small", 90.0, ("why",))
    assert (report.finished, report.stopped, report.failed, report.epochs_spent) == (3, 0, 0, 12.0)
    assert report.objectives == (("accuracy", "maximize", "fraction"), ("latency_ms@cpu", "minimize", "ms"))
    # All rows that were timed took 1.1 times what was predicted: |1/1.1 - 1| off.
    assert report.latency_error == pytest.approx(0.1 / 1.1)
    assert report.machine is None, "nothing is known of it"


def test_a_report_tells_a_changed_machine_from_a_wrong_prediction(ledger: Ledger) -> None:
    finish(ledger, 1, 1.0, (0.86, 3.0), exit_accuracy=(0.6, 0.9))
    examined = Examined({(1, 0): FRONT[1, 0]}, frozenset(), [], [])
    shifts = {"cpu": Shift(0.125, 0.05), "other": Shift(-0.25, 0.05), "steady": Shift(0.01, 0.05)}
    report = build_report(small_problem(), ledger, ID, examined, seconds=1.0, notes=[], shifts=shifts)
    assert report.machine == shifts["cpu"]
    assert report.headline.endswith(" on average · the machine ran 12.5 % slower than when the table was measured")
    notes = drift_notes(shifts)
    assert [note.partition(":")[0] for note in notes] == ["Drift on cpu", "Drift on other"]
    assert "25.0 % faster than when the table was measured. Measured latencies differ from predicted" in notes[1]


# -- hypervolume ----------------------------------------------------------------------------------------------


def test_hypervolume_by_hand(ledger: Ledger) -> None:
    """Reference: nothing right, 10 ms; the box up to all right in no time is 10 in size.

    Candidate 2 first: (0.55, 1): 0.55 * 9 = 4.95. Then 1: (0.86, 3) adds 0.31 * 7 = 2.17 and (0.61, 2) another
    0.06 * 1 more, 7.18 in all. Then 0: (0.93, 5) adds 0.07 * 5 = 0.35.
    """
    report = report_of(ledger)
    assert [done for done, _ in report.hypervolume_history] == [1, 2, 3]
    assert [share for _, share in report.hypervolume_history] == pytest.approx([0.495, 0.718, 0.753])
    assert report.hypervolume == pytest.approx(0.753)
    assert history_of(small_problem(), ledger, ID, (0.0, 10.0)) == list(report.hypervolume_history)


def test_what_breaks_a_hard_constraint_adds_nothing() -> None:
    progress = Progress(small_problem(constraints=(Constraint("latency_ms", maximum=4.0),)), (0.0, 10.0))
    assert progress.add([{"accuracy": 0.9, "latency_ms@cpu": 5.0}]) == (0.0, 0)
    assert progress.add([{"accuracy": 0.5, "latency_ms@cpu": 2.0}]) == pytest.approx((0.4, 1))
    # Dominated, equal, and beyond the reference: none of these adds anything.
    assert progress.add([{"accuracy": 0.4, "latency_ms@cpu": 3.0}]) == pytest.approx((0.4, 1))
    assert progress.add([]) == pytest.approx((0.4, 1))


def test_those_that_ended_without_points_count_too(ledger: Ledger) -> None:
    ledger.finish(ID, 0, state="failed", finished_at=1.0, epochs_done=0, seconds=0.0, cause="x")
    ledger.finish(ID, 1, state="stopped", finished_at=2.0, epochs_done=1, seconds=0.0, cause="y")
    finish(ledger, 2, 3.0, (0.5, 5.0))
    assert history_of(small_problem(), ledger, ID, (0.0, 10.0)) == [(1, 0.0), (2, 0.0), (3, pytest.approx(0.25))]


# -- reference ------------------------------------------------------------------------------------------------

SMALL = Costs((PartInfo("segment.0", "segment", 0),), ("a",), (100,), 900)
LARGE = Costs(
    (PartInfo("segment.0", "segment", 0), PartInfo("exit.0", "exit", 0, 0), PartInfo("segment.1", "segment", 1)),
    ("a", "h", "b"),
    (100, 10, 300),
    500,
)


def test_the_reference_is_a_tenth_beyond_the_dearest_network() -> None:
    """The larger takes 1 + 3 ms; the smaller has more weights."""
    curves = {key: PartCurve((1,), (ms,), key) for key, ms in (("a", 1.0), ("h", 0.5), ("b", 3.0))}
    book = LatencyBook({"cpu": DevicePages(1, "e", "v", IDENTITY, curves)})
    problem = replace(small_problem(), objectives=("accuracy", "latency_ms", "latency_worst_ms", "macs", "parameters"))
    assert reference_of(problem, [SMALL, LARGE], book) == pytest.approx((0.0, 4.4, 4.4, 451.0, 990.0))
    assert all(math.isfinite(value) for value in reference_of(problem, [SMALL], book))
