"""`judge`: the tables of the pages Methods and Claims, the very functions that the pages call."""

import argparse
import inspect
from typing import Any

from csreft_core.cli.output import print_table, quiet_libraries
from csreft_core.cli.tables import assigned, made, table_function
from csreft_core.errors import ConfigError

_OURS = ("engine",)


def judge_command(args: argparse.Namespace) -> int:
    """Make the table that was asked for and print it."""
    quiet_libraries()
    make = table_function(args.view, args.table)
    arguments = _arguments(args.set, [n for n in inspect.signature(make).parameters
                                      if n not in _OURS])  # fmt: skip
    if args.comparison is not None:
        arguments = {"comparison": args.comparison} | arguments
    elif args.view == "methods" and "comparison" not in arguments:
        raise ConfigError("give the folder of a comparison: judge methods FOLDER")
    print_table(made(make, **arguments), csv=args.csv, json=args.json)
    return 0


def _arguments(assignments: list[str], known: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in assignments:
        name, value = assigned(text)
        if name not in known:
            raise ConfigError(
                f"this table takes no {name!r}; it takes {', '.join(known) or 'nothing'}"
            )
        found[name] = value
    return found
