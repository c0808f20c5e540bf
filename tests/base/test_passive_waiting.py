"""Threads of the app and of every command sleep while they wait; OpenMP itself is asked."""

import os
import re
import subprocess
import sys

import pytest

from tests.repository import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have another OpenMP, which says it otherwise"
)


def _spins(program: str, **settings: str) -> bool:
    """Whether threads spin before they sleep: what OpenMP says itself when torch loads it."""
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
        pytest.param("import csreft_core.app, torch", False, id="a page"),
        pytest.param(
            "import sys; sys.argv[1:] = ['--help']\n"
            "from csreft_core.__main__ import _start; _start(); import torch",
            False,
            id="a command",
        ),
        pytest.param("import csreft_core, torch", True, id="without it they spin"),
    ],
)
def test_openmp_is_told_before_it_is_loaded(program, spins):
    assert _spins(program) == spins


def test_what_the_user_has_set_stays():
    assert _spins("import csreft_core.app, torch", OMP_WAIT_POLICY="active")
