"""A figure about a skill set: its table, picture and sentence, and the code and command for it.

As `views` for runs; here the tables are made from a skill set and the settings of the next run.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from csreft_core.analysis.skills.subject import SkillSubject, open_skills
from csreft_core.app.figures.shown_code import call, imports, module
from csreft_core.app.page.cached import name_of, named
from csreft_core.app.page.widgets import screen, show_chart
from csreft_core.charts.theme import Palette
from csreft_core.config import Config, assignments, preset

# What the tables depend on; other settings must not empty their cache.
_MATTERS = (
    "base.path",
    "base.revision",
    "data.template",
    "data.skill_column",
    "adapter.positions",
    "adapter.tied",
    "train.batch_size",
    "train.accumulate",
    "train.seed",
    "train.max_length",
)


@dataclass(frozen=True)
class Source:
    """A skill set and the settings that matter for it: what a cache can be keyed by.

    Attributes:
        path: As `data.path`.
        settings: What differs from the preset `recommended`, as `path=value`.
    """

    path: str
    settings: tuple[str, ...]

    @property
    def stamp(self) -> int:
        """The file's time of change; 0 for a shipped set."""
        file = Path(self.path)
        return file.stat().st_mtime_ns if file.exists() else 0


def source_of(config: Config) -> Source:
    """The skill set of a config."""
    different = assignments(preset("recommended"), config)
    kept = (text for text in different if text.partition("=")[0] in _MATTERS)
    return Source(config.data.path, tuple(kept))


@st.cache_resource(max_entries=8, show_spinner="Reading the skill set …")
def _subject(source: Source, stamp: int) -> SkillSubject:  # noqa: ARG001 - part of the key
    return open_skills(source.path, source.settings)


def subject_of(source: Source) -> SkillSubject:
    """The opened skill set; raises `SkillSetError`."""
    return _subject(source, source.stamp)


@st.cache_data(max_entries=128, show_spinner="Computing …")
def _table(
    function: str, source: Source, stamp: int, arguments: tuple[tuple[str, Any], ...]
) -> pd.DataFrame:
    return named(function)(_subject(source, stamp), **dict(arguments))


@st.cache_resource(max_entries=128, show_spinner=False)
def _figure(
    draw: str,
    make: str,
    source: Source,
    stamp: int,
    arguments: tuple[tuple[str, Any], ...],
    options: dict[str, Any],
    palette: Palette,
) -> go.Figure:
    table = _table(make, source, stamp, arguments)
    return named(draw)(table, palette=palette, **options)


def table_of(source: Source, make: Callable[..., pd.DataFrame], **arguments: Any) -> pd.DataFrame:
    """A table of a skill set, computed once while neither file nor settings change."""
    return _table(name_of(make), source, source.stamp, tuple(sorted(arguments.items())))


def show(
    source: Source,
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., go.Figure],
    *,
    name: str,
    sentence: Callable[[pd.DataFrame], str],
    options: dict[str, Any] | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Compute a table once, draw it with its sentence, and return it.

    Args:
        source: What it is about.
        make: A function `NAME_table(subject, ...)` of `csreft_core.analysis`.
        draw: A function `(table, *, palette, ...)` of `csreft_core.charts`.
        name: Of the help text and of the downloads.
        sentence: What the table shows, in words.
        options: Keyword arguments of `draw`.
        arguments: Keyword arguments of `make`.
    """
    table, options = table_of(source, make, **arguments), options or {}
    given = tuple(sorted(arguments.items()))
    figure = _figure(name_of(draw), name_of(make), source, source.stamp, given, options, screen())
    show_chart(
        draw,
        table,
        name=name,
        sentence=sentence(table),
        code=code(source, make, draw, arguments, options),
        command=command(source, make, arguments),
        figure=figure,
        **options,
    )
    return table


def code(
    source: Source,
    make: Callable[..., pd.DataFrame],
    draw: Callable[..., Any],
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> str:
    """Python that makes the same figure: three lines after the imports."""
    tables, charts = imports(make, draw)
    opened = ", ".join(
        [repr(source.path), *([repr(list(source.settings))] * bool(source.settings))]
    )
    drawn = f"charts.{draw.__name__}({call(['table'], options)})"
    is_page = draw.__name__.endswith("_page")
    return "\n".join(
        (
            *(["from pathlib import Path", ""] if is_page else []),
            "from csreft_core.analysis.skills.subject import open_skills",
            tables,
            charts,
            "",
            f"subject = open_skills({opened})",
            f"table = {module(make)}.{make.__name__}({call(['subject'], arguments)})",
            f'Path("{module(draw)}.html").write_text({drawn}, encoding="utf-8")'
            if is_page
            else f"{drawn}.show()",
        )
    )


def command(source: Source, make: Callable[..., pd.DataFrame], arguments: dict[str, Any]) -> str:
    """The command that prints the same table."""
    words = ["python", "-m", "csreft_core", "check-skills", source.path]
    words += ["--table", make.__name__.removesuffix("_table")]
    for name, value in arguments.items():
        words += [f"--{name}={value}"]
    for setting in source.settings:
        words += ["--set", setting]
    return shlex.join([*words, "--csv"])
