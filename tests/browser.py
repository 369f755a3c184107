"""A headless browser, and servers on 127.0.0.1: for the tests of what a person sees.

Pictures of the screen are kept in the folder that the variable DYNARCH_SCREENSHOTS names, or else in the test's own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 300_000  # before a test gives up on a page, on a machine that others use too
POINTS = ".scatterlayer path.point"  # as plotly draws them


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of the system."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM} (apt-get install chromium), and this machine has none")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser, *, offline: bool = False, width: int = 1400, height: int = 900) -> Iterator[Page]:
    """A page that is patient; its errors are the test's. Offline it reaches no network at all."""
    context = browser.new_context(offline=offline, viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert errors == []


def kept_folder(own: Path) -> Path:
    """Where pictures of the screen are kept."""
    folder = Path(os.environ.get("DYNARCH_SCREENSHOTS") or own)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    """Wait until something answers there."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < until:
        assert process.poll() is None, f"the server of {address} has ended"
        with suppress(URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(address, timeout=5)
            return
        time.sleep(0.25)
    raise AssertionError(f"nobody answers at {address}")


@contextmanager
def serving(line: Sequence[str], address: str) -> Iterator[None]:
    """A server as long as it is needed."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        wait_for(address, process)
        yield
    finally:
        process.terminate()
        process.wait(60)


def filter_by(page: Page, text: str) -> None:
    """Type it into MLflow's search for runs; it is the field with an example in it, and no text box by its role."""
    box = page.get_by_placeholder("metrics.rmse")
    box.fill(text)
    box.press("Enter")


def hovered(page: Page, selector: str, index: int) -> str:
    """What is shown beside a point once the mouse is on it."""
    box = page.locator(selector).nth(index).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    label = page.locator(".hoverlayer .hovertext").first
    label.wait_for()
    return label.text_content() or ""  # an SVG has no inner text
