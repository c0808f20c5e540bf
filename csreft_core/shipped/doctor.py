"""Checks of an installation: is everything there that training and the app need?

Returns results and prints nothing. No check needs the network, a GPU or a browser.
"""

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from csreft_core.base.devices import free_bytes
from csreft_core.base.load import load_base
from csreft_core.config import ASSETS, INSTALLED, BaseConfig
from csreft_core.errors import CsreftError, first_line
from csreft_core.runs.all_runs import runs_root

#: The oldest Python, and the libraries with the first major version that is not supported.
PYTHON = (3, 11)
LIBRARIES = {"torch": 3, "transformers": 6, "accelerate": 2, "safetensors": 1, "streamlit": 2}

#: What should be free.
DISK_BYTES = 1_000_000_000
MEMORY_BYTES = 1_000_000_000

_APP = "pip install 'csreft[app]'"
_INSTALL = f"run: {_APP}" if INSTALLED else "run: pip install -r requirements.lock"
# Half of the widest gap between two of the 16 values that 4 bits stand for, of numbers in [-1, 1].
_LARGEST_4_BIT_ERROR = 0.2


@dataclass(frozen=True)
class Check:
    """One result; `remedy` says what to do and is empty where all is well."""

    name: str
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return not self.remedy


def run_checks(assets: Path = ASSETS, root: Path | None = None) -> list[Check]:
    """All checks, in the order in which a remedy helps the next.

    Args:
        assets: Folder of the shipped files.
        root: Runs folder; None is the one in use.
    """
    root = runs_root() if root is None else root
    return [*_checks(assets, root)]


def _checks(assets: Path, root: Path) -> Iterator[Check]:
    yield _python()
    for name, limit in LIBRARIES.items():
        yield _library(name, limit)
    yield Check("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    yield _memory(psutil.virtual_memory().available)
    yield _cuda()
    yield _bitsandbytes()
    yield _pocket(assets / "pocket")
    yield _writable(root)
    yield _disk(shutil.disk_usage(_nearest(root)).free)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info >= PYTHON:
        return Check("Python", found)
    wanted = ".".join(map(str, PYTHON))
    return Check("Python", found, f"install Python {wanted} and make the .venv folder with it")


def _library(name: str, limit: int) -> Check:
    try:
        installed = version(name)
    except PackageNotFoundError:
        if INSTALLED and name == "streamlit":  # a notebook needs no pages
            return Check(name, f"not installed; the pages need it: {_APP}")
        return Check(name, "not installed", _INSTALL)
    fits = int(installed.split(".")[0]) < limit
    return Check(name, installed, "" if fits else f"expected a version below {limit}; {_INSTALL}")


def _memory(available_bytes: int) -> Check:
    found = f"{available_bytes / 1e9:.1f} GB free"
    enough = available_bytes >= MEMORY_BYTES
    return Check("memory", found, "" if enough else "close other programs; training needs 1 GB")


def _cuda() -> Check:
    """Every GPU with its free memory. No GPU is no fault."""
    gpus = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, "
        f"{free_bytes(torch.device('cuda', i)) / 1e9:.1f} GB free"
        for i in range(torch.cuda.device_count())
    ]
    return Check("CUDA", "; ".join(gpus) or "none; everything runs on the CPU")


def _bitsandbytes() -> Check:
    """It quantises a few numbers. Without it there is no nf4, fp4 and int8, which is no fault."""
    name = "bitsandbytes"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "not installed; nf4, fp4 and int8 are not available")
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        numbers = torch.linspace(-1, 1, 64, device="cuda" if torch.cuda.is_available() else "cpu")
        error = (dequantize_4bit(*quantize_4bit(numbers)) - numbers).abs().max().item()
    except Exception as failure:  # noqa: BLE001 - a native library that does not fit can do anything
        return Check(name, f"{found} fails ({first_line(failure)})", "pip install -U bitsandbytes")
    works = error < _LARGEST_4_BIT_ERROR
    remedy = "" if works else "pip install -U bitsandbytes"
    return Check(name, f"{found}, 4 bits {'work' if works else 'give wrong numbers'}", remedy)


def _pocket(folder: Path) -> Check:
    """The embedded base loads, and its weights are those of its card."""
    remedy = (
        f"restore {folder} from the repository, or build it again: "
        "python -m csreft_core build-pocket --out NEW_FOLDER"
    )
    try:
        base = load_base(BaseConfig(path=str(folder), device="cpu"))
    except CsreftError as error:
        return Check("pocket base", str(error), remedy)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    found = f"{base.n_parameters:,} weights, SHA-256 {digest[:12]}"
    card = folder / "README.md"
    if not card.is_file() or digest not in card.read_text(encoding="utf-8"):
        return Check("pocket base", f"{found}, which is not that of its card", remedy)
    return Check("pocket base", found)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _writable(root: Path) -> Check:
    existing = _nearest(root)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        remedy = f"make {existing} writable, or set CSREFT_RUNS to another folder"
        return Check("runs folder", f"{root}: {error.strerror}", remedy)
    return Check("runs folder", f"{root}, writable")


def _disk(free_bytes: int) -> Check:
    enough = free_bytes >= DISK_BYTES
    remedy = "" if enough else "delete old runs, or set CSREFT_RUNS to another disk"
    return Check("disk", f"{free_bytes / 1e9:.1f} GB free for runs", remedy)
