"""The function behind each command. It loads its libraries when it is called, and not before."""

import argparse
from pathlib import Path


def app(args: argparse.Namespace) -> int:
    """Serve the pages."""
    from csreft_core.cli.app import app_command

    return app_command(args)


def train(args: argparse.Namespace) -> int:
    """Train, or go on with a run."""
    from csreft_core.cli.settings import asked_config

    config = asked_config(args)
    if config is None:
        _check_run(args.out)
    from csreft_core.cli.train import train_command

    return train_command(args, config)


def _check_run(path: str) -> None:
    """A wrong name is answered before torch is loaded."""
    from csreft_core.runs.all_runs import open_run

    open_run(Path(path))


def evaluate(args: argparse.Namespace) -> int:
    """Score a run."""
    _check_run(args.run)
    from csreft_core.cli.answer import evaluate_command

    return evaluate_command(args)


def generate(args: argparse.Namespace) -> int:
    """Answer prompts."""
    _check_run(args.run)
    from csreft_core.cli.answer import generate_command

    return generate_command(args)


def inspect(args: argparse.Namespace) -> int:
    """Print a table of a run."""
    _check_run(args.run)
    from csreft_core.cli.inspect import inspect_command

    return inspect_command(args)


def compare(args: argparse.Namespace) -> int:
    """Compare methods."""
    from csreft_core.cli.compare import compare_command

    return compare_command(args)


def memorise(args: argparse.Namespace) -> int:
    """See how long a text one vector holds."""
    from csreft_core.cli.memorise import memorise_command

    return memorise_command(args)


def judge(args: argparse.Namespace) -> int:
    """Print a table of claims and methods."""
    from csreft_core.cli.judge import judge_command

    return judge_command(args)


def memory(args: argparse.Namespace) -> int:
    """Say what a base and its training need."""
    from csreft_core.cli.settings import asked_config

    config = asked_config(args)
    assert config is not None
    from csreft_core.cli.memory import memory_command

    return memory_command(args, config)


def check_skills(args: argparse.Namespace) -> int:
    """Look at a skill set."""
    from csreft_core.cli.skills import check_skills_command

    return check_skills_command(args)


def skills_from_preset(args: argparse.Namespace) -> int:
    """Write a published skill set."""
    from csreft_core.cli.skills import skills_from_preset_command

    return skills_from_preset_command(args)


def doctor(args: argparse.Namespace) -> int:
    """Check the installation."""
    from csreft_core.cli.upkeep import doctor_command

    return doctor_command(args)


def build_pocket(args: argparse.Namespace) -> int:
    """Train the embedded base."""
    from csreft_core.cli.upkeep import build_pocket_command

    return build_pocket_command(args)


def build_examples(args: argparse.Namespace) -> int:
    """Train the shipped runs."""
    from csreft_core.cli.upkeep import build_examples_command

    return build_examples_command(args)
