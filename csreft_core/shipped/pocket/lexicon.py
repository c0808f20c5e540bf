"""The word table: nouns and what each skill answers for them.

Holds the skills' answers. Does not hold instructions (``paraphrases``) and draws nothing at random.
"""

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ItemSplit = Literal["train", "validation", "test"]

#: Skills in canonical order: an answer with two skills gives them in this order.
SKILLS: tuple[str, ...] = ("french", "german", "category", "plural", "spelling", "initial")

#: What the base does without any example: it repeats the item. No adapter learns it.
ECHO = "echo"

#: Stands between the two answers of a prompt that needs two skills.
ANSWER_JOINT = "and"

POCKET_FOLDER = Path(__file__).parents[3] / "assets" / "pocket"
SKILLS_FOLDER = Path(__file__).parents[3] / "assets" / "skills"
SOURCE_FOLDER = POCKET_FOLDER / "source"


@dataclass(frozen=True, kw_only=True)
class Noun:
    """One item of the word table, with the answers that cannot be computed from its letters."""

    noun: str
    category: str
    plural: str
    french: str
    german: str
    item_split: ItemSplit


@functools.cache
def read_nouns(path: Path = SOURCE_FOLDER / "words.csv") -> tuple[Noun, ...]:
    """All nouns of the word table, in the order of the file."""
    with path.open(encoding="utf-8", newline="") as lines:
        return tuple(_noun(row) for row in csv.DictReader(lines))


def _noun(row: dict[str, Any]) -> Noun:
    return Noun(**row)


def answer(skill: str, noun: Noun) -> str:
    """What ``skill`` answers for ``noun``, tokens separated by single spaces."""
    match skill:
        case "french" | "german" | "category" | "plural":
            return str(getattr(noun, skill))
        case "spelling":
            return " ".join(noun.noun)
        case "initial":
            return noun.noun[0]
        case "echo":
            return noun.noun
        case _:
            raise AssertionError(f"unknown skill {skill!r}; known: {(*SKILLS, ECHO)}")


def joint_answer(skills: Sequence[str], noun: Noun) -> str:
    """The answers of one or two skills, in canonical order, joined by a word."""
    ordered = sorted(skills, key=(*SKILLS, ECHO).index)
    return f" {ANSWER_JOINT} ".join(answer(skill, noun) for skill in ordered)
