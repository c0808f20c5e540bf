"""`judge`: the tables of the pages Methods and Claims, the very functions that the pages call."""

import argparse
import inspect
import json
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from csreft_core.cli.output import print_table, quiet_libraries
from csreft_core.errors import ConfigError

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)
_OURS = ("engine",)


def judge_command(args: argparse.Namespace) -> int:
    """Make the table that was asked for and print it."""
    quiet_libraries()
    module = import_module(f"csreft_core.analysis.{args.view}")
    name = args.table or module.TABLES[0]
    if name not in module.TABLES:
        raise ConfigError(
            f"view {args.view!r} has no table {name!r}; choose one of {', '.join(module.TABLES)}"
        )
    make = getattr(module, f"{name}_table")
    arguments = _arguments(args.set, [n for n in inspect.signature(make).parameters
                                      if n not in _OURS])  # fmt: skip
    if args.comparison is not None:
        arguments = {"comparison": args.comparison} | arguments
    elif args.view == "methods" and "comparison" not in arguments:
        raise ConfigError("give the folder of a comparison: judge methods FOLDER")
    try:
        table = validate_call(config=_ANY_TYPE)(make)(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
    print_table(table, csv=args.csv, json=args.json)
    return 0


def _arguments(assignments: list[str], known: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set expects name=value, got {text!r}")
        if name not in known:
            raise ConfigError(
                f"this table takes no {name!r}; it takes {', '.join(known) or 'nothing'}"
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
