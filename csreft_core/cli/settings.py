"""What the arguments of a command ask for. Needs no torch, so mistakes answer at once."""

import argparse
from pathlib import Path

from csreft_core.config import Config, read_config, with_overrides
from csreft_core.errors import ConfigError
from csreft_core.methods.presets import named_config


def numbers(text: str, option: str, least: int) -> tuple[int, ...]:
    """Different whole numbers, separated by commas.

    Raises:
        ConfigError: something else, or a number below `least`.
    """
    try:
        values = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        values = ()
    if not values or min(values) < least:
        raise ConfigError(
            f"{option} expects numbers of at least {least}, such as {least},{least + 1}; got "
            f"{text!r}"
        )
    return values


def asked_config(args: argparse.Namespace) -> Config | None:
    """The config of a new run; None with `--resume`, where the run has its own.

    Raises:
        ConfigError: a file and a preset, a config for a resumed run, an unknown preset or setting,
            or a value that does not fit.
    """
    if args.resume:
        option = args.config or (args.preset and "--preset") or (args.set and "--set")
        if option:
            raise ConfigError(
                f"--resume goes on under the run's own config, so {option} cannot be given; leave "
                "it out, or train a new run"
            )
        return None
    if args.config and args.preset:
        raise ConfigError(
            f"both the file {args.config} and --preset {args.preset} are given; choose one"
        )
    if args.config:
        return with_overrides(read_config(Path(args.config)), args.set)
    return named_config(args.preset or "recommended", args.set)
