"""The app as a user has it: a server of its own on a free port of this machine, and Chromium."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from csreft_core.runs import list_runs
from tests.repository import ROOT

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 120  # a cold import of torch and Streamlit on a busy machine


@pytest.fixture
def address(tmp_runs: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a running app with an empty runs folder."""
    with served(tmp_runs, tmp_path) as url:
        yield url


@contextmanager
def served(runs: Path, folder: Path) -> Iterator[str]:
    """The address of the app with these runs, while it runs; its log lies in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    # The address is that of the configuration: this machine alone.
    options = ["--server.port", str(port)]
    log = (folder / "server.log").open("wb")
    environment = {**os.environ, "CSREFT_RUNS": str(runs)}
    with log, subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, stdout=log, stderr=log
    ) as server:  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, server, folder / "server.log")
            yield url
        finally:
            server.terminate()
            _end_trainings(runs)


def _end_trainings(runs: Path) -> None:
    """A training outlives the app on purpose; one of a test that failed half-way must not."""
    for run in list_runs(runs):
        status = run.status()
        if status.pid is not None and run.is_locked():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(status.pid).kill()


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the app did not start: {log.read_text(encoding='utf-8')[-2000:]}")


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
