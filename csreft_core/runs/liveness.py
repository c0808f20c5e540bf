"""Whether the process of a run lives, or is about to.

A run counts as alive while its `lock` is held, which ends with its process however that ends.
"""

import time

import psutil

from csreft_core.runs.run import Run
from csreft_core.runs.status import Status

START_GRACE_S = 120.0
"""A process may take so long, in seconds, from its start until it holds the run's lock."""


def is_alive(run: Run, status: Status) -> bool:
    """Its process trains or waits, or may be starting."""
    return run.is_locked() or (status.state == "queued" and may_be_starting(status))


def may_be_starting(status: Status) -> bool:
    """A process was asked for a short time ago, and is not known to have ended."""
    if status.pid is not None and not _process_lives(status.pid):
        return False
    return time.time() - status.heartbeat < START_GRACE_S


def _process_lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
