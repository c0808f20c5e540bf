"""Runs: make, open, list, delete, bring back and pack run folders; one run is in `runs.run`.

Deleted runs go to `.trash` in the same folder, which keeps the newest 20. Folders whose name
starts with a dot are never runs.
"""

import io
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from platformdirs import user_data_path

from csreft_core.config import ASSETS, INSTALLED, Config
from csreft_core.errors import RunError
from csreft_core.files import replace_file, storage_errors
from csreft_core.runs.run import Run
from csreft_core.runs.status import STATES, State, Status
from csreft_core.skills.skill_set import SkillSet, write_skills

__all__ = [
    "STATES",
    "Run",
    "State",
    "Status",
    "broken_runs",
    "check_new_run",
    "create_run",
    "delete_run",
    "example_runs",
    "export_zip",
    "find_run",
    "list_runs",
    "open_run",
    "restore_run",
    "run_name",
    "runs_root",
    "trashed_runs",
]

SHIPPED_RUNS = ASSETS / "examples"
"""The runs that come with the program."""
KEPT_IN_TRASH = 20
"""Deleted runs that can be taken back, the newest."""
_TRASH = ".trash"
_NEW = ".new-"
_LEFT_OVER_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}(?<!\.)")
_TRASHED = re.compile(r"(.+)-(\d{8}T\d{12})")
_PACKED = ("adapter.safetensors", "config.json", "metrics.jsonl", "skills.jsonl", "status.json")


def check_new_run(path: Path) -> None:
    """Make sure that a run can be made here.

    Raises:
        RunError: something is there already.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_dir():
        is_run = (path / "config.json").is_file()
        what = "a run; go on with --resume, or" if is_run else "a folder with other files;"
        raise RunError(f"{path}: is already {what} choose another name")
    if path.exists() or path.is_symlink():
        raise RunError(f"{path}: is a file, not a run folder; choose another name")


def create_run(path: Path, config: Config, skill_set: SkillSet) -> Run:
    """Make a run folder, whole or not at all, in the state `queued`.

    Args:
        path: A new folder, or an empty one.
        config: What to train.
        skill_set: The rows, which the run keeps a copy of.

    Raises:
        RunError: something is there already.
        StorageError: the disk refuses.
    """
    check_new_run(path)
    now = time.time()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path.parent)
        new = Path(tempfile.mkdtemp(dir=path.parent, prefix=_NEW))
        try:
            new.chmod(0o755)
            run = Run(new)
            write_skills(skill_set, new / "skills.jsonl")
            run.write_status(Status("queued", 0, config.train.steps, now, "", now))
            run.write_config(config)
            if path.is_dir():
                path.rmdir()
            replace_file(new, path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return Run(path)


def _clear_leftovers(root: Path) -> None:
    """Remove what processes have left that were killed while they made a run."""
    for folder in root.glob(f"{_NEW}*"):
        if time.time() - folder.lstat().st_mtime > _LEFT_OVER_S:
            shutil.rmtree(folder, ignore_errors=True)


def open_run(path: Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: no such folder, not a run, or its config or status is broken.
    """
    run = Run(path)
    try:
        if path.is_file():
            raise RunError(f"{path}: is a file, not a run folder; give the folder of a run")
        if not path.is_dir():
            raise RunError(f"{path}: no such run; train one with: train --out {path}")
        if not run.config_path.is_file():
            raise RunError(f"{path}: is no run, it has no config.json; give the folder of a run")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); see who may read it") from None
    run.config()
    run.status()
    return run


def runs_root() -> Path:
    """Where the app keeps its runs: $CSREFT_RUNS, or else what suits the installation.

    A checkout has them in `runs` of the current folder, an installed package in the user's data
    folder, since it is called from anywhere.
    """
    asked = os.environ.get("CSREFT_RUNS")
    if asked or not INSTALLED:
        return Path(asked or "runs").expanduser().absolute()
    return user_data_path("csreft", appauthor=False) / "runs"


def _scan(root: Path) -> tuple[list[Run], list[tuple[Path, str]]]:
    runs, broken = [], []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except FileNotFoundError:
        entries = []
    except OSError as error:
        return [], [(root, f"{root}: cannot be read ({error.strerror}); see who may read it")]
    for entry in entries:
        folder = Path(entry.path)
        try:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            _check_readable_name(entry.name)
            run = Run(folder)
            run.config()
            runs.append((-run.status().created, run.name, run))
        except (RunError, OSError) as error:
            broken.append((folder, _why_broken(folder, error)))
    return [run for _, _, run in sorted(runs, key=lambda item: item[:2])], broken


