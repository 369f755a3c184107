"""The page of a front in a real browser, without any network: what is drawn, what a point tells, and its devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dynarch.search.plots import front_html
from dynarch.search.report_rows import DeviceTimes, FrontReport, ReportRow
from dynarch.tests.browser import POINTS, chromium, hovered, kept_folder, page_of


def row(label: str, latency_ms: float, accuracy: float) -> ReportRow:
    return ReportRow(
        label=label,
        kind="dynamic",
        number=17,
        architecture_id="3f9a1c77d20be451",
        backbone="residual",
        families=("early_exit",),
        summary="residual w16 d2-2-2, exits after 1, 3",
        policy="max_prob 0.91 0.72",
        front=True,
        accuracy=accuracy,
        accuracy_low=accuracy - 0.02,
        accuracy_high=accuracy + 0.015,
        tune_accuracy=accuracy,
        latency_ms=latency_ms,
        latency_p95_ms=2 * latency_ms,
        measured_ms=1.25 * latency_ms,
        measured_p95_ms=2.5 * latency_ms,
        macs=1e6,
        work_saved=0.5,
        exit_share=(0.5, 0.25, 0.25),
        elsewhere=(DeviceTimes("phone", 10 * latency_ms, 20 * latency_ms, 11 * latency_ms, 22 * latency_ms),),
    )


FRONT = (row("17.0", 0.5, 0.75), row("17.1", 1.0, 0.8125), row("17.3", 1.5, 0.875))
REPORT = FrontReport(
    search_id="20260101-000000-abcd",
    name="two devices",
    device="cpu: 1 thread, batch 1; phone: 4 threads, batch 1",
    objectives=(("accuracy", "maximize", "fraction"), ("latency_ms@cpu", "minimize", "ms")),
    rows=(
        *FRONT,
        replace(row("3 static", 2.0, 0.9), kind="static", work_saved=None, exit_share=(), policy="full network"),
        replace(row("17 exit 0", 0.4, 0.7), kind="single_exit", front=False),
        replace(row("17.1 random", 1.0, 0.77), kind="random_exit", front=False, measured_ms=None),
        replace(row("2.0", 2.4, 0.6), front=False),
    ),
    finished=20,
    stopped=3,
    failed=1,
    hypervolume=0.81,
    hypervolume_history=tuple((done, 0.81 - 0.4 / done) for done in range(1, 25)),
    epochs_spent=300,
    seconds=600.0,
    notes=("Why it ended: the budget of 24 candidates is spent.",),
    devices=("cpu", "phone"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "front.html").write_text(front_html(REPORT), encoding="utf-8")
    asked: list[str] = []
    with page_of(browser, offline=True) as opened:
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((tmp_path / "front.html").as_uri())
        opened.wait_for_selector(POINTS)
        yield opened
    assert [address for address in asked if not address.startswith(("file:", "data:", "blob:"))] == []


def latencies(page: Page) -> list[float]:
    """Where the members of the front lie, as the picture has them now."""
    found = page.evaluate(
        "document.querySelector('.js-plotly-plot').data.filter(t => t.name === 'dynamic front')[0].x.slice()"
    )
    return [float(value) for value in found]


def test_every_point_is_drawn_and_static_ones_are_named(page: Page, tmp_path: Path) -> None:
    page.screenshot(path=kept_folder(tmp_path) / "front-page.png", full_page=True)
    first = page.locator(".js-plotly-plot").first
    assert first.locator("path.point").count() == len(REPORT.rows)
    legend = first.locator(".legendtext").all_text_contents()
    kinds = ["other points", "static network", "one exit for all inputs", "random exit, same rates", "dynamic front"]
    assert legend == kinds
    assert page.locator(".js-plotly-plot").count() == 2  # the front, and hypervolume over candidates


def test_a_point_tells_all_that_is_known_of_it(page: Page, tmp_path: Path) -> None:
    front = page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace").nth(4)
    assert front.locator("path.point").count() == 3
    told = hovered(page, ".js-plotly-plot >> nth=0 >> .scatterlayer .trace >> nth=4 >> path.point", 1)
    page.screenshot(path=kept_folder(tmp_path) / "front-page-hover.png")
    for expected in (
        "17.1 residual w16 d2-2-2, exits after 1, 3",
        "policy max_prob 0.91 0.72",
        "accuracy 81.25% (95 %: 79.25% to 82.75%)",
        "mean 1.00 ms predicted, 1.25 measured on cpu",
        "p95 2.00 ms predicted, 2.50 measured on cpu",
        "mean 10.0 ms predicted, 11.0 measured on phone",
        "p95 20.0 ms predicted, 22.0 measured on phone",
        "architecture 3f9a1c77d20be451",
    ):
        assert expected in told, told


def test_members_of_the_front_that_decide_nothing_are_told() -> None:
    """One of the rows is: the static network, which nothing dominates."""
    assert front_html(REPORT).count("on the front, although all inputs take one path") == 1


def test_the_axis_can_be_that_of_another_device(page: Page, tmp_path: Path) -> None:
    assert latencies(page) == [0.5, 1.0, 1.5]
    page.locator(".updatemenu-header").first.click()
    entries = page.locator(".updatemenu-dropdown-button")
    assert entries.all_text_contents() == [
        f"{device}: {view}"
        for device in ("cpu", "phone")
        for view in ("mean, predicted", "mean, measured", "p95, predicted", "p95, measured")
    ]
    page.screenshot(path=kept_folder(tmp_path) / "front-page-menu.png")
    entries.filter(has_text="phone: p95, measured").click()
    page.wait_for_function("document.querySelector('.xtitle').textContent.startsWith('phone: 95th')")
    assert latencies(page) == [11.0, 22.0, 33.0]
    page.screenshot(path=kept_folder(tmp_path) / "front-page-phone.png")
