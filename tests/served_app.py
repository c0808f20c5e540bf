"""The app as a server of its own, whose trainings end with it."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.app_server import START_S, serving
from csreft_core.runs.all_runs import list_runs

__all__ = ["START_S", "handshake", "served"]

_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the app, while it runs; its runs and its log lie in the folder."""
    try:
        with serving(folder) as (address, _):
            yield address
    finally:
        _end_trainings(folder / "runs")


def _end_trainings(runs: Path) -> None:
    """A training outlives the app on purpose; one of a test that failed half-way must not."""
    for run in list_runs(runs):
        status = run.status()
        if status.pid is not None and run.is_locked():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(status.pid).kill()


def handshake(address: str, host: str, origin: str | None = None) -> int:
    """The status that a websocket gets which asks for this host."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    headers = {**_WEBSOCKET, "Host": host} | ({"Origin": origin} if origin else {})
    connection.request("GET", "/_stcore/stream", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status
