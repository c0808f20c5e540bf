"""The rows of ``english``: one-skill prompts to learn from and to test, two-skill prompts to test.

Items and wordings are held out by the tables themselves, so splits cannot leak. What is drawn at
random is only which of many allowed rows are kept, from a fixed seed.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from csreft_core.shipped.english.tables import (
    SKILLS,
    Item,
    Part,
    read_items,
    read_pair_wordings,
    read_student_prompts,
    read_wordings,
)
from csreft_core.shipped.skill_files import Row, draw

#: Split, which items, which wordings, rows kept per skill.
_SPLITS: tuple[tuple[str, Part, Part, int], ...] = (
    ("train", "train", "train", 256),
    ("validation", "validation", "train", 40),
    ("validation", "validation", "validation", 40),
    ("test_items", "test", "train", 80),
    ("test_paraphrases", "train", "test", 80),
    ("test_both", "test", "test", 120),
)
_ROWS_OF_A_PAIR = 16
ANSWER_JOINT = "and"
"""Stands between the two answers of a prompt that needs two skills."""


def english_rows(seed: int = 0) -> list[Row]:
    """All rows; two skills are asked for in the split ``test_two_skills`` alone."""
    rng = np.random.default_rng(seed)
    return [*_single_skill_rows(rng), *_two_skill_rows(rng)]


def items_of(skill: str, part: Part) -> list[Item]:
    """The items of a skill in one part."""
    return [item for item in read_items() if (item.skill, item.part) == (skill, part)]


def _single_skill_rows(rng: np.random.Generator) -> Iterator[Row]:
    students = {one.prompt for one in read_student_prompts()}
    for split, items, words, limit in _SPLITS:
        for skill in SKILLS:
            wordings = read_wordings()[skill, words]
            for wording, item in draw(rng, wordings, items_of(skill, items), limit):
                prompt = wording.replace("{item}", item.item)
                if prompt in students:
                    continue
                yield {
                    "skill": skill,
                    "prompt": prompt,
                    "response": item.answer,
                    "split": split,
                    "item": item.item,
                }


def _two_skill_rows(rng: np.random.Generator) -> Iterator[Row]:
    """Each pair of skills on held-out items, one item a skill."""
    phrases, frames = read_pair_wordings()
    for pair in itertools.combinations(SKILLS, 2):
        firsts, seconds = (_shuffled(rng, items_of(skill, "test")) for skill in pair)
        couples = list(zip(firsts, seconds, strict=False))
        for frame, (a, b) in draw(rng, frames, couples, _ROWS_OF_A_PAIR):
            first, second = (phrases[one.skill].replace("{item}", one.item) for one in (a, b))
            yield {
                "skill": list(pair),
                "prompt": frame.format(first=first, second=second),
                "response": f"{a.answer} {ANSWER_JOINT} {b.answer}",
                "split": "test_two_skills",
                "item": f"{a.item}; {b.item}",
            }


def _shuffled(rng: np.random.Generator, items: list[Item]) -> list[Item]:
    return [items[place] for place in rng.permutation(len(items))]
