"""A figure on a page: its table, computed once, its picture, its sentence, its code and command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.app.figures.shown_code import code, command
from csreft_core.app.figures.source import Source
from csreft_core.app.page import cached, kept
from csreft_core.app.page.cached import Stamp, stamp_of
from csreft_core.app.page.widgets import screen, show_chart
from csreft_core.charts.theme import Palette
from csreft_core.runs.all_runs import Run

if TYPE_CHECKING:
    from csreft_core.analysis.skills.subject import SkillSubject

Arguments = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Figure:
    """A figure of a page, whatever it is drawn from.

    Attributes:
        name: Of the help text, up to the first `-`, and of the downloads.
        make: Its table, a function `NAME_table(...)` of `csreft_core.analysis`; the first argument
            is the opened source where that has to be opened.
        draw: Its chart, a function `(table, *, palette, ...)` of `csreft_core.charts`.
        sentence: What the table shows, in words; None says nothing.
    """

    name: str
    make: Callable[..., pd.DataFrame]
    draw: Callable[..., go.Figure]
    sentence: Callable[[pd.DataFrame], str] | None = None

    def show(
        self,
        source: Source,
        *,
        sentence: Callable[[pd.DataFrame], str] | None = None,
        heading: str | None = None,
        options: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> pd.DataFrame:
        """Compute the table once, draw it with its sentence, and return it.

        Args:
            source: What it is about.
            sentence: Instead of the figure's own.
            heading: Instead of the chart's question.
            options: Keyword arguments of `draw`: plain values.
            arguments: Keyword arguments of `make`: strings, numbers and tuples.
        """
        sentence, options = sentence or self.sentence, options or {}
        key = _table_key(source, self.make, arguments)
        table = _table(*key)
        show_chart(
            self.draw,
            table,
            name=self.name,
            sentence=sentence(table) if sentence else "",
            heading=heading,
            code=code(source, self.make, self.draw, arguments, options),
            command=command(source, self.make, arguments),
            figure=_plotly_figure(_name_of(self.draw), options, screen(), key),
            **options,
        )
        return table


def table_of(source: Source, make: Callable[..., pd.DataFrame], **arguments: Any) -> pd.DataFrame:
    """A table, computed once for equal arguments while the files it is made from stay as they are.

    Args:
        source: What it is about.
        make: A function `NAME_table` of `csreft_core.analysis`.
        arguments: Strings, numbers and tuples; `others` are folders of more runs, `comparison` and
            `comparisons` are folders too.
    """
    return _table(*_table_key(source, make, arguments))


def _table_key(
    source: Source, make: Callable[..., pd.DataFrame], arguments: Mapping[str, Any]
) -> tuple[str, Source, tuple[Stamp, ...], Arguments]:
    return _name_of(make), source, _stamps(source, arguments), tuple(sorted(arguments.items()))


@st.cache_data(max_entries=512, show_spinner="Computing …")
def _table(
    make: str,
    source: Source,
    stamps: tuple[Stamp, ...],  # noqa: ARG001 - part of the key
    arguments: Arguments,
) -> pd.DataFrame:
    def compute() -> pd.DataFrame:
        return _function(make)(*_subjects(source), **dict(arguments))

    if source.command != "inspect":
        return compute()
    return kept.table(Run(Path(source.path)), make, dict(arguments), compute)


# Drawing takes longer than all else on a warm page. Shared by all sessions, so never changed.
@st.cache_resource(max_entries=512, show_spinner=False)
def _plotly_figure(
    draw: str,
    options: dict[str, Any],
    palette: Palette,
    table_key: tuple[str, Source, tuple[Stamp, ...], Arguments],
) -> go.Figure:
    return _function(draw)(_table(*table_key), palette=palette, **options)


def _subjects(source: Source) -> tuple[Any, ...]:
    """The source as its tables want it: opened, or nothing."""
    if source.command == "inspect":
        return (cached.subject_of(Run(Path(source.path))),)
    return (skill_subject(source),) if source.command == "check-skills" else ()


def skill_subject(source: Source) -> "SkillSubject":
    """The opened skill set of a source; raises `SkillSetError`."""
    return _skill_subject(source, stamp_of(Path(source.path)))


@st.cache_resource(max_entries=8, show_spinner="Reading the skill set …")
def _skill_subject(source: Source, stamp: Stamp) -> "SkillSubject":  # noqa: ARG001 - part of the key
    from csreft_core.analysis.skills.subject import open_skills

    return open_skills(source.path, source.settings)


def _stamps(source: Source, arguments: Mapping[str, Any]) -> tuple[Stamp, ...]:
    """The files that decide what a table shows, with their times of change."""
    if source.command == "inspect":
        runs = [Run(Path(path)) for path in (source.path, *arguments.get("others", ()))]
        return tuple(each for run in runs for each in cached.stamps_of(run))
    if source.command == "check-skills":
        return (stamp_of(Path(source.path)),)
    single = (arguments["comparison"],) if "comparison" in arguments else ()
    folders = [Path(path) for path in (*single, *arguments.get("comparisons", ()))]
    files = [
        file
        for folder in folders
        for file in (folder / "comparison.json", *folder.glob("cells/*/result.json"))
    ]
    return tuple(sorted(map(stamp_of, files)))


def _name_of(function: Callable[..., Any]) -> str:
    """A function as part of a cache's key."""
    return f"{function.__module__}.{function.__name__}"


def _function(name: str) -> Callable[..., Any]:
    """The function of such a key."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)
