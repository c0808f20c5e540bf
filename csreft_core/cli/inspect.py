"""`inspect`: print a table of the Inspect pages."""

import argparse
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from pydantic import ConfigDict, ValidationError, validate_call

from csreft_core.adapter import load_adapter
from csreft_core.analysis.subject import open_subject
from csreft_core.cli.output import print_table, quiet_libraries
from csreft_core.errors import ConfigError
from csreft_core.gate_settings import parse_gate_setting
from csreft_core.runs import open_run
from csreft_core.skills import read_skills

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)  # a subject is no plain value


def inspect_command(args: argparse.Namespace) -> int:
    """Make the table that was asked for and print it."""
    quiet_libraries()
    module = import_module(f"csreft_core.analysis.{args.view}")
    name = args.table or module.TABLES[0]
    if name not in module.TABLES:
        raise ConfigError(
            f"view {args.view!r} has no table {name!r}; choose one of {', '.join(module.TABLES)}"
        )
    make = _table(module, name)
    arguments = _arguments(args, make)
    # Before the base is loaded: a mistake should answer at once.
    if args.gates is not None:
        parse_gate_setting(args.gates, load_adapter(open_run(Path(args.run)).adapter_path).names)
    subject = open_subject(args.run)
    if args.skills:
        rows = read_skills(args.skills, subject.config.data.skill_column)
        subject = replace(subject, skill_set=rows)
    try:
        table = validate_call(config=_ANY_TYPE)(make)(subject, **arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
    print_table(table, csv=args.csv, json=args.json)
    return 0


def _table(module: ModuleType, name: str) -> Callable[..., pd.DataFrame]:
    return getattr(module, f"{name}_table")


def _arguments(args: argparse.Namespace, make: Callable[..., pd.DataFrame]) -> dict[str, Any]:
    """What was given on the command line, as keyword arguments of the table's function."""
    if args.prompt and args.skills:
        raise ConfigError("both --prompt and --skills are given; choose one")
    given: dict[str, Any] = {"prompts": args.prompt, "split": args.split, "gates": args.gates}
    arguments = {name: value for name, value in given.items() if value is not None}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set expects name=value, got {text!r}")
        arguments[name] = _value(value)
    known = [name for name in inspect.signature(make).parameters if name != "subject"]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        option = {"prompts": "--prompt"}.get(unknown[0], unknown[0])
        raise ConfigError(
            f"this table takes no {option!r}; it takes {', '.join(known) or 'nothing'}"
        )
    return arguments


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
