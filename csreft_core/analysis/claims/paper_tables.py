"""The papers' own results as tables, each number with where it is printed and who measured it.

Nothing here was measured by this project. The numbers lie in `assets/paper_tables`.
"""

import json
from functools import cache
from typing import Any

import pandas as pd

from csreft_core.config import ASSETS
from csreft_core.errors import ConfigError

TABLES = ("results", "contents", "release")
"""The tables of this view, `NAME_table`."""

AVERAGE = "mean"
"""Task under which a printed average stands."""


@cache
def _tables() -> dict[str, dict[str, Any]]:
    text = (ASSETS / "paper_tables" / "results.json").read_text(encoding="utf-8")
    return {table["name"]: table for table in json.loads(text)}


def table_names() -> tuple[str, ...]:
    """The tables that `results_table` knows."""
    return tuple(_tables())


def contents_table() -> pd.DataFrame:
    """Which tables there are.

    Returns:
        Columns table (the name for `results_table`), title, printed_in, unit, note, rows, copied
        (rows that the paper took from another one).
    """
    rows = [
        (
            name,
            t["title"],
            t["printed_in"],
            t["unit"],
            t["note"],
            len(t["rows"]),
            sum("copied" in row["origin"] for row in t["rows"]),
        )
        for name, t in _tables().items()
    ]
    columns = ["table", "title", "printed_in", "unit", "note", "rows", "copied"]
    return pd.DataFrame(rows, columns=columns)


def results_table(*, name: str = "csreft") -> pd.DataFrame:
    """One table of a paper, a row for each number.

    Args:
        name: One of `table_names`.

    Returns:
        Columns base, method, share (trained parameters in %; NaN where none is printed), task
        (`mean` for a printed average), value, deviation (standard deviation over seeds, NaN where
        none is printed), unit, printed_in, origin (who measured it, and who copied it).

    Raises:
        ConfigError: no table has that name.
    """
    if name not in _tables():
        raise ConfigError(f"unknown table {name!r}; choose one of {', '.join(table_names())}")
    table = _tables()[name]
    rows = []
    for row in table["rows"]:
        values = dict(zip(table["tasks"], row["scores"], strict=True))
        if row["average"] is not None:
            values[AVERAGE] = row["average"]
        rows += [
            (
                row["base"],
                row["method"],
                row["share"],
                task,
                value,
                row.get("deviation"),
                table["unit"],
                table["printed_in"],
                row["origin"],
            )
            for task, value in values.items()
        ]
    columns = [
        "base",
        "method",
        "share",
        "task",
        "value",
        "deviation",
        "unit",
        "printed_in",
        "origin",
    ]
    return pd.DataFrame(rows, columns=columns).astype({"share": float, "deviation": float})


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `results_table` as the paper prints it: a column for each task."""
    keys = ["base", "method", "share", "origin"]
    columns = list(dict.fromkeys(table["task"]))
    lines = table.pivot_table(
        index=keys, columns="task", values="value", sort=False, dropna=False, observed=True
    )
    lines = lines.dropna(how="all").reset_index()[[*keys[:3], *columns, "origin"]]
    return lines.rename_axis(columns=None)


def release_table() -> pd.DataFrame:
    """What the CS-ReFT paper says beside what its released code does.

    Returns:
        Columns topic, paper, paper_at (section), release, release_at (file and lines).
    """
    text = (ASSETS / "paper_tables" / "release.json").read_text(encoding="utf-8")
    return pd.DataFrame(json.loads(text)["rows"])


def release_sources() -> tuple[str, str]:
    """Which version of the paper and which commit of the code `release_table` is about."""
    sources = json.loads((ASSETS / "paper_tables" / "release.json").read_text(encoding="utf-8"))
    return sources["paper"], sources["release"]
