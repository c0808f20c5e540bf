"""Tables about a skill set, on rows whose numbers a reader can count."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csreft_core.analysis.skills import sentences as say
from csreft_core.analysis.skills.batch import batch_table
from csreft_core.analysis.skills.pairs import (
    leaks_table,
    normal_form,
    similarity_table,
    twins_table,
)
from csreft_core.analysis.skills.subject import SkillSubject, load_reader, open_skills
from csreft_core.analysis.skills.tables import (
    counts_table,
    lengths_table,
    skills_table,
    unknown_table,
)
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig, preset
from csreft_core.errors import CsreftError, SkillSetError
from csreft_core.inference.scoring import encode_rows
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.skill_set import Row, SkillSet
from csreft_core.training import loss as objective
from csreft_core.training.loop import train
from tests import tiny_runs


def subject(*rows: tuple[str, str, str, str], **changes: object) -> SkillSubject:
    """Rows of skills joined by `+`, prompt, response, split."""
    made = tuple(Row(tuple(filter(None, s.split("+"))), p, r, split) for s, p, r, split in rows)
    names = tuple(dict.fromkeys(name for row in made for name in row.skills))
    config = preset("recommended")
    short = replace(config.train, **changes)
    return SkillSubject(SkillSet(made, names), replace(config, train=short))


def records(table) -> list[tuple]:
    return list(table.itertuples(index=False, name=None))


THREE = (
    ("a", "What is dog?", "cat", "train"),
    ("a+b", "What is horse?", "pear", "test_two_skills"),
    ("", "apple", "tie", "train"),
)


@pytest.mark.fast
def test_skills_and_counts():
    rows = subject(*THREE)
    assert records(skills_table(rows)) == [
        ("a", 1, 1, 0, "What is dog?", "cat"),
        ("a+b", 1, 0, 1, "What is horse?", "pear"),
        ("unlabelled", 1, 1, 0, "apple", "tie"),
    ]
    assert records(counts_table(rows)) == [
        ("a", "train", 1),
        ("a", "test_two_skills", 1),
        ("b", "train", 0),
        ("b", "test_two_skills", 1),
        ("unlabelled", "train", 1),
        ("unlabelled", "test_two_skills", 0),
    ]
    assert say.sentence_counts(counts_table(rows)).startswith("b has no training row")


@pytest.mark.parametrize(
    ("n", "words"),
    [
        ((3, 3), "Balanced: every skill has 3 rows"),
        ((3, 2), "Nearly balanced: a has 3 rows"),
        ((9, 3), r"Not balanced: a has 9 rows to train on, b 3 (3.0 times fewer). Nothing is held"),
    ],
)
def test_the_sentence_of_the_balance(n, words):
    rows = [(s, f"{s} {i}", "r", "train") for s, m in zip("ab", n, strict=True) for i in range(m)]
    assert say.sentence_counts(counts_table(subject(*rows))).startswith(words)


def test_lengths_are_those_of_the_encoded_rows_and_of_the_cut():
    rows = (
        ("a", "What is the plural of dog?", "dogs", "train"),
        ("a", "dog " * 30, "cats", "train"),
        ("a", "dog", "cat " * 30, "test_items"),
    )
    table = lengths_table(subject(*rows, max_length=20))
    # <bos> Q: ... A: and the answer with <eos>; the first fits.
    assert table["tokens"].tolist() == [12, 35, 35]
    assert table["prompt_cut"].tolist() == [0, 15, 2]
    assert table["answer_cut"].tolist() == [0, 0, 13]
    kept = table["tokens"] - table["prompt_cut"] - table["answer_cut"]
    assert kept.tolist() == [12, 20, 20]
    assert say.sentence_lengths(table) == (
        "Longer than 20 tokens: 2 of 3 rows (1 in train; the longest has 35). What is lost is the "
        "beginning of the prompt, 17 tokens in all. In 1 row even the answer does not fit: its end "
        "is lost, and the model does not see where it stops."
    )
    whole = lengths_table(subject(*rows, max_length=512))
    assert whole["limit"].unique().tolist() == [256]  # what the base can read
    assert "No row is cut: the longest of 3 has 35 tokens" in say.sentence_lengths(whole)


def test_the_number_of_cut_rows_is_the_trainers():
    opened = open_skills("four", ["train.max_length=14"])
    some = SkillSet(opened.skill_set.rows[::20], opened.skill_set.names)
    opened = replace(opened, skill_set=some)
    table = lengths_table(opened)
    base, rows = load_base(BaseConfig()), opened.skill_set.split("train")
    encoded = encode_rows(rows, base, opened.template, opened.config.train.max_length)
    cut = (table["tokens"] > table["limit"]) & (table["split"] == "train")
    assert int(cut.sum()) == encoded.n_cut > 0


def test_the_reader_reads_as_the_base_does():
    base, reader = load_base(BaseConfig()), load_reader(BaseConfig())
    assert (reader.context, reader.pad_id) == (base.context, base.pad_id)
    text = "What is the plural of dog?"
    assert reader.tokenizer(text)["input_ids"] == base.tokenizer(text)["input_ids"]
    with pytest.raises(CsreftError, match="no folder"):
        load_reader(BaseConfig(path="./none"))


def test_unknown_words_are_counted_and_named():
    rows = (
        ("a", "What is the plural of wug, blick?", "wugs", "train"),
        ("b", "What is the wug?", "dogs", "train"),
    )
    table = unknown_table(subject(*rows))
    assert records(table)[0] == ("wug", 2, "a", rows[0][1])
    assert set(table["word"]) == {"wug", "blick", "wugs"}
    assert "no token for 3 words: “wug”" in say.sentence_unknown(table)
    assert unknown_table(subject(rows[1], ("a", "dog", "cat", "train")))["word"].tolist() == ["wug"]
    shipped = unknown_table(open_skills("four"))
    assert shipped.empty
    assert say.sentence_unknown(shipped) == "The base has a token for every word."


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter__positions": "all"},
        {"train__seed": 3, "adapter__positions": "f2+l1"},
        {"train__accumulate": 3, "data__template": "{prompt} w5"},
        {"train__batch_size": 50, "train__max_length": 8},
    ],
    ids=["all", "seed and positions", "accumulate and template", "epochs and cut"],
)
def test_the_shown_batch_is_what_the_first_training_step_gets(tmp_path, monkeypatch, changes):
    """Tokens, masks and labels of the batch, and the edited places, as training computes them."""
    base = tiny_runs.save_base(tmp_path / "base")
    rows = [
        row | {"prompt": row["prompt"] + " w7" * (i % 4)} for i, row in enumerate(tiny_runs.rows())
    ]
    skills = tiny_runs.write_rows(tmp_path / "skills.jsonl", rows)
    # What is kept of the rows would not run; the batch is the same.
    changes = {"train__keep_states": "false", "train__eval_every": 9, **changes}
    arguments = tiny_runs.settings(base, skills, train__steps=1, **changes)
    opened = open_skills(str(skills), arguments[1::2])
    batches, sites = [], []
    collate, score = objective.collate, objective.answer_scores

    def noted(*args):
        batches.append(collate(*args))
        return batches[-1]

    def scored(*args, **kwargs):
        found = score(*args, **kwargs)
        width = found[2].index.shape[1]
        sites.append({divmod(site, width) for group in found[2].sites() for site in group.tolist()})
        return found

    monkeypatch.setattr(objective, "collate", noted)
    monkeypatch.setattr(objective, "answer_scores", scored)
    run = create_run(tmp_path / "run", opened.config, opened.skill_set)
    for _ in train(run):
        pass
    table, batch = batch_table(opened), batches[0]
    shape = (len(batch.input_ids), -1)
    assert table["token_id"].to_numpy().reshape(shape).tolist() == batch.input_ids.tolist()
    for column, mask in (
        (table["in_loss"], batch.labels != -100),
        (table["part"] != "padding", batch.attention_mask == 1),
        (table["part"] == "prompt", batch.prompt_mask == 1),
    ):
        assert column.to_numpy().reshape(shape).tolist() == mask.tolist()
    edited = table[table["edited"]]
    places = zip(edited["example"] - 1, edited["column"] - 1, strict=True)
    assert {(int(i), int(j)) for i, j in places} == sites[0] != set()
    assert (table["part"] == "padding").any() or "train__max_length" in changes


def test_another_step_is_another_batch():
    opened = open_skills("four", ["train.batch_size=4"])
    first, second = (batch_table(opened, step=step)["token_id"].tolist() for step in (0, 1))
    assert first != second
    assert batch_table(opened, step=0)["token_id"].tolist() == first
    table = batch_table(opened)
    n = len(table[table["part"] != "padding"])
    assert f"{n} tokens: the loss counts {table['in_loss'].sum()} of them" in say.sentence_batch(
        table
    )
    assert table["edited"].sum() == 4  # l1: the last prompt token of each


def test_without_training_rows_there_is_no_batch():
    with pytest.raises(SkillSetError, match="'train'"):
        batch_table(subject(("a", "dog", "cat", "test_items")))


TWINS = (
    ("a", "What is dog?", "cat", "train"),
    ("a", "What is dog?", "cat", "train"),
    ("a", "what is  DOG", "Cat.", "test_items"),
    ("a", "What is dog?", "pear", "validation"),
    ("a", "1.5", "x", "train"),
    ("a", "15", "x", "test_items"),
    ("a", "-3", "x", "train"),
    ("a", "3", "x", "test_items"),
)


@pytest.mark.fast
def test_twins_and_leaks():
    rows = subject(*TWINS)
    table = twins_table(rows)
    assert table["row"].tolist() == [1, 2, 3, 4]
    assert table["group"].unique().tolist() == [1]
    assert table["same"].tolist() == ["exact", "exact", "near", "exact"]
    assert table["conflict"].all()
    leaks = leaks_table(rows).set_index(["split", "other"])
    assert leaks.loc[("train", "train")].tolist() == [4, 2, 0, 0]
    assert leaks.loc[("train", "validation")].tolist() == [4, 2, 0, 2]
    assert leaks.loc[("train", "test_items")].tolist() == [4, 0, 2, 0]
    assert leaks.loc[("test_items", "train")].tolist() == [3, 0, 1, 0]
    assert leaks.loc[("test_items", "validation")].tolist() == [3, 0, 1, 1]
    assert leaks.loc[("test_items", "test_items")].tolist() == [3, 0, 0, 0]
    said = say.sentence_leaks(leaks_table(rows))
    assert said.startswith("Leakage: a training row asks the same as 1 of 3 test rows.")
    assert "2 rows have a twin in their own split." in said
    clean = subject(TWINS[0], TWINS[4], TWINS[5])
    assert twins_table(clean).empty
    assert say.sentence_leaks(leaks_table(clean)) == (
        "No test row was trained on (1 compared). No prompt stands twice in a split."
    )


@given(st.text(max_size=40))
@settings(deadline=None)
def test_normalising_twice_changes_nothing(text):
    once = normal_form(text)
    assert normal_form(once) == once
    assert normal_form(f"  {text}  ") == once


def test_similarity_is_the_mean_cosine_of_all_pairs():
    words = {"a": ["dog cat", "dog pear", "tie"], "b": ["dog cat", "house knee"]}
    rows = subject(*((s, p, "r", "train") for s, prompts in words.items() for p in prompts))
    table = similarity_table(rows).set_index(["skill", "other"])["similarity"]
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    cosine = cosine_similarity(TfidfVectorizer().fit_transform([*words["a"], *words["b"]]))
    assert table["a", "b"] == pytest.approx(cosine[:3, 3:].mean())
    assert table["a", "a"] == pytest.approx((cosine[:3, :3].sum() - 3) / 6)
    assert table["b", "b"] == pytest.approx(cosine[3, 4])
    assert table["a", "b"] == pytest.approx(table["b", "a"])


def test_one_skill_under_two_names_is_found_and_two_skills_are_told_apart():
    nouns = "dog cat horse apple pear tram tie shoe knee house".split()
    same = [("ab"[i % 2], f"What is the plural of {n}?", "r", "train") for i, n in enumerate(nouns)]
    other = [(s, p.replace("plural", "category") if s == "b" else p, r, t) for s, p, r, t in same]
    far = [
        (s, f"Name a {n}" if s == "b" else p, r, t)
        for (s, p, r, t), n in zip(same, nouns, strict=True)
    ]
    assert "could be one skill" in say.sentence_similarity(similarity_table(subject(*same)))
    for rows in (other, far):
        assert "tell them apart" in say.sentence_similarity(similarity_table(subject(*rows)))
    one = similarity_table(subject(("a", "dog", "r", "train")))
    assert math.isnan(one["similarity"].iloc[0])
    assert say.sentence_similarity(one).startswith("One skill")


def test_settings_and_file_are_checked(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"task": "a", "prompt": "dog", "response": "cat"}) + "\n")
    assert open_skills(str(path), ["data.skill_column=task"]).skill_set.names == ("a",)
    with pytest.raises(CsreftError, match=r"train\.length"):
        open_skills(str(path), ["train.length=3"])
    with pytest.raises(SkillSetError, match="no such skill set"):
        open_skills(str(tmp_path / "none"))
