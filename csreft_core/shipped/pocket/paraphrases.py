"""The instructions: several ways of asking for each skill, some held out of adapter training.

Reads the instruction tables and counts content words. Draws nothing at random.
"""

import functools
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csreft_core.shipped.pocket.lexicon import SKILLS, SOURCE_FOLDER

#: Words that carry grammar and no meaning: two instructions that share only these share no
#: content word. Verbs such as "give" and nouns such as "word" are content.
STOP_WORDS: frozenset[str] = frozenset(
    "a an the of for in on at to into from by with under and or as than is are be do does did "
    "would will might could can it its this that these there what which how who where when if "
    "you your i me my we us".split()
)

ITEM_SLOT = "{item}"


@dataclass(frozen=True, kw_only=True)
class Paraphrases:
    """The ways to ask for one skill (or pair of skills), each with one slot for the item."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def every(self) -> tuple[str, ...]:
        """All of them: what the base has read, without answers."""
        return self.train + self.validation + self.test


@functools.cache
def read_paraphrases(path: Path = SOURCE_FOLDER / "paraphrases.json") -> dict[str, Paraphrases]:
    """The instructions of each skill, keyed by its name, in canonical order."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return {
        skill: Paraphrases(**{split: tuple(texts) for split, texts in table[skill].items()})
        for skill in SKILLS
    }


def skill_pairs(skills: Sequence[str] = SKILLS) -> list[tuple[str, str]]:
    """All pairs of different skills, each in canonical order."""
    return list(itertools.combinations(sorted(skills, key=SKILLS.index), 2))


@functools.cache
def read_pair_paraphrases(
    path: Path = SOURCE_FOLDER / "two_skills.json",
) -> dict[tuple[str, str], Paraphrases]:
    """The instructions that ask for two skills at once, keyed by the pair in canonical order."""
    table = json.loads(path.read_text(encoding="utf-8"))
    frames, phrases = table["frames"], table["phrases"]

    def fill(pair: tuple[str, str], split: str) -> tuple[str, ...]:
        first, second = phrases[pair[0]]["first"], phrases[pair[1]]["second"]
        return tuple(frame.format(first=first, second=second) for frame in frames[split])

    return {
        pair: Paraphrases(train=fill(pair, "train"), validation=(), test=fill(pair, "test"))
        for pair in skill_pairs()
    }


def fill_item(template: str, noun: str) -> str:
    """The instruction for one item; a noun that opens the sentence keeps its small letter."""
    assert ITEM_SLOT in template, template
    return template.replace(ITEM_SLOT, noun)


def content_tokens(template: str) -> list[str]:
    """The words of an instruction that carry meaning, as written: no item, no stop word."""
    words = re.findall(r"\w+", template.replace(ITEM_SLOT, " "))
    return [word for word in words if word.lower() not in STOP_WORDS]


def content_words(template: str) -> frozenset[str]:
    """The same words in small letters, each once."""
    return frozenset(word.lower() for word in content_tokens(template))