def _check_readable_name(name: str) -> None:
    """Names are bytes on most systems; one that is no text cannot stand on a page."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise RunError("its name is no UTF-8 text; rename the folder") from None


def _why_broken(folder: Path, error: RunError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{folder}: cannot be read ({error.strerror}); see who may read it"
    try:
        open_run(folder)
    except RunError as reason:  # says more about what is no run at all
        return str(reason)
    return str(error)


def list_runs(root: Path) -> list[Run]:
    """The runs in a folder, newest first; broken ones are left out."""
    return _scan(root)[0]


def broken_runs(root: Path) -> list[tuple[Path, str]]:
    """The folders that are no runs or broken ones, each with what is wrong."""
    return _scan(root)[1]


def example_runs() -> list[Run]:
    """The finished runs that come with the program."""
    return list_runs(SHIPPED_RUNS)


def check_name(name: str) -> None:
    """Make sure that a text can be the name of a run.

    Raises:
        RunError: it has other letters than A-Z, a-z, 0-9, `.`, `_`, `-`, begins or ends with a
            dot, or is longer than 80.
    """
    if not _NAME.fullmatch(name):
        raise RunError(
            f"{name[:80]!r} cannot name a run; use 1 to 80 of the letters A-Z, a-z, 0-9, "
            "'.', '_' and '-', without a dot or '-' in front"
        )


def run_name(suggestion: str, root: Path) -> str:
    """A name for a new run: the suggestion, or with the next free number, as `recommended-2`.

    Args:
        suggestion: Any text; letters that a name cannot have become `-`.
        root: Folder of the runs.

    Raises:
        StorageError: the folder cannot be looked into.
    """
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", suggestion).strip(".-")[:60].rstrip(".-") or "run"
    with storage_errors(root):
        used_names = {path.name.lower() for path in root.iterdir()} if root.is_dir() else set()
    names: Iterator[str] = (
        clean if i == 1 else f"{clean}-{i}" for i in range(1, len(used_names) + 2)
    )
    return next(name for name in names if name.lower() not in used_names)


def find_run(name: str, root: Path) -> Run:
    """The run of a name that came from outside, such as a URL.

    Raises:
        RunError: not a name, no such run, or a broken one.
    """
    check_name(name)
    return open_run(root / name)


def delete_run(run: Run) -> str:
    """Move a run to the trash.

    Returns:
        Its name there, for `restore_run`.

    Raises:
        RunError: it trains or waits to, or comes with the program.
        StorageError: the disk refuses.
    """
    if run.path.absolute().parent == SHIPPED_RUNS:
        raise RunError(f"run {run.name!r} comes with the program and cannot be deleted")
    if run.is_locked():
        raise RunError(f"run {run.name!r} trains or waits for its turn; stop it, then delete it")
    trash = run.path.parent / _TRASH
    name = f"{run.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    with storage_errors(run.path):
        trash.mkdir(exist_ok=True)
        replace_file(run.path, trash / name)
    for old in trashed_runs(run.path.parent)[KEPT_IN_TRASH:]:
        shutil.rmtree(trash / old, ignore_errors=True)
    return name


def trashed_runs(root: Path) -> list[str]:
    """Names in the trash, the last deleted first."""
    trash = root / _TRASH
    matches = (_TRASHED.fullmatch(path.name) for path in trash.iterdir()) if trash.is_dir() else ()
    return [m.group(0) for m in sorted(filter(None, matches), key=lambda m: m[2], reverse=True)]


def restore_run(name: str, root: Path) -> Run:
    """Bring a deleted run back.

    Args:
        name: Its name in the trash, or the name it had: the last deleted of that name.
        root: Folder of the runs.

    Raises:
        RunError: it is not in the trash, or its name is taken again.
        StorageError: the disk refuses.
    """
    for entry in trashed_runs(root):
        original = entry[: -len("-20260101T000000000000")]
        if name not in (entry, original):
            continue
        target = root / original
        if target.exists():
            raise RunError(f"{target}: is there again; rename or delete it, then restore")
        with storage_errors(target):
            replace_file(root / _TRASH / entry, target)
        return Run(target)
    raise RunError(f"no deleted run {name!r}; the trash keeps the newest {KEPT_IN_TRASH}")


def export_zip(run: Run) -> bytes:
    """The run without checkpoints and snapshots, as a zip that unpacks to one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKED:
            if (run.path / name).is_file():
                archive.write(run.path / name, f"{run.name}/{name}")
    return buffer.getvalue()
