"""The words, the instructions and the skill sets: complete, held apart, and as committed."""

from collections import Counter
from typing import Any

import pytest

from csreft_core.shipped import skill_files
from csreft_core.shipped.pocket import lexicon, paraphrases, skill_sets
from csreft_core.shipped.pocket.check import question
from csreft_core.shipped.pocket.tokenizer import build_tokenizer
from csreft_core.skills.skill_set import read_skills

FILES: dict[str, Any] = skill_sets.skill_set_files()
TESTS = ("test_items", "test_paraphrases", "test_both")


def shared_content(texts, others):
    """Content words that the two lists of instructions have in common."""
    words, other_words = (
        set().union(*(paraphrases.content_words(text) for text in side)) for side in (texts, others)
    )
    return words & other_words


def names(row):
    return [row["skill"]] if isinstance(row["skill"], str) else row["skill"]


@pytest.mark.parametrize("skill", lexicon.SKILLS)
def test_held_out_paraphrases_share_no_content_word(skill):
    ways = paraphrases.read_paraphrases()[skill]
    assert len(ways.train) >= 6
    assert len(ways.test) >= 2
    assert shared_content(ways.train, ways.test) == set()
    assert shared_content(ways.train, ways.validation) == set()
    assert shared_content(ways.validation, ways.test) == set()


def test_shared_content_words_are_found():
    """Positive control: the check above can fail, also across capitals and punctuation."""
    assert shared_content(["Spell {item}."], ["How do you spell, {item}?"]) == {"spell"}
    assert shared_content(["What is the {item}?"], ["How is it in {item}?"]) == set()


def test_a_paraphrase_belongs_to_one_skill():
    every = [text for ways in paraphrases.read_paraphrases().values() for text in ways.every]
    assert len(every) == len(set(every))
    assert all(text.count(paraphrases.ITEM_SLOT) == 1 for text in every)


def test_the_item_stands_in_different_places():
    for ways in paraphrases.read_paraphrases().values():
        places = {
            text.split().index(word)
            for text in ways.train
            for word in text.split()
            if paraphrases.ITEM_SLOT in word
        }
        assert len(places) >= 3, ways.train


def test_nouns_are_no_instruction_words():
    """Else an instruction would look as if it had two items."""
    nouns = {noun.noun for noun in lexicon.read_nouns()}
    ways = [*paraphrases.read_paraphrases().values(), *paraphrases.read_pair_paraphrases().values()]
    words = {word for way in ways for text in way.every for word in paraphrases.content_words(text)}
    assert nouns & words == set()
    assert "cat" in nouns
    assert "spell" in words


def test_every_word_is_known():
    tokenizer = build_tokenizer()
    texts = [f"{question(row)} {row['response']}" for rows in FILES.values() for row in rows]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids, text
    assert tokenizer.unk_token_id in tokenizer("Q: What is gnu in French?\nA:")["input_ids"]


def test_answers_decode_to_themselves():
    tokenizer = build_tokenizer()
    answers = sorted({str(row["response"]) for rows in FILES.values() for row in rows})
    ids = tokenizer([f" {answer}<eos>" for answer in answers], add_special_tokens=False)
    assert tokenizer.batch_decode(ids["input_ids"], skip_special_tokens=True) == answers


@pytest.mark.parametrize("file", ["four.jsonl", "six.jsonl"])
def test_each_skill_has_enough_prompts_in_each_test(file):
    counts = Counter((row["split"], *names(row)) for row in FILES[file])
    for skill in skill_sets.FOUR_SKILLS if file == "four.jsonl" else lexicon.SKILLS:
        assert all(counts[split, skill] >= 100 for split in TESTS), counts
        assert counts["train", skill] >= 100
        assert counts["validation", skill] >= 50


@pytest.mark.parametrize("file", FILES)
def test_no_prompt_stands_twice(file):
    prompts = Counter(row["prompt"] for row in FILES[file])
    assert prompts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("file", ["four.jsonl", "six.jsonl"])
