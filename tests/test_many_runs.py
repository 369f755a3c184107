"""MLflow after a search of a thousand candidates: the link opens on the front, and filters find it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynarch.search.tracking import CandidateRun, MLflowTracker, link, serve_command
from dynarch.tests.browser import POINTS, chromium, filter_by, free_port, kept_folder, page_of, serving

pytestmark = pytest.mark.slow  # a thousand runs take MLflow a minute to write
MANY, FRONT = 1000, range(0, 1000, 50)


def candidate(number: int) -> CandidateRun:
    """Members of the front are twice as fast as others of their accuracy."""
    latency = (1 + number % 97) / 10
    return CandidateRun(
        number=number,
        architecture_id=f"{number:016x}",
        state="finished",
        cause="",
        params={"network": f"residual w{number % 7}"},
        metrics={"accuracy": 0.5 + latency / 25, "latency_ms": latency / (2 if number in FRONT else 1)},
        curves={"train_loss": [(epoch, 1 / epoch) for epoch in (1, 2, 3)]},
        tags={"family": "early_exit", "backbone": "residual", "stage": "full"},
        started_at_ms=1_000_000 + number,
        ended_at_ms=1_000_100 + number,
    )


@dataclass(frozen=True)
class Store:
    """A search in MLflow."""

    uri: str
    experiment: str
    folder: Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("many")
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = MLflowTracker(uri, "dynarch")
    parent = tracker.start("many", "a search of a thousand", "{}", {})
    for number in range(MANY):
        tracker.log_candidate(parent, candidate(number))
    assert tracker.tag_front(parent, set(FRONT)) == ()
    tracker.finish(parent, "finished")
    return Store(uri, tracker.experiment_id, folder)


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    port = free_port()
    with serving(serve_command(store.uri, None, port), f"http://127.0.0.1:{port}/health"):
        yield link(f"http://127.0.0.1:{port}", store.experiment)


def test_the_front_is_drawn_first(store: Store, address: str) -> None:
    """A page of MLflow's holds a hundred runs; sorted by the tag `pareto`, the front is among them."""
    with chromium() as browser, page_of(browser) as page:
        page.goto(address)
        page.wait_for_function("selector => document.querySelectorAll(selector).length >= 99", arg=POINTS)
        drawn = page.evaluate("[...document.querySelector('.js-plotly-plot').data].flatMap(t => [...t.x])")
        fast = {candidate(number).metrics["latency_ms"] for number in FRONT}
        assert fast <= {float(x) for x in drawn}
        page.screenshot(path=kept_folder(store.folder) / "mlflow-thousand.png")
        filter_by(page, "tags.pareto = 'true'")
        page.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length === count", arg=[POINTS, len(FRONT)]
        )
        page.screenshot(path=kept_folder(store.folder) / "mlflow-thousand-front.png")
