"""The app as a server of its own on a free port of this machine."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from csreft_core.runs.all_runs import list_runs
from tests.repository import ROOT

START_S = 120  # a cold import of torch and Streamlit on a busy machine


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
    with (
        log,
        subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=log, stderr=log
        ) as server,
    ):
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
