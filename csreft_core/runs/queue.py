"""The queue: starts training processes, which then go on without the process that asked for them.

A process that is started here waits for its turn by itself (`turns`), so no server is needed: the
runs folder is the queue.
"""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from csreft_core.config import Config, lead
from csreft_core.errors import RunError, StorageError
from csreft_core.files import storage_errors
from csreft_core.runs.all_runs import check_name, create_run, list_runs, runs_root
from csreft_core.runs.liveness import is_alive, may_be_starting
from csreft_core.runs.run import Run
from csreft_core.runs.status import Status
from csreft_core.runs.turns import queue_key, write_stopped
from csreft_core.skills.skill_set import SkillSet

PROGRAM = (sys.executable, "-m", "csreft_core")

_ACTIVE = ("queued", "running")
_SOURCE = Path(__file__).resolve().parents[2]


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
        if status.state == "queued" and may_be_starting(status):
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
    if status.state not in _ACTIVE or is_alive(run, status):
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
                status.state == "queued" and not may_be_starting(status)
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
            if status.state == "queued" and not may_be_starting(status):
                write_stopped(run)
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
        queue_key(other, theirs) < queue_key(run, status) and is_alive(other, theirs)
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
    for assignment in lead(preset_name, config):
        arguments += ["--set", assignment]
    arguments += ["--out", str(out)]
    return subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)


def resume_line(run: Run) -> str:
    """The command that goes on with a run."""
    arguments = ["python", "-m", "csreft_core", "train", "--out", str(run.path), "--resume"]
    return subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)
