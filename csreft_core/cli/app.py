"""`app`: the pages, served by Streamlit from the shipped `app.py`."""

import argparse
import os
import runpy
import sys
from importlib.util import find_spec

from csreft_core.config import PROJECT
from csreft_core.errors import ConfigError


def app_command(args: argparse.Namespace) -> int:
    """Serve the pages until the process is stopped.

    Streamlit reads its settings from the folder of `app.py`, so they hold in whatever folder this
    is called.

    Raises:
        ConfigError: Streamlit is not installed.
    """
    check_streamlit()
    if args.runs is not None:
        os.environ["CSREFT_RUNS"] = args.runs
    sys.argv = ["streamlit", "run", str(PROJECT / "app.py"), *_options(args)]
    # In this process, so that what stops it stops the server.
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)
    return 0


def check_streamlit() -> None:
    """See that the pages can be drawn; raises `ConfigError` where Streamlit is not installed."""
    if find_spec("streamlit") is None:
        raise ConfigError("the pages need Streamlit; run: pip install 'csreft[app]'")


def _options(args: argparse.Namespace) -> list[str]:
    options = [f"--server.port={args.port}"]
    if args.headless:
        options.append("--server.headless=true")
    if args.address is not None:
        options.append(f"--server.address={args.address}")
    if args.allow:
        options += [f"--server.allowedHosts={host}" for host in ("localhost", *args.allow)]
    return options
