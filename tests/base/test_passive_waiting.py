"""Threads of the app and of every command sleep while they wait; OpenMP itself is asked."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have another OpenMP, which says it otherwise"
)


def _load_openmp() -> str:
    """Loads torch's own OpenMP and nothing else of it, in a twentieth of the time."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    (library,) = (Path(spec.origin).parent / "lib").glob("libgomp*.so*")
    return f"import ctypes; ctypes.CDLL({str(library)!r})"


def _spins(program: str, **settings: str) -> bool:
    """Whether threads spin before they sleep: what OpenMP says itself when it is loaded."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**surroundings, "OMP_DISPLAY_ENV": "verbose", **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    (turns,) = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    return int(turns) > 0


@pytest.mark.parametrize(
    ("program", "spins"),
    [
        pytest.param("import csreft_core.app", False, id="a page"),
        pytest.param(
            "import sys; sys.argv[1:] = ['--help']\n"
            "from csreft_core.__main__ import start; start()",
            False,
            id="a command",
        ),
        pytest.param("import csreft_core", True, id="without it they spin"),
    ],
)
def test_openmp_is_told_before_it_is_loaded(program, spins):
    assert _spins(f"{program}\n{_load_openmp()}") == spins


def test_what_the_user_has_set_stays():
    assert _spins(f"import csreft_core.app\n{_load_openmp()}", OMP_WAIT_POLICY="active")
