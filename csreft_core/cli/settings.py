"""The config that the arguments of `train` ask for. Needs no torch, so mistakes answer at once."""

import argparse
from pathlib import Path

from csreft_core.config import Config, read_config, with_overrides
from csreft_core.errors import ConfigError
from csreft_core.method_presets import named_config


def asked_config(args: argparse.Namespace) -> Config | None:
    """The config of a new run; None with `--resume`, where the run has its own.

    Raises:
        ConfigError: a file and a preset, a config for a resumed run, an unknown preset or setting,
            or a value that does not fit.
    """
    if args.resume:
        given = args.config or (args.preset and "--preset") or (args.set and "--set")
        if given:
            raise ConfigError(
                f"--resume goes on under the run's own config, so {given} cannot be given; leave "
                "it out, or train a new run"
            )
        return None
    if args.config and args.preset:
        raise ConfigError(
            f"both the file {args.config} and --preset {args.preset} are given; choose one"
        )
    start = (
        read_config(Path(args.config))
        if args.config
        else named_config(args.preset or "recommended")
    )
    return with_overrides(start, args.set)
