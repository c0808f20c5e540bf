"""Options that several commands take, and the parser that says a mistake in one line."""

import argparse
from typing import NoReturn

from csreft_core.config import PRESET_NOTES
from csreft_core.errors import ConfigError

GATES = "learned, hard, oracle, uniform, off, only:SKILL or numbers such as 1,0,0,0.5"


class Parser(argparse.ArgumentParser):
    """Reports a mistake as our error, in one line, instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def add_unwritable(command: Parser) -> None:
    """Train although some answers cannot be written."""
    command.add_argument(
        "--unwritable-answers",
        action="store_true",
        help="train although the base cannot write some of the answers; else that is refused",
    )


def add_config(command: Parser) -> None:
    """Which config: a file or a preset, with changes."""
    command.add_argument(
        "config", nargs="?", metavar="CONFIG.json", help="a config file; a run's is one"
    )
    command.add_argument(
        "--preset",
        metavar="NAME",
        help=f"start from a preset: {', '.join(PRESET_NOTES)} (default: recommended)",
    )
    add_changes(command, "set one value, such as train.steps=200")


def add_changes(command: argparse.ArgumentParser, text: str, form: str = "path=value") -> None:
    """Changes of single values, `--set`, each written in this form; `text` is the help."""
    command.add_argument(
        "--set", action="append", default=[], metavar=form, help=f"{text}; may be repeated"
    )


def add_gates(command: Parser, more: str = "") -> None:
    """With which gates; `more` ends the help."""
    command.add_argument(
        "--gates",
        default="learned",
        metavar="SETTING",
        help=f"{GATES} (with = before a minus sign){more}; default: learned",
    )


def add_rows(command: Parser) -> None:
    """Which rows of which skill set."""
    command.add_argument(
        "--skills", metavar="FILE", help="a skill set; default: the one the run was trained on"
    )
    command.add_argument(
        "--split",
        default="test",
        metavar="NAME",
        help="train, validation, test_items, test_paraphrases, test_both, test_two_skills, "
        "test (the first three tests) or all; default: test",
    )


def add_form(command: argparse.ArgumentParser) -> None:
    """Text, JSON or CSV."""
    form = command.add_mutually_exclusive_group()
    add_json(form, "print rows as JSON")
    form.add_argument("--csv", action="store_true", help="print rows as CSV")


def add_json(command: argparse._ActionsContainer, text: str) -> None:
    """JSON instead of text; `text` is its help."""
    command.add_argument("--json", action="store_true", help=text)
