"""Python environments of the compared libraries, built once in a cache folder.

The libraries exclude each other by the transformers that they need, so none of them is in
requirements.txt. CSREFT_BENCHMARKS names another cache folder.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """What to install; `alone` without the packages that it asks for."""

    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()


PEERS = {
    "pyreft": Environment(
        # Its own list has 207 packages, among them Jupyter and wandb; these are what it imports.
        (
            "transformers==4.45.1",
            "numpy==2.3.5",
            "huggingface-hub<1",
            "datasets<4",
            "accelerate",
            "matplotlib",
            "networkx",
            "seaborn",
        ),
        alone=("pyreft==0.1.0", "pyvene==0.1.8"),
    ),
    "adapters": Environment(("adapters==1.3.0", "transformers==4.57.6")),
    "peft": Environment(("peft==0.21.2", "transformers==5.23.0")),
}


class PeerMissing(Exception):
    """A library could not be installed or did not run; the message is the reason."""


def cache_folder() -> Path:
    """Where the environments are kept."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "csreft-benchmarks"
    return Path(os.environ.get("CSREFT_BENCHMARKS", default))


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is built if it is not there.

    Raises:
        PeerMissing: it cannot be built.
    """
    environment = PEERS[peer]
    # The same torch for all, so that only the libraries differ.
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    key = repr((torch, environment, sys.version_info[:2])).encode()
    folder = cache_folder() / f"{peer}-{hashlib.sha256(key).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "finished"
    if marker.exists():
        return python
    print(f"building the environment of {peer} in {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    _pip(python, torch, *environment.packages)
    if environment.alone:
        _pip(python, "--no-deps", *environment.alone)
    marker.touch()
    return python


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise PeerMissing(f"pip install: {_last_line(process.stderr)}")


def measure(library: str, task: dict[str, Any]) -> dict[str, Any]:
    """What `benchmarks.measure` prints for a library, run in its environment.

    Raises:
        PeerMissing: it cannot be installed or does not run.
    """
    python = Path(sys.executable) if library == "csreft" else python_of(library)
    threads = str(task["threads"])
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    process = subprocess.run(
        [
            str(python),
            "-W",
            "ignore",
            "-m",
            "benchmarks.measure",
            json.dumps({**task, "library": library}),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **offline, "OMP_NUM_THREADS": threads},
    )
    if process.returncode:
        raise PeerMissing(_last_line(process.stderr))
    return json.loads(process.stdout.splitlines()[-1])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or ["no message"])[-1][:300]
