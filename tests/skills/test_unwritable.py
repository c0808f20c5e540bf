"""Answers that the base cannot write: said with their number, and trained on when asked twice."""

import json
from pathlib import Path

import pytest

from csreft_core.analysis.answers.sentences import sentence_dose
from csreft_core.analysis.answers.tables import dose_table
from csreft_core.analysis.interference.prompt import patterns_table
from csreft_core.analysis.skills.sentences import sentence_special, sentence_unwritable
from csreft_core.analysis.skills.subject import open_skills
from csreft_core.analysis.skills.tables import special_table, unwritable_table
from csreft_core.analysis.subject import open_subject
from csreft_core.charts.answers import dose_curve
from csreft_core.cli import main
from csreft_core.runs.all_runs import open_run
from csreft_core.skills.skill_set import SHIPPED
from csreft_core.skills.unwritable import unwritable_message
from tests import tiny_runs


def write(path: Path, *rows: tuple[str, str, str]) -> str:
    records = [
        {"skill": "a", "prompt": prompt, "response": response, "split": split}
        for prompt, response, split in rows
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of words, and a run that was trained on an answer it has no word for."""
    folder = tmp_path_factory.mktemp("unwritable")
    tiny_runs.save_base(folder / "base")
    write(
        folder / "rows.jsonl",
        ("w5 w6", "w7", "train"),
        ("w5 w8", "Berlin", "train"),
        ("w9", "w7 <eos2>", "validation"),
    )
    assert main([*command(folder), "--unwritable-answers", "--out", str(folder / "run")]) == 0
    return folder


def command(made: Path) -> list[str]:
    return ["train", *tiny_runs.settings(made / "base", made / "rows.jsonl", train__steps=2)]


def test_training_on_them_has_to_be_asked_for_twice(made, tmp_path, capsys):
    capsys.readouterr()
    assert main([*command(made), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert "2 of 3 answers cannot be written by this base (1 in train, 1 in validation)" in said
    assert "'Berlin' (no token for 'Berlin')" in said
    assert "--unwritable-answers trains on them all the same" in said
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_asked_for_twice_says_so_and_counts_none_as_right(made):
    records = open_run(made / "run").metrics()
    assert any("1 of 2 answers cannot be written" in note for note in records[0]["notes"])
    scores = [r["skills"]["a"]["exact_match"] for r in records if r["kind"] == "eval"]
    assert scores == [0.0] * len(scores)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "english"])
def test_the_shipped_base_writes_every_shipped_answer(name):
    subject = open_skills(name)
    rows = subject.skill_set.rows
    assert unwritable_message(rows, subject.encoded(rows), subject.reader.tokenizer) is None


def test_the_skills_page_says_which_and_why(tmp_path):
    path = write(
        tmp_path / "x.jsonl", ("What is Berlin?", "Berlin is big", "train"), ("dog", "dog", "train")
    )
    table = unwritable_table(open_skills(path))
    assert table[["row", "lost"]].to_numpy().tolist() == [[1, "unknown"]]
    assert "no token for" in table["why"][0]
    assert sentence_unwritable(table).startswith("The base cannot write 1 answer, such as")
    assert sentence_unwritable(table[:0]) == "The base can write every answer."
    assert special_table(open_skills(path)).empty
    assert sentence_special(special_table(open_skills(path))) == "No text spells a special token."


def test_an_answer_without_tokens_has_no_probability(made):
    """It is that of the unknown token, which stands for every other word as well."""
    subject = open_subject(str(made / "run"))
    asked = {"prompts": ("w5 w8",), "points": 3}
    table = dose_table(subject, **asked)
    target = table[table["kind"] == "known answer"]
    assert target["log_probability"].isna().all()
    assert target["first_probability"].isna().all()
    assert set(target["undefined"]) == {"no token for 'Berlin'"}
    assert "cannot write" in sentence_dose(table)
    assert dose_curve(table).data
    table = dose_table(subject, **{**asked, "prompts": ("w5 w6",)})
    assert table[table["kind"] == "known answer"]["log_probability"].notna().all()
    with pytest.raises(Exception, match=r"cannot write the answer 'Berlin'.*no probability"):
        patterns_table(subject, prompts=("w5 w8",))
