"""What the pages of a shipped run show at first: kept beside it, so that nobody waits for it.

`python -m csreft_core build-views` opens the pages and keeps what they ask for. It is taken only
while the files of the run, and the adapters that it is compared with, are those that it was made
from; a run that was trained anew, or that did not come with the program, is computed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from pandas.testing import assert_frame_equal

from csreft_core.config import PROJECT
from csreft_core.errors import CsreftError
from csreft_core.files import write_atomic
from csreft_core.runs import all_runs
from csreft_core.runs.all_runs import Run

FILE = "views.jsonl"
_ADAPTER = "adapter.safetensors"
_REFUSED = "refused: "
_MADE_FROM = (_ADAPTER, "config.json", "skills.jsonl", "metrics.jsonl")

Views = dict[str, Any]
"""What was computed, by what it is and its arguments, both as one text of JSON."""

_noted: dict[Path, Views] | None = None


@contextmanager
def noting() -> Iterator[dict[Path, Views]]:
    """Nothing is read from what is kept; what is computed instead is given, by the run's folder.

    For one process that opens pages one after the other.
    """
    global _noted
    _noted = {}
    try:
        yield _noted
    finally:
        _noted = None


def is_kept(run: Run) -> bool:
    """Whether the run's first views can be shown without its base."""
    return bool(_views(run))


def find(run: Run, what: str, arguments: Mapping[str, Any]) -> Any:
    """What is kept, as JSON gives it; None where it has to be computed.

    Args:
        run: What it is about.
        what: A table by its whole name, or another name.
        arguments: Plain values.
    """
    return _views(run).get(_key(what, arguments))


def note(run: Run, what: str, arguments: Mapping[str, Any], value: Any) -> None:
    """Take note of what was computed, where somebody wants to keep it."""
    if _noted is not None:
        _noted.setdefault(run.path, {})[_key(what, arguments)] = value


def value(run: Run, what: str, arguments: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """What is kept, else what `compute` gives; both are plain values of JSON."""
    result = find(run, what, arguments)
    if result is None:
        result = compute()
        note(run, what, arguments, result)
    return result


def table(
    run: Run, what: str, arguments: Mapping[str, Any], compute: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """The kept table, else the one that `compute` gives.

    Raises:
        CsreftError: there is no such table of this run; that is kept too.
    """
    columns = find(run, what, arguments)
    if columns is not None and _REFUSED in columns:
        raise CsreftError(columns[_REFUSED])
    if columns is not None:
        return table_of_columns(columns)
    try:
        result = compute()
    except CsreftError as error:
        note(run, what, arguments, {_REFUSED: str(error)})
        raise
    if _noted is not None:
        note(run, what, arguments, columns_of_table(result))
    return result


def write(run: Run, views: Views) -> Path:
    """Keep what pages have computed beside the run; one line each, in a fixed order."""
    others = {name for key in views for name in _compared_with(key)}
    first = {"made_from": _hashes(run.path), "others": _others(run.path, others)}
    lines = [_text(first), *(f"[{key[1:-1]},{_text(views[key])}]" for key in sorted(views))]
    path = run.path / FILE
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def read(run: Run) -> Views:
    """What is kept of a shipped run; nothing where it was made from other files than these."""
    path = run.path / FILE
    if not path.is_file():
        return {}
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    first = json.loads(head)
    names = first["others"]
    if first != {"made_from": _hashes(run.path), "others": _others(run.path, names)}:
        return {}
    entries = map(json.loads, lines)
    return {_key(what, arguments): result for what, arguments, result in entries}


def columns_of_table(table: pd.DataFrame) -> dict[str, Any]:
    """A table as JSON, from which `table_of_columns` makes the very same one.

    Texts that come again stand once, with their places, and so does what is the same in all rows.
    """
    columns = {str(name): _column(table[name]) for name in table}
    assert_frame_equal(table_of_columns(columns), table, check_exact=True)
    return columns


def table_of_columns(columns: Mapping[str, Any]) -> pd.DataFrame:
    """The table that is kept as these columns."""
    return pd.DataFrame({name: _series(**column) for name, column in columns.items()})


def _column(column: pd.Series) -> dict[str, Any]:
    values = [None if pd.isna(value) else value for value in column.tolist()]
    different = dict.fromkeys(values)
    result: dict[str, Any] = {"type": str(column.dtype), "values": values}
    if len(different) == 1 < len(values):
        result |= {"values": list(different), "n": len(values)}
    elif any(isinstance(value, str) for value in different):
        order = {value: place for place, value in enumerate(different)}
        result |= {"values": list(different), "places": [order[value] for value in values]}
    return result


def _series(
    type: str, values: list[Any], n: int = 1, places: Sequence[int] | None = None
) -> pd.Series:
    """A column of n equal values, or of values at their places, or of the values themselves."""
    every = values * n if places is None else [values[place] for place in places]
    return pd.Series(every, dtype=type)


@st.cache_resource(max_entries=64, show_spinner=False)
def _read(stamps: tuple[tuple[str, int], ...], _run: Run) -> Views:  # noqa: ARG001 - the key
    return read(_run)


def _views(run: Run) -> Views:
    if _noted is not None or run.path.absolute().parent != all_runs.SHIPPED_RUNS:
        return {}
    files = [run.path / name for name in (FILE, *_MADE_FROM)]
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in files if file.exists())
    return _read(stamps, run)


def _hashes(folder: Path) -> dict[str, str]:
    return {name: _hash(folder / name) for name in _MADE_FROM}


def _others(folder: Path, names: Any) -> dict[str, str]:
    return {name: _hash(folder.parent / name / _ADAPTER) for name in sorted(names)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def _key(what: str, arguments: Mapping[str, Any]) -> str:
    """As one text of JSON; folders of runs by their short path, wherever the process runs."""
    project = f"{PROJECT.absolute()}/"
    others = [str(other).removeprefix(project) for other in arguments.get("others", ())]
    plain = {**arguments, "others": others} if "others" in arguments else dict(arguments)
    return _text([what, dict(sorted(plain.items()))])


def _compared_with(key: str) -> Iterator[str]:
    _, arguments = json.loads(key)
    return (Path(other).name for other in arguments.get("others", ()))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
