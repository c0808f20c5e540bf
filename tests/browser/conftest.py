"""The app as a user has it: a server of its own, and Chromium."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, sync_playwright

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
    """The address of a running app: one for all tests, for the first page takes long."""
    with served(runs.parent) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[BrowserContext]:
    """A Chromium: one for all tests, for its start and the app's scripts take seconds."""
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield one.new_context(reduced_motion="reduce")  # a spinner costs a tenth of a core
        one.close()


@pytest.fixture
def open_page(browser: BrowserContext) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Opens an address in a new tab of one visitor; `faults` lists errors and foreign requests."""
    pages = []

    def start(url: str) -> tuple[Page, list[str]]:
        page = browser.new_page()
        pages.append(page)
        page.set_default_timeout(START_S * 1000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda message: _note(faults, message))
        page.on("request", lambda request: _note_foreign(faults, request.url))
        page.goto(url)
        return page, faults

    yield start
    for page in pages:
        page.close()


def _note(faults: list[str], message: ConsoleMessage) -> None:
    if message.type == "error":
        faults.append(f"console: {message.text} {message.location.get('url')}")


def _note_foreign(faults: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        faults.append(f"request: {url}")
