"""How a command comes to its function: in a module that is loaded when it is called, not before.

What the checks need is loaded with them: help and `doctor` do without runs and skills.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Command = Callable[[argparse.Namespace], int]
Check = Callable[[argparse.Namespace], None]


def later(place: str, *checks: Check) -> Command:
    """A function of this package, loaded once the checks have passed.

    So a mistake is answered in the time that Python needs, and not torch.

    Args:
        place: `module.function`.
        checks: Of the arguments; each raises what is wrong.
    """
    module, function = place.split(".")

    def call(args: argparse.Namespace) -> int:
        for check in checks:
            check(args)
        return getattr(import_module(f"csreft_core.cli.{module}"), function)(args)

    return call


def check_run(args: argparse.Namespace) -> None:
    """The run is there and can be read."""
    _open(args.run)


def check_config(args: argparse.Namespace) -> None:
    """A config is asked for, or a run to go on with; `args.asked` is the config, or None."""
    from csreft_core.cli.settings import asked_config

    args.asked = asked_config(args)
    if args.asked is None:
        _open(args.out)


def _open(path: str) -> None:
    from csreft_core.runs.all_runs import open_run

    open_run(Path(path))
