"""The app as a server of its own, on a free port of this machine."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

START_S = 120
"""Seconds: a cold import of torch and Streamlit on a busy machine."""


STREAMLIT = (sys.executable, "-m", "streamlit", "run", "app.py", "--server.port")
"""Starts the app in a checkout; the port comes last."""


@contextmanager
def serving(
    folder: Path, command: Sequence[str] = STREAMLIT, cwd: Path = ROOT, **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address and the process of the app, while it runs.

    Args:
        folder: The runs lie in its folder `runs`, the server's log in `server.log`.
        command: What starts the app, but for the port.
        cwd: Where it is started.
        environment: Variables of the process beside those of this one.

    Raises:
        RuntimeError: it does not start; has the end of the log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The address is that of the configuration: this machine alone.
    asked = [*command, str(port)]
    environment = {**os.environ, "CSREFT_RUNS": str(folder / "runs"), **environment}
    path = folder / "server.log"
    with (
        path.open("wb") as log,
        subprocess.Popen(asked, cwd=cwd, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, server, path)
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


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the app did not start: {log.read_text(encoding='utf-8')[-2000:]}")
