"""What a foreign base brings is run in a process of its own, with limits on time and memory.

A chat template is a program and a tokeniser's file can hold patterns that never end. Neither can be
stopped inside a thread, so a worker does them (`foreign_worker`); it is started when it is first
needed, serves one request after another, and is started anew after a request that ended it.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from csreft_core.errors import UnsupportedModelError

SECONDS = 2.0
"""Most computing time of a request, on systems that can count it."""

WAIT_S = 20.0 if hasattr(signal, "setitimer") else 5.0
"""Seconds of the clock for a request: a busy machine gives less than a whole processor."""
_WORKER = Path(__file__).with_name("foreign_worker.py")


class _Worker:
    """One process, and the request that it works on."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # Only what it needs to start: no tokens, no settings of ours.
        variables = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={name: os.environ[name] for name in variables if name in os.environ},
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None where the request ended the process, or has to be ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ending = threading.Timer(WAIT_S, self._process.kill)
        ending.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            ending.cancel()
        return json.loads(line) if line.endswith("\n") else None

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what was not read any more
                continue


_lock = threading.Lock()
_workers: list[_Worker] = []


def ask(job: str, *arguments: Any, name: str, seconds: float = SECONDS) -> Any:
    """Have the worker do a job.

    Args:
        job: A function of `foreign_worker`.
        arguments: Of that function, as JSON has them.
        name: What is run, for messages.
        seconds: Most computing time.

    Raises:
        UnsupportedModelError: it fails, takes too long or too much memory.
    """
    with _lock:
        if _workers and _workers[0].owner != os.getpid():
            _workers.clear()  # another process's, of which this one is a copy
        if not _workers:
            _workers.append(_Worker())
        worker = _workers[0]
        answer = worker.ask({"job": job, "arguments": arguments, "seconds": seconds})
        if answer is None:
            _workers.remove(worker)
            worker.close()
    if answer is None:
        raise UnsupportedModelError(
            f"{name} ends the process that tries it: it computes for more than {seconds:.0f} s or "
            "needs more than 1 GiB, which no sound one does; take another base, or mend its files"
        )
    if "error" in answer:
        raise UnsupportedModelError(f"{name} does not work ({answer['error']})")
    return answer["result"]


@atexit.register
def _close() -> None:
    while _workers:
        worker = _workers.pop()
        if worker.owner == os.getpid():
            worker.close()
