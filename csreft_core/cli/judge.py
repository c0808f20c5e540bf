"""`judge`: the tables of the pages Methods and Claims, the very functions that the pages call."""

import argparse

from csreft_core.cli.output import print_table, quiet_libraries
from csreft_core.cli.tables import call_table, check_arguments, parse_assignment, table_function
from csreft_core.errors import ConfigError


def judge_command(args: argparse.Namespace) -> int:
    """Make the table that was asked for and print it."""
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
