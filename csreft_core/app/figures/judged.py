"""A figure of a Judge page: its table, picture and sentence, and the code and command for it.

As `views` does it for runs. The tables here are about comparisons of methods and published numbers;
code and command are written from the very call that made the figure.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.analysis.view_names import view_of
from csreft_core.app.figures.shown_code import call, imports, module
from csreft_core.app.page.cached import name_of, named
from csreft_core.app.page.widgets import screen, show_chart
from csreft_core.comparison.folder import Comparison, list_comparisons, shipped_comparisons
from csreft_core.config import ASSETS
from csreft_core.runs.all_runs import runs_root

SHIPPED = "example:"

Stamp = tuple[tuple[str, int], ...]


def all_comparisons() -> dict[str, Comparison]:
    """Every readable comparison by its id: the shipped ones, then those in the runs folder."""
    shipped = {SHIPPED + c.name: c for c in shipped_comparisons()}
    return shipped | {c.name: c for c in list_comparisons(runs_root())}


def comparison_label(identity: str) -> str:
    """What a list shows for an id."""
    name = identity.removeprefix(SHIPPED)
    return f"{name} (shipped)" if identity.startswith(SHIPPED) else name


def path_of(comparison: Comparison) -> str:
    """The folder, relative to the project where it lies below it and that leads there from here."""
    path, project = comparison.path.absolute(), ASSETS.parent.absolute()
    short = str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
    return short if Path(short).is_dir() else str(path)


def stamp(*folders: str) -> Stamp:
    """The files of comparisons with their times of change."""
    files = [
        file
        for folder in folders
        for file in (Path(folder) / "comparison.json", *Path(folder).glob("cells/*/result.json"))
        if file.exists()
    ]
    return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files))


@st.cache_data(max_entries=128, show_spinner="Computing …")
def _table(
    function: str,
    stamps: Stamp,  # noqa: ARG001 - part of the key
    arguments: tuple[tuple[str, Any], ...],
) -> pd.DataFrame:
    return named(function)(**dict(arguments))


def table(make: Callable[..., pd.DataFrame], stamps: Stamp = (), **arguments: Any) -> pd.DataFrame:
    """A table, computed once for equal arguments while the files of the stamps stay as they are.

    Args:
        make: A function `NAME_table` of `csreft_core.analysis`.
        stamps: See `stamp`.
        arguments: Strings, numbers and tuples.
    """
    return _table(name_of(make), stamps, tuple(sorted(arguments.items())))


def show(
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    *,
    name: str,
    sentence: Callable[[pd.DataFrame], str] | None = None,
    stamps: Stamp = (),
    options: dict[str, Any] | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Compute a table once, draw it with its sentence, and return it; see `views.show`."""
    found, options = table(make, stamps, **arguments), options or {}
    show_chart(
        draw,
        found,
        name=name,
        sentence=sentence(found) if sentence else "",
        code=code(make, draw, arguments, options),
        command=command(make, arguments),
        figure=draw(found, palette=screen(), **options),
        **options,
    )
    return found


def draw(figure: Callable[..., go.Figure], found: pd.DataFrame, *, name: str) -> None:
    """A figure of a table that stands on the page already, without code of its own."""
    show_chart(figure, found, name=name)


def code(
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> str:
    """Python that makes the same figure."""
    return "\n".join(
        (
            *imports(make, draw),
            "",
            f"table = {module(make)}.{make.__name__}({call([], arguments)})",
            f"charts.{draw.__name__}({call(['table'], options)}).show()",
        )
    )


def command(make: Callable[..., pd.DataFrame], arguments: dict[str, Any]) -> str:
    """The command that prints the same table."""
    words = ["python", "-m", "csreft_core", "judge", view_of(make)]
    words += [arguments["comparison"]] if "comparison" in arguments else []
    words += ["--table", make.__name__.removesuffix("_table")]
    for name, value in arguments.items():
        if name != "comparison" and value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            words += ["--set", f"{name}={text}"]
    return shlex.join([*words, "--csv"])
