"""Processes that train: where the system can fork, they start with the libraries loaded."""

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

import pytest

_CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
context: Any = multiprocessing.get_context("forkserver" if _CAN_FORK else "spawn")
if _CAN_FORK:
    context.set_forkserver_preload(
        [
            "csreft_core.cli.train",
            "csreft_core.training.loop",
            "transformers.models.llama.modeling_llama",
        ]
    )


def start(function: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    """A process of its own that runs a function of a test file; it ends with the test run."""
    process = context.Process(target=function, args=arguments, daemon=True)
    with pytest.MonkeyPatch.context() as patched:
        # A new process runs the file of `__main__`, which Streamlit's harness leaves as our app.
        patched.setitem(sys.modules, "__main__", sys.modules[__name__])
        process.start()
    return process
