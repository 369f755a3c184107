"""What a person sees after a search: MLflow and Optuna's dashboard in a real browser, over real servers."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dynarch import Cpu, Search, SearchService
from dynarch.search.proposals import numbers
from dynarch.search.report import read_report
from dynarch.tests.browser import (
    PATIENCE_MS,
    POINTS,
    chromium,
    filter_by,
    free_port,
    hovered,
    kept_folder,
    page_of,
    serving,
    wait_for,
)
from dynarch.tests.tiny_searches import command, tiny_problem, tracked

pytestmark = pytest.mark.slow  # a search with two devices, two servers, and a browser
TRIALS = 8
FRONT = "dynamic front"
CLASSIC = "workflowType=machine_learning"  # as the printed link; else MLflow shows its pages for language models


@dataclass(frozen=True)
class Searched:
    """A finished search in a storage of its own, so that an MLflow experiment holds nothing else."""

    service: SearchService
    search: Search
    folder: Path

    @property
    def members(self) -> list[int]:
        """Candidates with a point on the front."""
        return sorted({row.number for row in read_report(self.search.folder / "report").rows if row.front})

    @property
    def drawn(self) -> int:
        """Candidates that have something to draw."""
        runs = tracked(self.service, self.search.id).children
        return sum({"accuracy", "latency_ms"} <= run.data.metrics.keys() for run in runs)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("screens")
    service = SearchService(folder / "results")
    problem = replace(tiny_problem(trials=TRIALS, epochs=4), devices={"one": Cpu(), "four": Cpu(batch=4)})
    search = service.launch(problem)
    search.wait()
    return Searched(service, search, folder)


@pytest.fixture(scope="module")
def link(searched: Searched) -> Iterator[str]:
    """What `dynarch ui` prints, while it serves."""
    port = free_port()
    storage = searched.service.storage.folder
    with command(searched.folder, "ui", "--storage", storage, "--port", port) as running:
        wait_for(f"http://127.0.0.1:{port}/health", running.process)
        (printed,) = re.findall(r"^fronts: (\S+)$", running.out.with_suffix(".out").read_text(), re.M)
        yield printed


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with page_of(browser) as opened:
        yield opened


def points_drawn(page: Page, count: int) -> None:
    """Wait until a scatter shows so many points."""
    page.wait_for_function(
        "([selector, count]) => document.querySelectorAll(selector).length === count",
        arg=[POINTS, count],
        timeout=PATIENCE_MS,
    )


def test_the_printed_link_opens_a_scatter_of_all_candidates(searched: Searched, link: str, page: Page) -> None:
    page.goto(link)
    points_drawn(page, searched.drawn)
    assert searched.drawn >= len(searched.members) > 0
    page.wait_for_timeout(1000)
    page.screenshot(path=kept_folder(searched.folder) / "mlflow-scatter.png")


def test_a_filter_lists_exactly_the_front(searched: Searched, link: str, page: Page) -> None:
    found = tracked(searched.service, searched.search.id)
    runs = found.client.search_runs([found.parents[0].info.experiment_id], "tags.pareto = 'true'")
    assert sorted(int(run.data.tags["dynarch.number"]) for run in runs) == searched.members
    page.goto(link)
    points_drawn(page, searched.drawn)
    filter_by(page, "tags.pareto = 'true'")
    points_drawn(page, len(searched.members))
    page.screenshot(path=kept_folder(searched.folder) / "mlflow-filtered.png")


def test_the_run_of_the_search_has_summary_table_and_page(searched: Searched, link: str, page: Page) -> None:
    base, experiment = link.partition("/#/")[0], link.split("experiments/")[1].partition("/")[0]
    (parent,) = tracked(searched.service, searched.search.id).parents
    address = f"{base}/#/experiments/{experiment}/runs/{parent.info.run_id}"
    page.goto(f"{address}?{CLASSIC}")
    page.get_by_text("Front, fastest first").first.wait_for()
    page.screenshot(path=kept_folder(searched.folder) / "mlflow-parent.png")
    page.goto(f"{address}/model-metrics?{CLASSIC}")
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=kept_folder(searched.folder) / "mlflow-parent-charts.png")
    page.goto(f"{address}/artifacts?{CLASSIC}")
    for name, seen in (("front.json", searched_label(searched)), ("front.html", "")):
        page.get_by_text(name, exact=True).first.click()
        if seen:
            page.get_by_text(seen, exact=True).first.wait_for()
        else:
            page.frame_locator("iframe").locator(POINTS).first.wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=kept_folder(searched.folder) / f"mlflow-artifact-{name.partition('.')[2]}.png")


def searched_label(searched: Searched) -> str:
    return read_report(searched.search.folder / "report").front[0].label


def test_a_candidate_shows_how_it_went(searched: Searched, link: str, page: Page) -> None:
    run = next(run for run in tracked(searched.service, searched.search.id).children if len(run.data.metrics) > 12)
    assert {"exit_0_share", "final_share", "exit_0_accuracy", "train_loss"} <= run.data.metrics.keys()
    base, experiment = link.partition("/#/")[0], link.split("experiments/")[1].partition("/")[0]
    page.goto(f"{base}/#/experiments/{experiment}/runs/{run.info.run_id}/model-metrics?{CLASSIC}")
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=kept_folder(searched.folder) / "mlflow-child.png")


def test_the_page_of_the_front_opens_from_disk(searched: Searched, browser: Browser) -> None:
    file = searched.search.folder / "report" / "front.html"
    report = read_report(file.parent)
    with page_of(browser, offline=True) as page:
        page.goto(file.as_uri())
        page.wait_for_selector(POINTS)
        first = page.locator(".js-plotly-plot").first
        assert first.locator("path.point").count() == len(report.rows)
        legend = first.locator(".legendtext").all_text_contents()
        assert "static network" in legend
        place = legend.index(FRONT)
        told = hovered(page, f".js-plotly-plot >> nth=0 >> .scatterlayer .trace >> nth={place} >> path.point", 0)
        for word in (report.front[0].label, "policy", "95 %", "measured on one", "measured on four", "architecture"):
            assert word in told
        page.screenshot(path=kept_folder(searched.folder) / "report-front.png", full_page=True)


def test_the_dashboard_of_optuna_shows_the_same_front(searched: Searched, page: Page) -> None:
    port = free_port()
    url = searched.service.storage.study_url
    line = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", url, "--port", str(port)]
    with serving([*line, "--host", "127.0.0.1"], f"http://127.0.0.1:{port}/dashboard"):
        study = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=60))
        (number,) = [each["study_id"] for each in study["study_summaries"]]
        told = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/{number}", timeout=60))
        best = {tuple(trial["values"]) for trial in told["best_trials"]}
        problem = searched.search.problem()
        with searched.service.storage.open_ledger() as ledger:
            members = {problem.values(numbers(p)) for p in ledger.points(searched.search.id, front_only=True)}
        assert members <= best
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/{number}")
        page.locator(POINTS).first.wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=kept_folder(searched.folder) / "optuna-dashboard.png", full_page=True)
