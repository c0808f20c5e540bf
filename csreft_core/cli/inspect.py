"""`inspect` and `judge`: tables of the pages, made by the very functions that the pages call."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from csreft_core.analysis.subject import open_subject
from csreft_core.cli.output import print_table, quiet_libraries, say_notes
from csreft_core.cli.tables import call_table, check_arguments, parse_assignment, table_function
from csreft_core.errors import ConfigError
from csreft_core.reft.adapter import load_adapter
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.runs.all_runs import open_run
from csreft_core.skills.skill_set import read_skills


def inspect_command(args: argparse.Namespace) -> int:
    """Make the table that was asked for and print it."""
    quiet_libraries()
    make = table_function(args.view, args.table)
    arguments = _arguments(args, make)
    # Before the base is loaded: a mistake should answer at once.
    if args.gates is not None:
        parse_gate_setting(args.gates, load_adapter(open_run(Path(args.run)).adapter_path).names)
    subject = open_subject(args.run)
    if args.skills:
        rows = read_skills(args.skills, subject.config.data.skill_column, to_train=False)
        say_notes(rows)
        subject = replace(subject, skill_set=rows)
    print_table(call_table(make, subject, **arguments), csv=args.csv, json=args.json)
    return 0


def _arguments(args: argparse.Namespace, make: Callable[..., pd.DataFrame]) -> dict[str, Any]:
    """What was given on the command line, as keyword arguments of the table's function."""
    if args.prompt and args.skills:
        raise ConfigError("both --prompt and --skills are given; choose one")
    options: dict[str, Any] = {"prompts": args.prompt, "split": args.split, "gates": args.gates}
    arguments = {name: value for name, value in options.items() if value is not None}
    for text in args.set:
        name, value = parse_assignment(text)
        arguments[name] = value
    check_arguments(make, arguments)
    return arguments


def judge_command(args: argparse.Namespace) -> int:
    """Make the table of the pages Methods and Claims that was asked for, and print it."""
    quiet_libraries()
    make = table_function(args.view, args.table)
    arguments = dict(map(parse_assignment, args.set))
    check_arguments(make, arguments)
    if args.comparison is not None:
        arguments = {"comparison": args.comparison} | arguments
    elif args.view == "methods" and "comparison" not in arguments:
        raise ConfigError("give the folder of a comparison: judge methods FOLDER")
    print_table(call_table(make, **arguments), csv=args.csv, json=args.json)
    return 0
