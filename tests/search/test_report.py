"""Reports of a front: nothing dropped from a table, nothing executed from a name, whole files or none."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dynarch.search.plots import front_html
from dynarch.search.report import (
    FrontReport,
    ReportRow,
    front_csv,
    front_markdown,
    front_png,
    front_table,
    wilson,
    write_report,
)
from dynarch.search.report_rows import milliseconds, printable
from dynarch.spaces.errors import StoreError

HOSTILE = "</script><img src=x onerror=alert(1)> [bold]$\\frac{$ %{x} \x1b[31m a|b"


def row(label: str, latency_ms: float = 1.0, accuracy: float = 0.75, measured_ms: float | None = None) -> ReportRow:
    return ReportRow(
        label=label,
        kind="dynamic",
        number=17,
        architecture_id="3f9a1c77d20be451",
        backbone="residual",
        families=("early_exit", "layer_skip"),
        summary="residual w16 d2-2-2, exits after 1, 3, and a gate before each of the last four blocks",
        policy="max_prob .91 .72",
        front=True,
        accuracy=accuracy,
        accuracy_low=accuracy - 0.01,
        accuracy_high=accuracy + 0.01,
        tune_accuracy=accuracy,
        latency_ms=latency_ms,
        latency_p95_ms=2 * latency_ms,
        measured_ms=measured_ms,
        measured_p95_ms=None if measured_ms is None else 2 * measured_ms,
        macs=1e6,
        work_saved=0.5,
        exit_share=(0.5, 0.25, 0.25),
    )


FRONT = (row("17.3", 1.5, 0.875, 1.2), row("4.0", 0.5, 0.75, 0.625), row("17.1", 1.0, 0.8125, None))
BASELINES = (
    replace(row("w16", 2.0, 0.9375), kind="static", work_saved=None, exit_share=()),
    replace(row("17@1", 0.75), kind="single_exit", front=False),
    replace(row("17~", 0.875), kind="random_exit", front=False),
)
OTHERS = (replace(row("2.0", 1234.5, 0.5), front=False),)

REPORT = FrontReport(
    search_id="a1b2",
    name="digits",
    device="cpu, 1 thread",
    objectives=(("accuracy", "maximize", "fraction"), ("latency_ms", "minimize", "ms")),
    rows=(*OTHERS, *FRONT, *BASELINES),
    finished=41,
    stopped=17,
    failed=2,
    hypervolume=0.8125,
    hypervolume_history=((1, 0.5), (2, 0.8125)),
    epochs_spent=812,
    seconds=3720.0,
    notes=("stopped: 60 candidates asked",),
)
EMPTY = replace(REPORT, rows=(), hypervolume=None, hypervolume_history=(), finished=0, failed=60)


def rendered(report: FrontReport, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(front_table(report, width))
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),  # nothing seen, nothing known
        (0, 10, 0.0, 0.2775328),  # high = z²/(n + z²) = 3.8414588/13.8414588
        (10, 10, 0.7224672, 1.0),  # the mirror image
        (5, 10, 0.2365931, 0.7634069),  # 1/2 ± z/(2·sqrt(n + z²)) = 1/2 ± 1.9599640/(2·3.7204111)
    ],
)
def test_wilson_interval(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(sample: tuple[int, int]) -> None:
    correct, n = sample
    low, high = wilson(correct, n)
    assert 0.0 <= low <= correct / n <= high <= 1.0
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


def test_latency_error_is_relative_to_what_was_measured() -> None:
    # rows timed again: 1.5 for 1.2 (0.25 off), 0.5 for 0.625 (0.2 off); the others do not count
    assert REPORT.latency_error == pytest.approx(0.225)
    assert EMPTY.latency_error is None


def test_rows_fall_into_front_baselines_and_others() -> None:
    assert [r.label for r in REPORT.front] == ["4.0", "17.1", "17.3"]  # fastest first
    assert [r.label for r in REPORT.baselines] == ["17@1", "17~", "w16"]
    assert [r.label for r in REPORT.others] == ["2.0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.00123, "0.0012"),
        (0.1234, "0.123"),
        (9.87, "9.87"),
        (45.67, "45.7"),
        (1234.5, "1234"),
    ],
)
def test_latencies_have_about_three_digits(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


def test_the_wide_table_shows_every_number_on_one_line() -> None:
    lines = rendered(REPORT, 100)
    (line,) = [line for line in lines if line.startswith("17.3")]
    for text in ("87.5 [86.5, 88.5]", "1.50 | 1.20", "3.00 | 2.40", "50%"):
        assert text in line


def test_the_narrow_table_stacks_measured_under_predicted() -> None:
    lines = rendered(REPORT, 80)
    (index,) = [index for index, line in enumerate(lines) if line.startswith("17.3")]
    assert re.findall(r"[\d.]+%?", lines[index])[-4:] == ["87.5", "1.50", "3.00", "50%"]
    assert re.findall(r"[\d.]+", lines[index + 1])[-4:] == ["86.5", "88.5", "1.20", "2.40"]


@pytest.mark.parametrize("width", [100, 80])
def test_a_row_takes_two_lines_and_no_column_is_lost(width: int) -> None:
    slow = row("12345.12345678", 54321.0, 0.98, 12345.0)
    lines = rendered(replace(REPORT, rows=(*REPORT.rows, slow)), width)
    assert max(map(len, lines)) <= width
    rule = next(index for index, line in enumerate(lines) if set(line.strip()) == {"─"})
    head = " ".join(lines[:rule])
    for word in ("point", "network", "accuracy %", "mean ms", "p95 ms", "pred", "meas", "work", "saved"):
        assert word in head
    labels = [*(r.label for r in (*REPORT.front, *REPORT.statics)), "12345.12345…"]
    starts = [index for index, line in enumerate(lines[rule:], rule) if line.startswith(tuple(labels))]
    assert len(starts) == len(labels)
    gaps = [index for index, line in enumerate(lines[rule:], rule) if not line.strip() or "cpu, 1 thread" in line]
    for start in starts:
        assert min(end for end in (*starts, *gaps) if end > start) - start <= 2
        assert all("…" not in line[-34:] for line in lines[start : start + 2])  # numbers are never cut
    assert "54321" in " ".join(lines)
    assert "12345" in " ".join(lines).replace("12345.12345…", "")


def test_the_front_stands_above_the_baselines() -> None:
    lines = rendered(REPORT, 100)
    order = [line.split()[0] for line in lines if line.startswith(("4.0", "17.1", "17.3", "17@1", "17~", "w16"))]
    # random exits have no measurement: they are in the files, and the caption counts how often they were beaten
    assert order == ["4.0", "17.1", "17.3", "17@1", "w16"]
    assert any(line.startswith("w16 *") for line in lines)  # no dynamic network beats it, and the table says so
    assert any("no dynamic one beats" in line for line in lines)


@pytest.mark.parametrize("width", [100, 80])
def test_a_front_without_members_says_so(width: int) -> None:
    text = "\n".join(rendered(EMPTY, width))
    assert "the front is empty" in text
    assert "60 failed" in text
    assert "front is empty" in front_markdown(EMPTY)
    assert "front is empty" in front_html(EMPTY)


def test_a_name_is_never_markup_or_a_control_code() -> None:
    hostile = replace(REPORT, name=HOSTILE, rows=(replace(row("1.0"), summary=HOSTILE, label=HOSTILE),))
    text = "\n".join(rendered(hostile, 100))
    assert "[bold]" in text
    assert "\x1b" not in text
    assert "<img" not in front_markdown(hostile).replace("\\<", "")
    assert printable("a\r\n\x1b b") == "a b"


def test_the_page_runs_no_script_of_a_name() -> None:
    poisoned = replace(
        REPORT,
        search_id=HOSTILE,
        name=HOSTILE,
        device=HOSTILE,
        objectives=((HOSTILE, HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
        rows=(
            replace(
                row("1.0"),
                label=HOSTILE,
                summary=HOSTILE,
                policy=HOSTILE,
                backbone=HOSTILE,
                families=(HOSTILE,),
                architecture_id=HOSTILE,
            ),
        ),
    )
    page = front_html(poisoned)
    assert "<img" not in page
    assert "\\u003cimg" not in page  # plotly would turn this back into a tag
    assert page.count("</script>") == front_html(REPORT).count("</script>")


def test_the_page_works_offline_and_shows_every_number() -> None:
    page = front_html(REPORT)
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    for text in (
        "max_prob .91 .72",
        "3f9a1c77d20be451",
        "95 %: 86.50% to 88.50%",
        "1.50 ms predicted, 1.20 measured",
    ):
        assert text in page
    assert "3.00 ms predicted, 2.40 measured" in page  # p95
    assert "50% of the work saved" in page
    for button in ("mean, predicted", "mean, measured", "p95, predicted", "p95, measured"):
        assert button in page
    predicted_only = replace(REPORT, rows=(row("1.0"),))
    assert "mean, measured" not in front_html(predicted_only)


def test_the_csv_has_a_line_a_row_and_all_fields(tmp_path: Path) -> None:
    front_csv(REPORT, tmp_path / "front.csv")
    with (tmp_path / "front.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["label"] for line in lines] == ["4.0", "17.1", "17.3", "17@1", "17~", "w16", "2.0"]
    assert list(lines[0]) == [field.name for field in fields(ReportRow) if field.name != "elsewhere"]
    assert lines[2]["measured_ms"] == "1.2"
    assert lines[1]["measured_ms"] == ""
    assert (lines[0]["front"], lines[3]["front"]) == ("true", "false")
    assert lines[0]["families"] == "early_exit layer_skip"
    assert lines[0]["exit_share"] == "0.5 0.25 0.25"


@pytest.mark.parametrize("report", [REPORT, EMPTY, replace(REPORT, name=HOSTILE, device="$ 日本 $")])
def test_the_picture_is_a_png(report: FrontReport, tmp_path: Path) -> None:
    front_png(report, tmp_path / "front.png")
    content = (tmp_path / "front.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert content[16:24] == (1350).to_bytes(4, "big") + (840).to_bytes(4, "big")  # 9 x 5.6 inches, 150 dpi


def test_a_report_is_five_files(tmp_path: Path) -> None:
    odd = replace(REPORT, hypervolume=float("nan"))
    paths = write_report(odd, tmp_path / "new" / "folder")
    assert sorted(paths) == ["front.csv", "front.html", "front.json", "front.png", "report.json"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(paths)  # no leftovers
    content = json.loads(paths["report.json"].read_text(), parse_constant=pytest.fail)
    assert content["hypervolume"] is None
    assert content["latency_error"] == pytest.approx(0.225)
    assert content["rows"][1]["exit_share"] == [0.5, 0.25, 0.25]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "front.csv"
    front_csv(EMPTY, path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        front_csv(REPORT, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["front.csv"]


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="choose another folder"):
        front_csv(REPORT, tmp_path / "taken" / "front.csv")
