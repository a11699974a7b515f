"""One browser for all tests, and ComfyUI's page in its three editions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tools import host
from tools.server import start_server

from .page import KINDS, Canvas, Kind

TESTPACK = host.ROOT / "tests" / "host" / "testpack"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=list(FLAGS)
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def newest_server(chromium: Path) -> Iterator[Any]:
    """The same ComfyUI with the newest page of PyPI."""
    page = host.newest_page()
    if page is None:
        reason = "no newest page here: `make host` gets it from PyPI, where it can be reached"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    packs = {host.PACK_NAME: host.ROOT, "hires-fusion-testpack": TESTPACK}
    extra = ["--preview-method", "latent2rgb", "--front-end-root", str(page)]
    with start_server(packs=packs, extra_args=extra) as running:
        yield running


def server_of(kind: Kind, request: pytest.FixtureRequest) -> Any:
    """The server that has this edition of the page."""
    if host.front_end() is None:
        return request.getfixturevalue("newest_server" if kind.newest else "server")
    if not kind.newest:
        pytest.skip("HOST=newest: its own page is the newest")
    return request.getfixturevalue("server")


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def opened(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Canvas]:
    """The page, opened once for all tests of an edition."""
    canvas = Canvas.open(request.param, server_of(request.param, request), browser)
    yield canvas
    canvas.page.close()


@pytest.fixture
def canvas(opened: Canvas) -> Iterator[Canvas]:
    """The page with an empty canvas."""
    opened.clear()
    yield opened
    opened.stop()


@pytest.fixture
def in_language(request: pytest.FixtureRequest, opened: Canvas, browser: Browser) -> Iterator:
    """`in_language(code)` opens the page in that language; English again after the test."""
    pages = []

    def open_page(code: str) -> Canvas:
        pages.append(Canvas.open(opened.kind, opened.server, browser, code))
        return pages[-1]

    yield open_page
    for canvas in pages:
        canvas.page.close()
    opened.language("en")
