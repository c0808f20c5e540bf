"""A figure of an Inspect page: its table, picture and sentence, and the code and command for it.

The code and the command are written from the very call that made the figure, so they cannot differ
from it.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from csreft_core.analysis.view_names import view_of
from csreft_core.app.figures.shown_code import call, imports, module
from csreft_core.app.page import cached
from csreft_core.app.page.widgets import screen, show_chart
from csreft_core.config import ASSETS
from csreft_core.runs.all_runs import Run

_OWN_OPTIONS = {"split": "--split", "gates": "--gates"}


def show(
    run: Run,
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    *,
    name: str,
    sentence: Callable[[pd.DataFrame], str] | None = None,
    heading: str | None = None,
    options: dict[str, Any] | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Compute a table once, draw it with its sentence, and return it.

    Args:
        run: What it is about.
        make: A function `NAME_table(subject, ...)` of `csreft_core.analysis`.
        draw: A function `(table, *, palette, ...)` of `csreft_core.charts`.
        name: Of the help text, up to the first `-`, and of the downloads.
        sentence: What the table shows, in words.
        heading: Instead of the chart's question.
        options: Keyword arguments of `draw`: plain values.
        arguments: Keyword arguments of `make`: strings, numbers and tuples.
    """
    table = cached.table(make, run, **arguments)
    options = options or {}
    show_chart(
        draw,
        table,
        name=name,
        sentence=sentence(table) if sentence else "",
        heading=heading,
        code=code(run, make, draw, arguments, options),
        command=command(run, make, arguments),
        figure=cached.figure(
            draw, make, run, palette=screen(), options=options, arguments=arguments
        ),
        **options,
    )
    return table


def code(
    run: Run,
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> str:
    """Python that makes the same figure: three lines after the imports."""
    tables, charts = imports(make, draw)
    return "\n".join(
        (
            "from csreft_core.analysis.subject import open_subject",
            tables,
            charts,
            "",
            f"subject = open_subject({path_of(run)!r})",
            f"table = {module(make)}.{make.__name__}({call(['subject'], arguments)})",
            f"charts.{draw.__name__}({call(['table'], options)}).show()",
        )
    )


def command(run: Run, make: Callable[..., pd.DataFrame], arguments: dict[str, Any]) -> str:
    """The command that prints the same table."""
    words = ["python", "-m", "csreft_core", "inspect", path_of(run), view_of(make)]
    words += ["--table", make.__name__.removesuffix("_table")]
    for name, value in arguments.items():
        if name == "prompts":
            words += ["--prompt", *value] if value else []
        elif name in _OWN_OPTIONS:
            words += [f"{_OWN_OPTIONS[name]}={value}"]
        elif value is not None:
            words += ["--set", f"{name}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join([*words, "--csv"])


def path_of(run: Run) -> str:
    """The run's folder, relative to the project where it lies below it."""
    path = run.path.absolute()
    project = ASSETS.parent.absolute()
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(Path(path))
