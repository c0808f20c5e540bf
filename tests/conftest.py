"""Shared fixtures. Every test runs offline, on the CPU, with two threads."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Set before any library reads them; subprocesses of the tests inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["STREAMLIT_SERVER_HEADLESS"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from jaxtyping import install_import_hook

from tests import browsers, network_guard
from tests.repository import ROOT

# A call for each of thousands of rows, and for each block of each forward. What crosses them is
# checked where it is used.
UNCHECKED = ("skill_set", "attach")


def _modules_with_shapes() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "csreft_core").rglob("*.py")
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
        and path.stem not in UNCHECKED
    ]


# Every call of a function with shapes in its annotations is checked. Only there: checking all
# annotations takes half as long again, and those without shapes pyright reads.
install_import_hook(_modules_with_shapes(), "beartype.beartype")

N_THREADS = min(2, int(os.environ["OMP_NUM_THREADS"]))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m fast` imports no file without such a test: all imports take longer than the tests."""
    marker = config.option.markexpr
    if not marker.isidentifier() or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if f"pytest.mark.{marker}" in text else True


def pytest_collection_finish() -> None:
    """What the libraries hold stays: half the time of full collections went through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _stay_on_this_machine() -> Iterator[None]:
    with network_guard.watch() as attempts:
        yield
    assert not attempts, f"the test tried to leave this machine: {attempts}"


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """A test that trains may set the thread count; the next one starts with the usual one."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(N_THREADS)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(N_THREADS)


@pytest.fixture
def tiny_llama():
    """A random Llama, small enough to build for each test: d_model 32, 3 blocks, 96 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    # Embedding 96 * 32; a block: q and o 32 * 32, k and v 32 * 16, three 32 * 64, two norms of 32;
    # the last norm of 32. A misspelt setting would silently give a model of billions.
    n_parameters = sum(p.numel() for p in model.parameters())
    assert n_parameters == 96 * 32 + 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32
    return model


@pytest.fixture
def folder(tiny_llama, tmp_path: Path) -> Path:
    """The folder of a base: `tiny_llama` with its tokeniser, as transformers saves them."""
    from tests.tiny import tiny_tokenizer

    path = tmp_path / "base"
    tiny_llama.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def tmp_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder, which the library and its subprocesses use."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("CSREFT_RUNS", str(folder))
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's Chromium or Chrome. CI fails without one, others skip."""
    return browsers.path_of_chromium()
