"""Whose turn it is: one run trains at a time, the oldest of the queue goes first.

Each run waits by itself, in the process that will train it. CSREFT_SLOTS allows more at a time.
"""

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from csreft_core.errors import ConfigError, RunError, StorageError
from csreft_core.files import storage_errors
from csreft_core.runs.all_runs import list_runs
from csreft_core.runs.liveness import is_alive
from csreft_core.runs.run import Run
from csreft_core.runs.status import Status

_HEARTBEAT_S = 5.0
# The turns that this process has; they end with it.
_turns: list[FileLock] = []


def wait_for_turn(run: Run, root: Path | None = None, *, poll_s: float = 0.5) -> bool:
    """Wait until this run may train: the oldest in the queue goes first.

    While it waits it holds the run's lock and keeps the heartbeat. The turn lasts until this
    process ends.

    Args:
        run: A run whose process this is.
        root: Folder of the runs that share the machine; None is the run's own.
        poll_s: Seconds between two looks.

    Returns:
        False if the run was stopped in the queue: do not train it.

    Raises:
        RunError: another process trains this run or waits for it, or it is finished.
        ConfigError: CSREFT_SLOTS is not a number.
    """
    root, slots = root or run.path.parent, _slots()
    with run.training_lock():
        if run.status().state == "finished":
            raise RunError(f"run {run.name!r} is finished; train a new one")
        run.write_status(_beat(run.status(), "queued"))
        while not run.stop_requested():
            status = run.status()
            if _is_first(run, status, root, slots) and _take_slot(root, slots):
                run.write_status(_beat(status, "queued"))
                return True
            if time.time() - status.heartbeat > _HEARTBEAT_S:
                with suppress(StorageError):  # a disk that is full for a while ends no waiting
                    run.write_status(_beat(status, "queued"))
            time.sleep(poll_s)
        write_stopped(run)
        return False


def release_turns() -> None:
    """Give the turns of this process back before it ends."""
    while _turns:
        _turns.pop().release()


def _beat(status: Status, state: str) -> Status:
    return replace(status, state=state, heartbeat=time.time(), pid=os.getpid())


def write_stopped(run: Run) -> None:
    """Say that a run was stopped in the queue.

    Raises:
        StorageError: the disk refuses.
    """
    now = time.time()
    text = "stopped before its turn"
    run.write_status(replace(run.status(), state="stopped", message=text, heartbeat=now, ended=now))
    run.clear_stop()


def _slots() -> int:
    value = os.environ.get("CSREFT_SLOTS", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"CSREFT_SLOTS: expected a whole number from 1 up, got {value!r}")
    return int(value)


def _is_first(run: Run, status: Status, root: Path, slots: int) -> bool:
    """Nobody older waits, and fewer runs train than there are slots (some without asking)."""
    training = 0
    for other in list_runs(root):
        if other.name == run.name:
            continue
        theirs = other.status()
        if theirs.state == "queued" and queue_key(other, theirs) < queue_key(run, status):
            if is_alive(other, theirs):
                return False
        elif theirs.state == "running":
            training += other.is_locked()
    return training < slots


def queue_key(run: Run, status: Status) -> tuple[float, str]:
    """Sorts the runs of a queue: the oldest first."""
    return status.created, run.name


def _take_slot(root: Path, slots: int) -> bool:
    folder = root / ".slots"
    with ExitStack() as undo, storage_errors(folder):
        folder.mkdir(exist_ok=True)
        for i in range(slots):
            lock = FileLock(folder / str(i), thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            undo.callback(lock.release)
            _turns.append(lock)
            undo.pop_all()
            return True
    return False
