"""The code and the command that make a figure again, as text to copy. Knows no Streamlit.

Both are written from the very call that made the figure, so they cannot differ from it.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from csreft_core.analysis.view_names import view_of
from csreft_core.app.figures.source import Source, short_path

_OPENERS = {
    "inspect": ("csreft_core.analysis.subject", "open_subject"),
    "check-skills": ("csreft_core.analysis.skills.subject", "open_skills"),
}
"""Module and function that open a source for its tables; those of `judge` need nothing opened."""
_FLAGS: dict[str, dict[str, str]] = {
    "inspect": {"prompts": "--prompt", "split": "--split", "gates": "--gates"},
    "check-skills": {"step": "--step"},
    "judge": {},
}
"""Arguments of tables for which a command has a flag; the others go with `--set`."""


def code(
    source: Source,
    make: Callable[..., Any],
    draw: Callable[..., Any],
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """Python that makes a figure.

    Args:
        source: What the figure is about.
        make: Its table, a function of `csreft_core.analysis`.
        draw: Its chart, a function of `csreft_core.charts`; one named `..._page` gives HTML.
        arguments: Keyword arguments of `make`.
        options: Keyword arguments of `draw`.
    """
    opener = _OPENERS.get(source.command)
    imports, opening, subject = [], [], []
    if opener is not None:
        settings = [repr(list(source.settings))] if source.settings else []
        place = ", ".join([repr(_shown_path(source)), *settings])
        module, function = opener
        imports = [f"from {module} import {function}"]
        opening, subject = [f"subject = {function}({place})"], ["subject"]
    figure = f"charts.{draw.__name__}({_call('table', arguments=options)})"
    end = f"{figure}.show()"
    if draw.__name__.endswith("_page"):
        imports = ["from pathlib import Path", "", *imports]
        end = f'Path("{_module(draw)}.html").write_text({figure}, encoding="utf-8")'
    return "\n".join(
        (
            *imports,
            f"from {_package(make)} import {_module(make)}",
            f"from {_package(draw)} import {_module(draw)} as charts",
            "",
            *opening,
            f"table = {_module(make)}.{make.__name__}({_call(*subject, arguments=arguments)})",
            end,
        )
    )


def command(source: Source, make: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """The command that prints a table; for the arguments see `code`."""
    flags = _FLAGS[source.command]
    words = ["python", "-m", "csreft_core", source.command]
    words += [_shown_path(source)] if source.path else []
    words += [] if source.command == "check-skills" else [view_of(make)]
    words += [arguments["comparison"]] if "comparison" in arguments else []
    words += ["--table", make.__name__.removesuffix("_table")]
    for name, value in arguments.items():
        if value is None or name == "comparison":
            continue
        if name not in flags:
            words += ["--set", f"{name}={_value(source, value)}"]
        elif isinstance(value, tuple):
            words += [flags[name], *value] if value else []
        else:
            words += [f"{flags[name]}={value}"]
    for setting in source.settings:
        words += ["--set", setting]
    return shlex.join([*words, "--csv"])


def _shown_path(source: Source) -> str:
    return short_path(Path(source.path)) if source.command == "inspect" else source.path


def _value(source: Source, value: Any) -> str:
    """As `--set` takes it; `judge` reads a text as it stands."""
    is_text = source.command == "judge" and isinstance(value, str)
    return value if is_text else json.dumps(value, ensure_ascii=False)


def _call(*first: str, arguments: Mapping[str, Any]) -> str:
    """What stands between the brackets of a call."""
    return ", ".join([*first, *(f"{name}={value!r}" for name, value in arguments.items())])


def _module(function: Callable[..., Any]) -> str:
    """The last part of the name of a function's module."""
    return function.__module__.rpartition(".")[2]


def _package(function: Callable[..., Any]) -> str:
    return function.__module__.rpartition(".")[0]
