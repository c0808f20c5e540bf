"""The queue: starts training processes, which then go on without the process that asked for them.

A process that is started here waits for its turn by itself, so no server is needed: the runs folder
is the queue. One run trains at a time; CSREFT_SLOTS allows more. A run counts as alive while its
`lock` is held, which ends with its process in whatever way that ends.
"""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from csreft_core.config import Config, assignments, preset
from csreft_core.errors import ConfigError, RunError, StorageError
from csreft_core.files import storage_errors
from csreft_core.runs.all_runs import check_name, create_run, list_runs, runs_root
from csreft_core.runs.run import Run
from csreft_core.runs.status import Status
from csreft_core.skills.skill_set import SkillSet

PROGRAM = (sys.executable, "-m", "csreft_core")
START_GRACE_S = 120.0
"""A process may take so long, in seconds, from its start until it holds the run's lock."""

_ACTIVE = ("queued", "running")
_HEARTBEAT_S = 5.0
_SOURCE = Path(__file__).resolve().parents[2]

# The turns that this process has; they end with it.
_turns: list[FileLock] = []


def submit(
    config: Config,
    skill_set: SkillSet,
    name: str,
    root: Path | None = None,
    *,
    command: Sequence[str] = PROGRAM,
) -> Run:
    """Make a run and start the process that will train it.

    Args:
        config: What to train.
        skill_set: The rows.
        name: A new name.
        root: Folder of the runs; None is the one in use.
        command: The program; `train --out RUN --resume --queue` follows it.

    Raises:
        RunError: a bad or taken name, or a process that cannot start.
        StorageError: the disk refuses.
    """
    check_name(name)
    run = create_run((root or runs_root()) / name, config, skill_set)
    with run.training_lock():
        _start(run, command)
    return run


def resume(run: Run, *, command: Sequence[str] = PROGRAM) -> None:
    """Put a run that is not finished into the queue again.

    Raises:
        RunError: it is finished, or trains or waits already.
        StorageError: the disk refuses.
    """
    with run.training_lock():
        status = run.status()
        if status.state == "finished":
            raise RunError(f"run {run.name!r} is finished; duplicate it to train a new one")
        if status.state == "queued" and _may_be_starting(status):
            raise RunError(f"run {run.name!r} is in the queue already; wait for it or stop it")
        run.clear_stop()
        _start(run, command)


def _start(run: Run, command: Sequence[str]) -> None:
    """Start the training process; the caller holds the run's lock."""
    now = time.time()
    status = replace(
        run.status(), state="queued", heartbeat=now, message="", pid=None, started=None, ended=None
    )
    run.write_status(status)
    arguments = [*command, "train", "--out", str(run.path.absolute()), "--resume", "--queue"]
    with storage_errors(run.log_path):
        log = run.log_path.open("ab")
    try:
        with log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                **_detach_options(),
            )
    except OSError as error:
        message = f"the process did not start ({error.strerror})"
        run.write_status(replace(status, state="failed", message=message, ended=now))
        raise RunError(f"run {run.name!r}: {message}; check the program {command[0]}") from None
    # Nobody waits for the result, but someone has to take the exit code, or a zombie stays.
    threading.Thread(target=process.wait, daemon=True).start()
    run.write_status(replace(status, pid=process.pid))


