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

from tests import browsers, network_guard

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


def _run_inner(tmp_path: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a process of their own, under this folder's conftest."""
    shutil.copy(TESTS / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_inner.py").write_text(test, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


INNER = f"""
import contextlib, os, socket, sys, types

class Torch(types.ModuleType):  # the real one takes seconds to load
    def set_num_threads(self, n):
        self.n_threads = n

sys.modules["torch"] = torch = Torch("torch")

def test_calls_home():
    with contextlib.suppress(OSError), socket.socket() as client:
        client.connect({OUTSIDE!r})

def test_changes_the_threads():
    torch.set_num_threads(7)

def test_after():
    assert torch.n_threads == min(2, int(os.environ["OMP_NUM_THREADS"]))
"""


def test_a_swallowed_attempt_fails_its_test_and_the_thread_count_is_put_back(tmp_path):
    result = _run_inner(tmp_path, INNER)
    assert "3 passed, 1 error" in result.stdout, result.stdout
    assert "ERROR test_inner.py::test_calls_home" in result.stdout
    assert "tried to leave this machine" in result.stdout


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_without_a_browser_ci_fails_and_others_skip(monkeypatch, ci, outcome):
    monkeypatch.setattr(browsers, "find_chromium", lambda: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no Chromium"):
        browsers.path_of_chromium()


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
