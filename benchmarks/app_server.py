"""The app as a server of its own, on the shipped runs and a free port of this machine."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving() -> Iterator[tuple[str, subprocess.Popen]]:
    """Its address and its process, while it runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as runs:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "streamlit",
                "run",
                "app.py",
                "--server.port",
                str(port),
                "--server.address",
                "127.0.0.1",
            ],
            cwd=ROOT,
            env={**os.environ, "CSREFT_RUNS": runs},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address)
            yield address, server
        finally:
            server.terminate()


def health_s(address: str) -> float:
    """Seconds until the server says that it is well; 60 where it does not in that time."""
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=60):
            return time.perf_counter() - started
    except (urllib.error.URLError, OSError):
        return 60.0


def _wait_for(address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the app did not start")