def _environment() -> dict[str, str]:
    """Found from any folder, and writes its log as it goes."""
    paths = [str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


def _detach_options() -> dict[str, Any]:
    """Goes on when the parent ends, and hears nothing of its Ctrl+C."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        return {"creationflags": flags}
    return {"start_new_session": True}


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
        _write_stopped(run)
        return False


def release_turns() -> None:
    """Give the turns of this process back before it ends."""
    while _turns:
        _turns.pop().release()


def _beat(status: Status, state: str) -> Status:
    return replace(status, state=state, heartbeat=time.time(), pid=os.getpid())


def _write_stopped(run: Run) -> None:
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
        if theirs.state == "queued" and _key(other, theirs) < _key(run, status):
            if _is_alive(other, theirs):
                return False
        elif theirs.state == "running":
            training += other.is_locked()
    return training < slots


def _key(run: Run, status: Status) -> tuple[float, str]:
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


def _is_alive(run: Run, status: Status) -> bool:
    return run.is_locked() or (status.state == "queued" and _may_be_starting(status))


def _may_be_starting(status: Status) -> bool:
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


def mark_interrupted(root: Path | None = None) -> list[Run]:
    """Give the state `interrupted` to runs that should train or wait, but whose process is gone.

    Returns:
        The runs that were marked now.

    Raises:
        StorageError: the disk refuses; the runs that could be marked are. `standing` tells how a
            run stands all the same.
    """
    interrupted, refusal = [], None
    for run in list_runs(root or runs_root()):
        try:
            if _mark(run):
                interrupted.append(run)
        except StorageError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    return interrupted


def standing(run: Run) -> Status:
    """How a run stands in truth, also where its status could not be written when it ended.

    Raises:
        RunError: its status is missing or broken.
    """
    status = run.status()
    if status.state not in _ACTIVE or _is_alive(run, status):
        return status
    # It may have ended by itself between the two looks.
    again = run.status()
    return _as_interrupted(again) if again.state in _ACTIVE else again


def _as_interrupted(status: Status) -> Status:
    return replace(status, state="interrupted", message="its process ended; resume it", ended=None)


def _mark(run: Run) -> bool:
    """Write `interrupted`; a run that cannot be marked now, or need not be, is left as it is.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        if run.status().state not in _ACTIVE:
            return False
        with storage_errors(run.path), run.lock().acquire(blocking=False):
            # Read again: it may have ended by itself just before the lock was free.
            status = run.status()
            if status.state == "running" or (
                status.state == "queued" and not _may_be_starting(status)
            ):
                run.write_status(_as_interrupted(status))
                return True
    except (Timeout, RunError):
        return False  # its process lives, or somebody deletes the folder at this moment
    return False


def stop(run: Run) -> None:
    """Ask a run to save and end; one in the queue ends without training. Else nothing happens.

    Raises:
        StorageError: the disk refuses.
    """
    if run.status().state not in _ACTIVE:
        return
    run.request_stop()
    try:
        with storage_errors(run.path), run.lock().acquire(blocking=False):
            status = run.status()
            if status.state == "queued" and not _may_be_starting(status):
                _write_stopped(run)
    except Timeout:
        return
    _mark(run)


def queue_position(run: Run) -> int | None:
    """1 for the next run to train, 2 for the one after it; None for a run that does not wait."""
    status = run.status()
    if status.state != "queued":
        return None
    waiting = ((other, other.status()) for other in list_runs(run.path.parent))
    ahead = (
        _key(other, theirs) < _key(run, status) and _is_alive(other, theirs)
        for other, theirs in waiting
        if theirs.state == "queued"
    )
    return 1 + sum(ahead)


def n_waiting(root: Path) -> int:
    """How many runs wait for their turn."""
    return sum(run.status().state == "queued" for run in list_runs(root))


def command_line(config: Config, out: Path, preset_name: str = "recommended") -> str:
    """The command that trains this config, as one types it.

    Args:
        config: What to train.
        out: The run folder.
        preset_name: The preset to start from; what differs is given with `--set`.

    Raises:
        ConfigError: unknown preset.
    """
    arguments = ["python", "-m", "csreft_core", "train", "--preset", preset_name]
    for assignment in assignments(preset(preset_name), config):
        arguments += ["--set", assignment]
    arguments += ["--out", str(out)]
    return subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)


def resume_line(run: Run) -> str:
    """The command that goes on with a run."""
    arguments = ["python", "-m", "csreft_core", "train", "--out", str(run.path), "--resume"]
    return subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)
