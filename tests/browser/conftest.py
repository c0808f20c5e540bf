"""The app as a user has it: a server of its own, and Chromium."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.served_app import START_S, served

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that the app has, at first none."""
    folder = tmp_path_factory.mktemp("app") / "runs"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """The address of a running app: one for all tests of a file, for the first page takes long."""
    with served(runs.parent) as url:
        yield url


@pytest.fixture
def open_page(chromium: str) -> Iterator[Callable]:
    """Opens an address in a fresh Chromium; `page.faults` lists errors and foreign requests."""
    from playwright.sync_api import Page, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))

        def start(url: str, **options: object) -> tuple[Page, list[str]]:
            page = browser.new_page(**options)
            page.set_default_timeout(START_S * 1000)
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(f"error: {error}"))
            page.on("console", lambda message: _note(faults, message))
            page.on("request", lambda request: _note_foreign(faults, request.url))
            page.goto(url)
            return page, faults

        yield start
        browser.close()


def _note(faults: list[str], message: object) -> None:
    if message.type == "error":
        faults.append(f"console: {message.text} {message.location.get('url')}")


def _note_foreign(faults: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        faults.append(f"request: {url}")
