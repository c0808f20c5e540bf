"""Tables of `csreft_core.analysis`, called with what was written on the command line."""

import inspect
import json
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import pandas as pd
from pydantic import ConfigDict, ValidationError, validate_call

from csreft_core.analysis.view_names import module_of
from csreft_core.errors import ConfigError

_OURS = ("subject", "engine")  # what the commands themselves bring
_OPTIONS = {"prompts": "--prompt"}
_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)  # a subject is no plain value


def table_function(view: str, table: str | None) -> Callable[..., pd.DataFrame]:
    """The function that makes a view's table; its first one if none is named.

    Raises:
        ConfigError: the view has no such table.
    """
    module = import_module(module_of(view))
    name = table or module.TABLES[0]
    if name not in module.TABLES:
        raise ConfigError(
            f"view {view!r} has no table {name!r}; choose one of {', '.join(module.TABLES)}"
        )
    return getattr(module, f"{name}_table")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`; a value that is no JSON is a text.

    Raises:
        ConfigError: no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set expects name=value, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def check_arguments(make: Callable[..., pd.DataFrame], names: Iterable[str]) -> None:
    """See that a table takes these arguments.

    Raises:
        ConfigError: it does not take one of them.
    """
    parameters = [name for name in inspect.signature(make).parameters if name not in _OURS]
    unknown = [name for name in names if name not in parameters]
    if unknown:
        option = _OPTIONS.get(unknown[0], unknown[0])
        raise ConfigError(
            f"this table takes no {option!r}; it takes {', '.join(parameters) or 'nothing'}"
        )


def call_table(
    make: Callable[..., pd.DataFrame], *positional: Any, **arguments: Any
) -> pd.DataFrame:
    """The table, if its arguments have the types that it asks for.

    Raises:
        ConfigError: one has not.
    """
    try:
        return validate_call(config=_ANY_TYPE)(make)(*positional, **arguments)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing_keyword_only_argument":
            option = _OPTIONS.get(name, f"--set {name}=…")
            raise ConfigError(f"this table needs {name!r}; give {option}") from None
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
