"""Skill sets, and the way from rows to batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.config import PLAIN_TEMPLATE
from csreft_core.errors import SkillSetError, UnsupportedModelError
from csreft_core.skills.batching import collate, epoch_order
from csreft_core.skills.encoding import Example, encode, prompt_ids
from csreft_core.skills.names import fold, is_part, lookalikes, plain_name
from csreft_core.skills.skill_set import (
    SHIPPED,
    TEST_SPLITS,
    Row,
    SkillSet,
    read_kept,
    read_skills,
    write_skills,
)

WORDS = ["<pad>", "<bos>", "<eos>", "?", "Q:", "A:", "U:", *(f"w{i}" for i in range(20))]
IDS = {word: i for i, word in enumerate(WORDS)}
CHAT = "{{ bos_token }}{% for m in messages %}U: {{ m['content'] }}{% endfor %} A:"


def tokenizer(ends: bool = False, **settings: str) -> PreTrainedTokenizerFast:
    """Word by word, `<bos>` in front and, if asked for, `<eos>` behind."""
    built = Tokenizer(models.WordLevel(IDS, unk_token="?"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.post_processor = processors.TemplateProcessing(
        single="<bos> $A" + " <eos>" * ends, special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "?"}
    return PreTrainedTokenizerFast(tokenizer_object=built, **{**special, **settings})


def ids(text: str) -> tuple[int, ...]:
    return tuple(IDS[word] for word in text.split())


def save(path: Path, *records: dict) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def row(prompt: str, response: str = "w9", split: str = "train", *skills: str) -> Row:
    return Row(skills or ("a",), prompt, response, split)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_skill_sets_are_read_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skill_set = read_skills(name)
    assert {"train", "validation", "test_items"} <= set(skill_set.splits)
    assert skill_set.split("test") == tuple(r for r in skill_set.rows if r.split in TEST_SPLITS)


def test_splits_and_labels():
    rows = (row("p", "r", "test_both", "b"), row("q", "r", "train", "a"))
    pair = row("s", "r", "test_two_skills", "a", "b")
    skill_set = SkillSet((*rows, pair), ("b", "a"))
    assert skill_set.splits == ("train", "test_both", "test_two_skills")
    assert skill_set.split("test") == rows[:1]
    assert skill_set.split("all") == skill_set.rows
    assert skill_set.labels(skill_set.rows).tolist() == [[1, 0], [0, 1], [1, 1]]
    with pytest.raises(SkillSetError, match="unknown split 'dev'"):
        skill_set.split("dev")
    with pytest.raises(SkillSetError, match=r"'validation'.*train, test_both"):
        skill_set.split("validation")
    with pytest.raises(SkillSetError, match="no skill"):
        skill_set.labels([Row((), "p", "r", "train")])
    with pytest.raises(SkillSetError, match="unknown skill"):
        skill_set.labels([row("p", "r", "train", "c")])


def test_rows_without_split_are_shared_out_within_each_skill(tmp_path):
    records = [
        {"skill": skill, "prompt": f"{skill} {i}", "response": "r"}
        for skill, n in (("a", 100), ("b", 20), ("c", 2))
        for i in range(n)
    ]
    path = save(tmp_path / "x.jsonl", *records)
    skill_set = read_skills(path)
    counts = {
        name: [
            sum(r.skills == (name,) for r in skill_set.rows if r.split == split)
            for split in ("train", "validation", "test_items")
        ]
        for name in skill_set.names
    }
    assert counts == {"a": [80, 10, 10], "b": [16, 2, 2], "c": [2, 0, 0]}
    assert [r.prompt for r in skill_set.rows] == [record["prompt"] for record in records]
    assert read_skills(path) == skill_set
    assert read_skills(path, seed=1) != skill_set


def test_rows_with_the_same_prompt_stay_together(tmp_path):
    records = [{"prompt": f"{i % 10}", "response": f"{i}"} for i in range(100)]
    known = {"prompt": "3", "response": "x", "split": "validation"}
    rows = read_skills(save(tmp_path / "x.jsonl", *records, known)).rows
    assert len({(r.prompt, r.split) for r in rows}) == 10
    assert {r.split for r in rows} == {"train", "validation", "test_items"}
    assert {r.split for r in rows if r.prompt == "3"} == {"validation"}


def test_what_is_wrong_between_rows_is_named(tmp_path):
    train = {"prompt": "p", "response": "r", "split": "train"}
    path = save(tmp_path / "x.jsonl", train, {**train, "response": "s", "split": "test_both"})
    with pytest.raises(SkillSetError, match=r"x.jsonl:2: field 'prompt'.*x.jsonl:1"):
        read_skills(path)
    assert len(read_skills(save(tmp_path / "y.jsonl", train, train)).rows) == 2
    path = save(tmp_path / "z.jsonl", {**train, "split": "validation"})
    with pytest.raises(SkillSetError, match="no row has the split 'train'"):
        read_skills(path)
    with pytest.raises(SkillSetError, match=r"no such skill set.*four, six"):
        read_skills(str(tmp_path / "none"))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
# Fields only: with its annotations checked, building a Row draws random numbers, which Hypothesis
# does not allow inside a strategy.
FILLED = TEXT.map(str.strip).filter(bool)
FIELDS = st.tuples(
    st.lists(FILLED, max_size=3, unique=True).map(tuple),
    FILLED,
    FILLED,
    st.sampled_from(["train", "validation"]),
)


@given(st.lists(FIELDS))
@settings(deadline=None)  # it writes and reads a file
def test_what_is_written_is_read_again(tmp_path_factory, fields):
    rows = (*(Row(*values) for values in fields), row("p"))
    names = tuple(dict.fromkeys(name for r in rows for name in r.skills))
    path = tmp_path_factory.mktemp("skills") / "x.jsonl"
    write_skills(SkillSet(rows, names), path)
    assert read_kept(path) == SkillSet(rows, names)


def test_templates():
    plain, chat = tokenizer(), tokenizer(chat_template=CHAT)
    assert resolve_template("auto", plain) == PLAIN_TEMPLATE
    assert resolve_template("auto", chat) == resolve_template("chat", chat) == "chat"
    assert resolve_template("{prompt} A:", chat) == "{prompt} A:"
    with pytest.raises(SkillSetError, match="no chat template"):
        resolve_template("chat", plain)
    assert tuple(prompt_ids("w1", plain, PLAIN_TEMPLATE)) == ids("<bos> Q: w1 A:")
    assert tuple(prompt_ids("w1", chat, "chat")) == ids("<bos> U: w1 A:")
    assert tuple(prompt_ids("{prompt}", plain, PLAIN_TEMPLATE)) == ids("<bos> Q: ? A:")


def test_an_appended_end_token_does_not_end_the_prompt():
    assert tuple(prompt_ids("w1", tokenizer(ends=True), PLAIN_TEMPLATE)) == ids("<bos> Q: w1 A:")


def test_encode():
    rows = [row("w1 w2", "w3"), row("w4", "w5 w6")]
    expected = [
        Example(ids("<bos> Q: w1 w2 A:"), ids("w3 <eos>")),
        Example(ids("<bos> Q: w4 A:"), ids("w5 w6 <eos>")),
    ]
    assert encode(rows, tokenizer(), PLAIN_TEMPLATE, 10) == (expected, 0)
    assert encode([], tokenizer(), PLAIN_TEMPLATE, 10) == ([], 0)
    chat, _ = encode(rows[:1], tokenizer(chat_template=CHAT), "chat", 10)
    assert chat == [Example(ids("<bos> U: w1 w2 A:"), ids("w3 <eos>"))]


def test_encode_needs_an_end_token():
    bare = tokenizer()
    bare.eos_token = None
    with pytest.raises(UnsupportedModelError, match="eos_token"):
        encode([row("w1")], bare, PLAIN_TEMPLATE, 10)


@pytest.mark.parametrize(
    ("length", "prompt", "answer"),
    [
        (8, "<bos> Q: w1 w2 A:", "w3 w4 <eos>"),
        (7, "<bos> w1 w2 A:", "w3 w4 <eos>"),
        (5, "<bos> A:", "w3 w4 <eos>"),
        (4, "<bos> A:", "w3 w4"),
        (3, "<bos> A:", "w3"),
    ],
)
def test_what_is_cut(length, prompt, answer):
    examples, n_cut = encode([row("w1 w2", "w3 w4")], tokenizer(), PLAIN_TEMPLATE, length)
    lost = "" if length >= 5 else "cut"
    assert examples == [Example(ids(prompt), ids(answer), lost)]
    assert n_cut == (length < 8)


TOKENS = st.lists(st.integers(3, 90), min_size=1, max_size=6).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS, st.one_of(st.just(()), TOKENS)), min_size=1, max_size=5)


@given(PAIRS, st.integers(0, 5))
@settings(deadline=None)  # the first call compiles the checks of the annotations
def test_a_batch_holds_its_examples(pairs, pad_id):
    examples = [Example(*pair) for pair in pairs]
    batch = collate(examples, pad_id)
    for i, example in enumerate(examples):
        real = batch.attention_mask[i].bool()
        asked, answered = batch.prompt_mask[i].bool(), batch.labels[i] != -100
        assert batch.input_ids[i, real].tolist() == [*example.prompt, *example.answer]
        assert batch.input_ids[i, asked].tolist() == list(example.prompt)
        assert batch.labels[i, answered].tolist() == list(example.answer)
        assert torch.equal(real, asked ^ answered)
        assert not (asked & answered).any()
        assert (batch.input_ids[i, ~real] == pad_id).all()
        assert real.tolist() == sorted(real.tolist())  # the padding is on the left
        assert batch.n_answer_tokens[i] == len(example.answer)


def test_a_small_batch():
    batch = collate([Example((5,), (6, 2)), Example((7,), (2,))], 0)
    assert batch.input_ids.tolist() == [[5, 6, 2], [0, 7, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert batch.prompt_mask.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert batch.labels.tolist() == [[-100, 6, 2], [-100, -100, 2]]
    assert batch.n_answer_tokens.tolist() == [2, 1]
    assert batch.to("cpu").labels.tolist() == batch.labels.tolist()


@given(st.integers(0, 200), st.integers(0, 2**40), st.integers(0, 100))
@settings(deadline=None)
def test_an_epoch_is_a_permutation_and_repeats(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    assert np.array_equal(order, epoch_order(n, seed, epoch))


def test_epochs_and_seeds_differ():
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_names_as_people_see_them():
    assert plain_name(" cafe\u0301\u200b  noir\ufeff") == "caf\u00e9 noir"
    assert fold(" Skill-Name ") == "skill_name"
    assert lookalikes(["French", "plural", "french", "Plu-ral"]) == [
        ("French", "french"),
        ("plural", "Plu-ral"),
    ]
    names = ("red", "c++", "c")
    assert is_part("c++", "c++", names)
    assert not is_part("c", "c++", names)
    assert is_part("c++", "red+c++", names)
    assert not is_part("blue", "red+c++", names)


def test_a_home_folder_and_a_file_to_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    row = {"kind": "a", "skill": "b", "prompt": "p", "response": "r", "split": "test_items"}
    save(tmp_path / "x.jsonl", row, {**row, "prompt": "q", "split": "train"})
    assert read_skills("~/x.jsonl", "kind").names == ("a",)
    save(tmp_path / "x.jsonl", {**row, "kind": None})
    with pytest.raises(SkillSetError, match="no row has the split 'train'"):
        read_skills("~/x.jsonl")
    assert read_skills("~/x.jsonl", "other", to_train=False).names == ("b",)
    with pytest.raises(SkillSetError, match="no such home folder"):
        read_skills("~nobody-here/x.jsonl")


def test_what_a_run_keeps_is_read_as_it_stands(tmp_path):
    rows = (
        Row(("cafe\u0301", "a+b"), " p", "  x = 1", "test_items"),
        Row(("a", "b"), "p", "r", "train"),
    )
    write_skills(SkillSet(rows, ()), tmp_path / "kept.jsonl")
    assert read_kept(tmp_path / "kept.jsonl").rows == rows
    (tmp_path / "kept.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    with pytest.raises(SkillSetError, match=r"kept\.jsonl:1: is no row"):
        read_kept(tmp_path / "kept.jsonl")
