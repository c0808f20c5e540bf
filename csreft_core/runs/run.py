"""One run: a folder that is the truth, read and written by app, commands and notebooks alike.

    config.json           everything that decides the run
    skills.jsonl          the rows that it uses, with their splits
    status.json           state, step, heartbeat, message
    metrics.jsonl         one record a line
    checkpoints/          the newest two, to go on from
    snapshots/            small arrays for pictures over training
    adapter.safetensors   the trained adapter
    log.txt               what the process wrote
    lock                  held by the process that trains, or waits to
    stop                  asks that process to save and end

Every file is replaced in one step, so a kill at any moment leaves a run that can be read and
resumed. Nothing here trains or starts a process.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from csreft_core.config import Config, config_to_dict, read_config
from csreft_core.errors import ConfigError, RunError, SkillSetError
from csreft_core.files import (
    ReadCache,
    check_plain,
    clear_left_over,
    finite,
    storage_errors,
    write_atomic,
)
from csreft_core.runs.records import read_since
from csreft_core.runs.status import MOST_BYTES, Status, as_json, read_status
from csreft_core.skills.skill_set import SkillSet, read_kept

LOCK_PATIENCE_S = 5.0
"""How long a trainer waits for the lock of its run, in seconds."""
_KEPT_CHECKPOINTS = 2
_MOST_KEPT = 4096


@dataclass(frozen=True)
class Run:
    """A run folder. Holds no state: every call reads or writes the folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """The config file."""
        return self.path / "config.json"

    @property
    def adapter_path(self) -> Path:
        """The adapter; there once the training ended or was stopped."""
        return self.path / "adapter.safetensors"

    @property
    def log_path(self) -> Path:
        """What the training process wrote to its output."""
        return self.path / "log.txt"

    @property
    def metrics_path(self) -> Path:
        """The records of the training."""
        return self.path / "metrics.jsonl"

    def config(self) -> Config:
        """Read the config.

        Raises:
            RunError: it is missing, broken or of a newer program.
        """
        return _configs(self.config_path)

    def write_config(self, config: Config) -> None:
        """Replace the config."""
        write_atomic(self.config_path, json.dumps(config_to_dict(config), indent=2) + "\n")

    def status(self) -> Status:
        """Read the status.

        Raises:
            RunError: it is missing or broken.
        """
        return _statuses(self.path / "status.json")

    def write_status(self, status: Status) -> None:
        """Replace the status.

        Raises:
            StorageError: the disk refuses; the old one stays.
        """
        write_atomic(self.path / "status.json", as_json(status))

    def skill_set(self) -> SkillSet:
        """Read the rows that the run uses.

        Raises:
            RunError: they are missing or broken.
        """
        path = (self.path / "skills.jsonl").absolute()
        try:
            if path.exists():
                check_plain(path)
            return read_kept(path)
        except OSError as error:
            raise RunError(
                f"run {self.name!r}: {path} cannot be read ({error.strerror}); restore it or "
                "delete the run"
            ) from None
        except SkillSetError as error:
            raise RunError(f"run {self.name!r}: {error}; restore it or delete the run") from None

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All records, or those of a kind; a last line that is not whole yet is left out."""
        records, _ = self.read_metrics_since(0)
        return [record for record in records if kind in (None, record.get("kind"))]

    def read_metrics_since(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The records after a place in the file, and the place to go on from; reads no more.

        A resumed run is cut back. If the place is gone, all records come again: let a record
        replace an earlier one with the same `kind` and `step`.

        Args:
            offset: 0, or what the last call gave, in bytes.

        Raises:
            RunError: it cannot be read, or a whole line is no record.
        """
        return read_since(self.metrics_path, offset)

    def append_metric(self, record: dict[str, Any]) -> None:
        """Add a record; numbers that are not finite become null.

        Raises:
            StorageError: the disk refuses.
        """
        line = json.dumps(finite(record), ensure_ascii=False, allow_nan=False)
        with storage_errors(self.metrics_path), self.metrics_path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")

    def truncate_metrics(self, after_step: int) -> None:
        """Drop the records of later steps; all of them if nothing is done yet (0)."""
        records = [r for r in self.metrics() if after_step > 0 and r.get("step", 0) <= after_step]
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomic(self.metrics_path, "".join(lines))

    def request_stop(self) -> None:
        """Ask the trainer to save and end.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.path / "stop"):
            (self.path / "stop").touch()

    def stop_requested(self) -> bool:
        """Whether the trainer is asked to end."""
        return (self.path / "stop").exists()

    def clear_stop(self) -> None:
        """Take the request back.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self.path / "stop"):
            (self.path / "stop").unlink(missing_ok=True)

    def lock(self) -> FileLock:
        """The lock of the process that trains or waits; gone with that process, however it ends."""
        return FileLock(self.path / "lock")

    def is_locked(self) -> bool:
        """Whether a process (also this one) trains this run or waits to."""
        if not (self.path / "lock").exists():
            return False
        for _ in range(2):  # another reader may hold it for a moment
            try:
                with self.lock().acquire(blocking=False):
                    return False
            except Timeout:
                time.sleep(0.01)
            except OSError:  # a read-only folder: nobody trains there
                return False
        return True

    @contextmanager
    def training_lock(self) -> Iterator[None]:
        """Hold the lock while the run is trained or waits for its turn.

        What a killed process has left half-written is removed.

        Raises:
            RunError: another process holds it.
            StorageError: the disk refuses.
        """
        lock = self.lock()
        try:
            # Readers hold the lock for milliseconds to see whether it is free.
            with storage_errors(self.path):
                lock.acquire(timeout=LOCK_PATIENCE_S)
        except Timeout:
            raise RunError(
                f"run {self.name!r} is in training or in the queue already; wait for it or stop it"
            ) from None
        try:
            for folder in (self.path, self.path / "snapshots"):
                clear_left_over(folder, older_than_s=0.0)
            yield
        finally:
            lock.release()

    def checkpoints(self) -> list[Path]:
        """Folders of the checkpoints, oldest first."""
        folders = (self.path / "checkpoints").glob("step-*")
        return sorted(path for path in folders if path.is_dir())

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Make a checkpoint and keep the newest two.

        Args:
            step: Steps that are done.
            write: Fills the folder that it is given.

        Returns:
            The checkpoint's folder.

        Raises:
            StorageError: the disk refuses; the older ones stay.
        """
        folder = self.path / "checkpoints"
        target = folder / f"step-{step:08d}"
        with storage_errors(target):
            return self._checkpoint(folder, target, write)

    def _checkpoint(self, folder: Path, target: Path, write: Callable[[Path], None]) -> Path:
        folder.mkdir(exist_ok=True)
        for scrap in folder.glob(".*"):
            shutil.rmtree(scrap)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        try:
            write(new)
            for file in new.iterdir():
                _flush_to_disk(file)
        except BaseException:
            # On a full disk this is the room that the status needs to say so.
            shutil.rmtree(new, ignore_errors=True)
            raise
        if target.exists():
            target.rename(folder / f".old-{target.name}")
            shutil.rmtree(folder / f".old-{target.name}", ignore_errors=True)
        new.rename(target)
        for old in self.checkpoints()[:-_KEPT_CHECKPOINTS]:
            shutil.rmtree(old)
        return target

    def remove_checkpoints(self) -> None:
        """Delete all checkpoints, of a run that needs none."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def snapshots(self) -> list[Path]:
        """Snapshot files, by step."""
        return sorted((self.path / "snapshots").glob("step-*.safetensors"))

    def snapshot_path(self, step: int) -> Path:
        """Where the snapshot of a step belongs."""
        return self.path / "snapshots" / f"step-{step:08d}.safetensors"


def _read_config(path: Path) -> Config:
    try:
        check_plain(path, MOST_BYTES)
        return read_config(path)
    except (ConfigError, OSError) as error:
        reason = f"{path} {error.strerror}" if isinstance(error, OSError) else error
        raise RunError(
            f"run {path.parent.name!r}: {reason}; restore its config.json or delete the run"
        ) from None


# Thousands of runs are listed at every click; what has not changed is not read again.
_configs = ReadCache(_read_config, _MOST_KEPT)
_statuses = ReadCache(read_status, _MOST_KEPT)


def _flush_to_disk(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
