"""The code and the command that make a figure again, as text to copy. Knows no Streamlit."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd


def call(first: Sequence[str], arguments: dict[str, Any]) -> str:
    """What stands between the brackets of a call."""
    return ", ".join([*first, *(f"{name}={value!r}" for name, value in arguments.items())])


def imports(make: Callable[..., pd.DataFrame], draw: Callable[..., Any]) -> tuple[str, str]:
    """The lines that bring the tables, under the name of their module, and the `charts`."""
    return f"from {_package(make)} import {module(make)}", (
        f"from {_package(draw)} import {module(draw)} as charts"
    )


def module(function: Callable[..., Any]) -> str:
    """The last part of the name of a function's module."""
    return function.__module__.rpartition(".")[2]


def _package(function: Callable[..., Any]) -> str:
    return function.__module__.rpartition(".")[0]