def test_held_out_items_and_words_stay_out(file):
    """Found by looking for the words in the prompts, not by asking the code that drew them."""
    held_out = {noun.noun for noun in lexicon.read_nouns() if noun.item_split == "test"}
    assert len(held_out) >= 20
    tokenizer = build_tokenizer()
    ways = paraphrases.read_paraphrases()
    for row in FILES[file]:
        if row["split"] == "test_two_skills":
            continue
        has_item = bool(held_out & set(tokenizer.tokenize(row["prompt"])))
        words = paraphrases.content_words(row["prompt"])
        has_words = any(
            paraphrases.content_words(text) <= words for text in ways[row["skill"]].test
        )
        assert has_item == (row["split"] in ("test_items", "test_both")), row
        assert has_words == (row["split"] in ("test_paraphrases", "test_both")), row


def test_the_eight_skills_are_the_six_and_two_pairs_as_skills():
    eight = FILES["eight.jsonl"]
    joint = [row for row in eight if "_and_" in row["skill"]]
    assert [row for row in eight if row not in joint] == FILES["six.jsonl"]
    assert {row["skill"] for row in joint} == {"french_and_category", "plural_and_spelling"}
    held_out = {noun.noun for noun in lexicon.read_nouns() if noun.item_split == "test"}
    tokenizer = build_tokenizer()
    for row in joint:
        assert f" {lexicon.ANSWER_JOINT} " in row["response"]
        has_item = bool(held_out & set(tokenizer.tokenize(row["prompt"])))
        assert has_item == (row["split"] == "test_items"), row
    counts = Counter((row["split"], row["skill"]) for row in joint)
    for skill in {row["skill"] for row in joint}:
        assert counts["train", skill] >= 100
        assert counts["validation", skill] >= 30
        assert counts["test_items", skill] >= 100


def test_validation_items_are_not_test_items():
    items = {
        split: {noun.noun for noun in lexicon.read_nouns() if noun.item_split == split}
        for split in ("train", "validation", "test")
    }
    assert items["train"] & items["validation"] == set()
    assert items["validation"] & items["test"] == set()
    assert items["train"] & items["test"] == set()
    assert all(items.values())


def test_two_skills_are_only_tested_in_four():
    pairs = [row for row in FILES["four.jsonl"] if len(names(row)) == 2]
    assert {row["split"] for row in pairs} == {"test_two_skills"}
    assert {tuple(row["skill"]) for row in pairs} == set(
        paraphrases.skill_pairs(skill_sets.FOUR_SKILLS)
    )
    assert all(f" {lexicon.ANSWER_JOINT} " in row["response"] for row in pairs)


@pytest.mark.parametrize("file", FILES)
def test_committed_files_are_what_the_generator_writes(file):
    committed = (lexicon.SKILLS_FOLDER / file).read_text(encoding="utf-8")
    assert committed == skill_files.to_jsonl(FILES[file])


def test_write_skill_sets_writes_the_same_bytes(tmp_path):
    skill_files.write_skill_sets(tmp_path / "new", FILES)
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert written == {name: (lexicon.SKILLS_FOLDER / name).read_bytes() for name in FILES}


def test_answers_of_one_noun():
    (mouse,) = [noun for noun in lexicon.read_nouns() if noun.noun == "mouse"]
    got = {skill: lexicon.answer(skill, mouse) for skill in lexicon.SKILLS}
    assert got == {
        "french": "la souris",
        "german": "die Maus",
        "category": "animal",
        "plural": "mice",
        "spelling": "m o u s e",
        "initial": "m",
    }
    assert lexicon.joint_answer(["plural", "french"], mouse) == "la souris and mice"


@pytest.mark.parametrize("file", ["four.jsonl", "eight.jsonl", "two_skills.jsonl"])
def test_the_wording_of_a_row_is_the_template_that_it_was_made_from(file):
    known = {t for found in paraphrases.read_paraphrases().values() for t in found.every}
    for found in paraphrases.read_pair_paraphrases().values():
        known |= {*found.train, *found.test}
    rows = read_skills(file.removesuffix(".jsonl")).rows
    assert {row.wording for row in rows} <= known
    assert {row.item for row in rows} <= {noun.noun for noun in lexicon.read_nouns()}
