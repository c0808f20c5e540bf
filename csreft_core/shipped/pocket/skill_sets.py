"""The shipped skill sets: which prompts an adapter learns from and which ones test it.

Items and paraphrases are held out by the tables themselves, so splits cannot leak. What is drawn at
random is only which of many allowed rows are kept, from a fixed seed.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from csreft_core.shipped.pocket.lexicon import (
    SKILLS,
    ItemSplit,
    Noun,
    answer,
    joint_answer,
    read_nouns,
)
from csreft_core.shipped.pocket.paraphrases import (
    fill_item,
    read_pair_paraphrases,
    read_paraphrases,
    skill_pairs,
)
from csreft_core.shipped.skill_files import Row, draw

FOUR_SKILLS: tuple[str, ...] = ("french", "category", "plural", "spelling")
JOINT_SKILLS: tuple[tuple[str, str], ...] = (("french", "category"), ("plural", "spelling"))
"""Pairs that the eight skills have as skills of their own, with one subspace for both answers."""

#: Split, which items, which paraphrases, rows kept per skill.
_SPLITS: tuple[tuple[str, ItemSplit, ItemSplit, int], ...] = (
    ("train", "train", "train", 600),
    ("validation", "validation", "train", 40),
    ("validation", "validation", "validation", 40),
    ("test_items", "test", "train", 120),
    ("test_paraphrases", "train", "test", 120),
    ("test_both", "test", "test", 120),
)
_TWO_SKILLS_PER_PAIR = 40


def single_skill_rows(skills: Sequence[str], seed: int = 0) -> list[Row]:
    """The rows of one-skill prompts for ``skills``, in five splits.

    ``test_items`` asks about held-out items in known words, ``test_paraphrases`` about known items
    in held-out words, ``test_both`` about held-out items in held-out words.
    """
    rng = np.random.default_rng(seed)
    return [
        _row(skill, prompt, answer(skill, noun), split, noun)
        for split, items, words, limit in _SPLITS
        for skill in skills
        for prompt, noun in _draw(rng, getattr(read_paraphrases()[skill], words), items, limit)
    ]


def two_skill_rows(skills: Sequence[str], seed: int = 0) -> list[Row]:
    """Prompts that need two of ``skills``, on held-out items: all in split ``test_two_skills``."""
    rng = np.random.default_rng(seed + 1)
    return [
        _pair_row(pair, prompt, noun, "test_two_skills")
        for pair in skill_pairs(skills)
        for prompt, noun in _draw(
            rng, read_pair_paraphrases()[pair].train, "test", _TWO_SKILLS_PER_PAIR
        )
    ]


def two_skill_training_rows(skills: Sequence[str], seed: int = 0) -> list[Row]:
    """A skill set of two-skill prompts only, to train on: train, validation and ``test_items``."""
    return list(_pair_rows(skill_pairs(skills), (300, 30, 40), seed + 2))


def joint_skill_rows(seed: int = 0) -> list[Row]:
    """`JOINT_SKILLS` as single skills, named `a_and_b`: train, validation and ``test_items``."""
    rows = _pair_rows(JOINT_SKILLS, (600, 40, 120), seed + 3)
    return [{**row, "skill": "_and_".join(row["skill"])} for row in rows]


def _pair_rows(
    pairs: Sequence[tuple[str, str]], limits: tuple[int, int, int], seed: int
) -> Iterator[Row]:
    """Rows of pairs; the limits are rows of a pair in train, validation and ``test_items``."""
    rng = np.random.default_rng(seed)
    splits: tuple[tuple[ItemSplit, str], ...] = (
        ("train", "train"),
        ("validation", "validation"),
        ("test", "test_items"),
    )
    for (items, split), limit in zip(splits, limits, strict=True):
        for pair in pairs:
            for prompt, noun in _draw(rng, read_pair_paraphrases()[pair].train, items, limit):
                yield _pair_row(pair, prompt, noun, split)


def skill_set_files() -> dict[str, list[Row]]:
    """The rows of each shipped file, keyed by file name."""
    return {
        "four.jsonl": single_skill_rows(FOUR_SKILLS) + two_skill_rows(FOUR_SKILLS),
        "six.jsonl": single_skill_rows(SKILLS),
        "eight.jsonl": single_skill_rows(SKILLS) + joint_skill_rows(),
        "two_skills.jsonl": two_skill_training_rows(FOUR_SKILLS),
    }


def _row(skill: str | list[str], prompt: str, response: str, split: str, noun: Noun) -> Row:
    return {
        "skill": skill,
        "prompt": prompt,
        "response": response,
        "split": split,
        "item": noun.noun,
    }


def _pair_row(pair: tuple[str, str], prompt: str, noun: Noun, split: str) -> Row:
    return _row(list(pair), prompt, joint_answer(pair, noun), split, noun)


def _draw(
    rng: np.random.Generator, templates: Sequence[str], items: ItemSplit, limit: int
) -> Iterator[tuple[str, Noun]]:
    """``limit`` prompts at most; every template and every item as evenly as possible."""
    nouns = [noun for noun in read_nouns() if noun.item_split == items]
    for template, noun in draw(rng, templates, nouns, limit):
        yield fill_item(template, noun.noun), noun
