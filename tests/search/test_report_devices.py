"""Reports of several devices: columns for each, a table for other tools, and nothing lost on the way to disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dynarch.search.report import front_csv, front_records, read_report, write_report
from dynarch.tests.test_front_page import FRONT, REPORT


def test_the_csv_has_columns_for_every_further_device(tmp_path: Path) -> None:
    front_csv(REPORT, tmp_path / "front.csv")
    with (tmp_path / "front.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    times = ("latency_ms@phone", "latency_p95_ms@phone", "measured_ms@phone", "measured_p95_ms@phone")
    assert tuple(lines[0])[-4:] == times
    assert [float(lines[1][name]) for name in times] == [10.0, 20.0, 11.0, 22.0]


def test_a_table_for_other_tools_has_a_row_a_point() -> None:
    table = front_records(REPORT)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["point"] for row in rows[:3]] == ["17.0", "17.1", "17.3"]
    assert len(rows) == len(REPORT.rows)
    assert rows[1]["measured_p95_ms@cpu"] == 2.5
    assert rows[1]["latency_ms@phone"] == 10.0
    assert json.loads(json.dumps(table)) == table


def test_a_report_comes_back_from_disk(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    assert read_report(tmp_path) == REPORT


def test_a_report_of_an_earlier_version_has_one_device(tmp_path: Path) -> None:
    file = write_report(REPORT, tmp_path)["report.json"]
    content = json.loads(file.read_text())
    del content["devices"]
    for row in content["rows"]:
        del row["elsewhere"]
    file.write_text(json.dumps(content))
    assert read_report(tmp_path).rows[0].elsewhere == ()


def test_latencies_on_a_device() -> None:
    assert FRONT[0].on(None).measured_ms == 0.625
    assert FRONT[0].on("phone").latency_ms == 5.0
    with pytest.raises(KeyError):
        FRONT[0].on("tablet")
