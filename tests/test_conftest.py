"""The guards of the test run itself can fail."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from tests import network_guard

TESTS = Path(__file__).parent
# 192.0.2.1 is reserved for documentation: nothing answers there, even without the guard.
OUTSIDE = ("192.0.2.1", 9)


def test_the_guard_blocks_and_remembers_a_connection_to_the_outside():
    with network_guard.watch() as attempts, socket.socket() as client:
        with pytest.raises(network_guard.OutsideConnection):
            client.connect(OUTSIDE)
        with pytest.raises(network_guard.OutsideConnection):
            socket.getaddrinfo("example.invalid", 443)
    assert len(attempts) == 2


def test_the_guard_lets_loopback_pass():
    with network_guard.watch() as attempts, socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
    assert attempts == []


@pytest.mark.parametrize(
    ("host", "stays"),
    [
        ("127.0.0.1", True),
        (b"127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", True),
        (None, True),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("huggingface.co", False),
        ("2001:db8::1", False),
    ],
)
def test_loopback_is_told_from_the_outside(host, stays):
    assert network_guard.is_loopback(host) is stays


def _run_inner(tmp_path: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test in a process of its own, under this folder's conftest."""
    shutil.copy(TESTS / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_inner.py").write_text(test, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_attempt_fails_the_test_even_when_the_error_is_swallowed(tmp_path):
    result = _run_inner(
        tmp_path,
        "import contextlib, socket\n"
        "def test_calls_home():\n"
        "    with contextlib.suppress(OSError), socket.socket() as client:\n"
        f"        client.connect({OUTSIDE!r})\n",
    )
    assert result.returncode == 1, result.stdout
    assert "tried to leave this machine" in result.stdout


def test_a_test_that_changes_the_thread_count_leaves_no_trace(tmp_path):
    result = _run_inner(
        tmp_path,
        "import torch\n"
        "before = min(2, torch.get_num_threads())\n"
        "def test_changes():\n"
        "    torch.set_num_threads(before + 2)\n"
        "def test_after():\n"
        "    assert torch.get_num_threads() == before\n",
    )
    assert "2 passed" in result.stdout, result.stdout


def test_without_a_browser_ci_fails_and_others_skip(tmp_path):
    test = (
        "import conftest\n"
        "conftest.find_chromium = lambda: None\n"
        "def test_browser(chromium):\n"
        "    pass\n"
    )
    in_ci = _run_inner(tmp_path, test, CI="true")
    elsewhere = _run_inner(tmp_path, test, CI="")
    assert "1 error" in in_ci.stdout, in_ci.stdout
    assert "1 skipped" in elsewhere.stdout, elsewhere.stdout


def test_the_tests_are_offline_and_the_tiny_model_is_tiny(tiny_llama, tmp_runs):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["CSREFT_RUNS"] == str(tmp_runs)
    assert sum(p.numel() for p in tiny_llama.parameters()) < 50_000


def test_shapes_in_annotations_are_checked():
    from csreft_core.reft.positions import token_index
    from csreft_core.skills.batching import step_rows

    assert step_rows(4, 2, 0, seed=0).shape == (2,)
    token_index(torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        token_index(torch.ones(3, dtype=torch.bool))
