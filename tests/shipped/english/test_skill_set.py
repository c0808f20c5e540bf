"""The English tables and rows: complete, held apart, and as committed."""

from collections import Counter
from itertools import combinations

import pytest

from csreft_core.config import ASSETS
from csreft_core.shipped.english import tables
from csreft_core.shipped.english.skill_set import english_rows, items_of
from csreft_core.shipped.skill_files import to_jsonl
from csreft_core.skills.skill_set import TEST_SPLITS, read_skills

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def rows():
    return read_skills("english").rows


def test_the_committed_file_is_what_the_tables_give():
    committed = (ASSETS / "skills" / "english.jsonl").read_text(encoding="utf-8")
    assert committed == to_jsonl(english_rows())


@pytest.mark.parametrize("skill", tables.SKILLS)
def test_each_item_of_a_skill_is_in_one_part(skill):
    items = [item for item in tables.read_items() if item.skill == skill]
    assert len({item.item for item in items}) == len(items)
    assert {item.part for item in items} == set(PARTS)
    assert all(item.answer == item.answer.strip() for item in items)


def test_a_word_and_its_opposite_are_in_one_part():
    """Else half of the held-out opposites could be read off the training rows, backwards."""
    part_of = {one.item: one.part for one in tables.read_items() if one.skill == "opposite"}
    pairs = [(one, one.answer) for one in tables.read_items() if one.skill == "opposite"]
    both_ways = [(one, answer) for one, answer in pairs if answer in part_of]
    assert len(both_ways) > 80
    assert all(one.part == part_of[answer] for one, answer in both_ways)


@pytest.mark.parametrize("skill", ["category", "sentiment"])
def test_every_label_is_in_every_part(skill):
    labels = [{one.answer for one in items_of(skill, part)} for part in PARTS]
    assert labels[0] == labels[1] == labels[2]


@pytest.mark.parametrize("skill", tables.SKILLS)
def test_wordings_are_held_apart(skill):
    wordings = [tables.read_wordings()[skill, part] for part in PARTS]
    assert len(wordings[0]) >= 10
    assert min(map(len, wordings)) >= 3
    every = [text for part in wordings for text in part]
    assert len(set(every)) == len(every)
    assert all("{item}" in text for text in every)


def test_held_out_rows_have_held_out_items_and_wordings(rows):
    single = [row for row in rows if len(row.skills) == 1]
    of_train = [row for row in single if row.split == "train"]
    items = {(row.skills, row.item) for row in of_train}
    wordings = {(row.skills, row.wording) for row in of_train}
    for row in single:
        known_item = (row.skills, row.item) in items
        known_wording = (row.skills, row.wording) in wordings
        match row.split:
            case "train":
                assert known_item
                assert known_wording
            case "validation":
                assert not known_item
            case split:
                assert known_item == (split == "test_paraphrases")
                assert known_wording == (split == "test_items")


def test_every_skill_has_enough_rows(rows):
    counts = Counter((row.skills[0], row.split) for row in rows if len(row.skills) == 1)
    for skill in tables.SKILLS:
        assert counts[skill, "train"] >= 200
        assert min(counts[skill, split] for split in TEST_SPLITS) >= 80


def test_two_skills_are_only_tested(rows):
    pairs = [row for row in rows if len(row.skills) == 2]
    assert {row.split for row in pairs} == {"test_two_skills"}
    assert {row.skills for row in pairs} == set(combinations(tables.SKILLS, 2))
    answers = {(one.skill, one.item): one.answer for one in tables.read_items()}
    for row in pairs:
        first, second = row.item.split("; ")
        a, b = answers[row.skills[0], first], answers[row.skills[1], second]
        assert row.response == f"{a} and {b}"


def test_the_wording_of_a_row_is_the_one_that_it_was_made_from(rows):
    known = {text for texts in tables.read_wordings().values() for text in texts}
    assert {row.wording for row in rows if len(row.skills) == 1} <= known


def test_no_student_prompt_is_a_row(rows):
    prompts = [one.prompt for one in tables.read_student_prompts()]
    assert len(set(prompts)) == 40
    assert not {row.prompt for row in rows} & set(prompts)
    assert {one.skill for one in tables.read_student_prompts()} == set(tables.SKILLS)
