"""The tables of the English skills: what is asked about, what is answered, how it is asked.

They are this project's own, under its licence: common words, capitals (facts) and short reviews
that were written for it. Draws nothing at random.
"""

import csv
import functools
import json
from collections.abc import Iterator
from typing import Literal, NamedTuple

from csreft_core.config import ASSETS

SOURCE_FOLDER = ASSETS / "english"
SKILLS = ("plural", "past", "opposite", "capital", "category", "sentiment")
"""In canonical order: an answer with two skills gives them in this order."""

Part = Literal["train", "validation", "test"]


class Item(NamedTuple):
    """What a prompt of one skill asks about, such as the noun of a plural.

    Attributes:
        skill: One of `SKILLS`.
        item: As it stands in the prompt.
        answer: All of the answer.
        part: Items of one part are in no prompt of another. A word and its opposite are in one.
    """

    skill: str
    item: str
    answer: str
    part: Part


class StudentPrompt(NamedTuple):
    """A prompt as students write it, kept before any recipe was chosen.

    Attributes:
        skill: One of `SKILLS`.
        prompt: As typed.
        answers: All that are right.
    """

    skill: str
    prompt: str
    answers: tuple[str, ...]


def _records(name: str) -> Iterator[dict[str, str]]:
    with (SOURCE_FOLDER / name).open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


@functools.cache
def read_items() -> tuple[Item, ...]:
    """All items of all skills, in the order of the file."""
    return tuple(Item(**record) for record in _records("items.csv"))  # pyright: ignore[reportArgumentType] - a test sees the parts


@functools.cache
def read_wordings() -> dict[tuple[str, str], tuple[str, ...]]:
    """The wordings by skill and part, each with `{item}` in it."""
    wordings: dict[tuple[str, str], list[str]] = {}
    for record in _records("wordings.csv"):
        wordings.setdefault((record["skill"], record["part"]), []).append(record["wording"])
    return {key: tuple(texts) for key, texts in wordings.items()}


@functools.cache
def read_pair_wordings() -> tuple[dict[str, str], tuple[str, ...]]:
    """How each skill is named in a prompt for two, and the frames with `{first}` and `{second}`."""
    table = json.loads((SOURCE_FOLDER / "two_skills.json").read_text(encoding="utf-8"))
    return table["phrases"], tuple(table["frames"])


@functools.cache
def read_student_prompts() -> tuple[StudentPrompt, ...]:
    """The forty prompts that an English run is tried with."""
    return tuple(
        StudentPrompt(record["skill"], record["prompt"], tuple(record["answers"].split("|")))
        for record in _records("students.csv")
    )
