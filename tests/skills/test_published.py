"""The data sets of the papers, on small local copies with the published columns."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from csreft_core.cli import main
from csreft_core.errors import SkillSetError
from csreft_core.skills import published as data_presets
from csreft_core.skills.published import DATA_PRESETS, skills_from_preset
from csreft_core.skills.skill_set import SkillSet, read_skills

if os.environ.get("CI") == "true":
    import datasets
else:
    datasets = pytest.importorskip("datasets", reason="optional: pip install 'datasets>=5,<6'")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def completion(response: str, score: float) -> dict:
    """As UltraFeedback has it, without the annotations."""
    return {"model": "m", "response": response, "overall_score": score, "critique": "c"}


def feedback(source: str, i: int, *completions: dict) -> dict:
    return {
        "source": source,
        "instruction": f"{source} {i}",
        "models": ["m", "n"],
        "completions": list(completions),
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def alpaca(instruction: str, output: str, given: str = "", **more: str) -> dict:
    return {"instruction": instruction, "input": given, "output": output, **more}


COMMONSENSE = {
    "boolq": "Please answer the following question with true or false, question: is {} wet?\n\n"
    "Answer format: true/false",
    "piqa": "Please choose the correct solution to the question: dry {}\n\nSolution1: a\n\n"
    "Solution2: b\n\nAnswer format: solution1/solution2",
    "hellaswag": "Please choose the correct ending to complete the given sentence: {} \n\nEnding1: "
    "a Ending2: b Ending3: c Ending4: d\n\nAnswer format: ending1/ending2/ending3/ending4",
    "winogrande": "Please choose the correct answer to fill in the blank to complete the given "
    "sentence: _ {}\n\nOption1: a Option2: b\n\nAnswer format: option1/option2",
    "social_iqa": "Please choose the correct answer to the question: {}\n\nAnswer1: a Answer2: b "
    "Answer3: c\n\nAnswer format: answer1/answer2/answer3",
    "arc_openbookqa": "Please choose the correct answer to the question: {}\n\nAnswer1: a Answer2: "
    "b Answer3: c Answer4: d\n\nAnswer format: answer1/answer2/answer3/answer4",
    "other": "Say something about {}",
}
PUBLISHED: dict[str, list[dict]] = {
    "ultrafeedback": [
        feedback(source, i, completion("low", 2.0), completion("high", 8.5), completion("", 10.0))
        for source in ("sharegpt", "flan_v2_cot", "flan_v2_p3", "truthful_qa")
        for i in range(4)
    ]
    + [feedback("sharegpt", 9), feedback("ultrachat", 1, completion("only", 5.0))],
    "alpaca": [
        alpaca(f"Name {i}.", "one", "of these" * (i % 2), text="Below is an instruction")
        for i in range(12)
    ]
    + [alpaca("Say nothing.", "", text="-"), alpaca("Name 0.", "another", text="-")],
    "commonsense-170k": [
        alpaca(wording.format(f"thing {i}"), "the correct answer is x", answer="x")
        for wording in COMMONSENSE.values()
        for i in range(5)
    ],
    "math-10k": [
        alpaca(
            f"{i} apples and {i} more?",
            f"There are {2 * i}. The answer is {2 * i}",
            answer=str(float(2 * i)),
        )
        for i in range(6)
    ]
    + [
        alpaca(f"{i} and {i}? Answer Choices: (A) 1 (B) 2", "The answer is B", answer="B")
        for i in range(6)
    ],
}
SKILLS = {
    "ultrafeedback": {"sharegpt": 4, "flan": 8, "truthful_qa": 4, "ultrachat": 1},
    "alpaca": {"without_input": 6, "with_input": 6},
    "commonsense-170k": dict.fromkeys(COMMONSENSE, 5),
    "math-10k": {"number": 6, "multiple_choice": 6},
}


def local_copy(folder: Path, name: str, kind: str = "parquet") -> Path:
    folder.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_list(PUBLISHED[name])
    if kind == "parquet":
        rows.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    else:
        (folder / f"train.{kind}").write_text(json.dumps(PUBLISHED[name]))
    return folder


def counts(skill_set: SkillSet) -> dict[str, int]:
    return {name: sum(row.skills == (name,) for row in skill_set.rows) for name in skill_set.names}


@pytest.mark.parametrize("kind", ["parquet", "json"])
@pytest.mark.parametrize("name", DATA_PRESETS)
def test_a_local_copy_becomes_a_skill_set(tmp_path, name, kind):
    skill_set = skills_from_preset(name, folder=local_copy(tmp_path / "copy", name, kind))
    assert counts(skill_set) == SKILLS[name]
    assert len({row.prompt for row in skill_set.rows}) == len(skill_set.rows)
    assert {"train", "validation", "test_items"} <= set(skill_set.splits)


def test_the_best_judged_completion_is_the_answer(tmp_path):
    folder = local_copy(tmp_path / "c", "ultrafeedback")
    skill_set = skills_from_preset("ultrafeedback", folder=folder)
    assert {row.skills: row.response for row in skill_set.rows} == {
        ("sharegpt",): "high",
        ("flan",): "high",
        ("truthful_qa",): "high",
        ("ultrachat",): "only",
    }


def test_the_first_answer_to_a_prompt_is_kept(tmp_path):
    skill_set = skills_from_preset("alpaca", folder=local_copy(tmp_path / "c", "alpaca"))
    assert [r.response for r in skill_set.rows if r.prompt == "Name 0."] == ["one"]
    assert any(row.prompt == "Name 1.\nof these" for row in skill_set.rows)


def test_a_limit_counts_for_each_skill(tmp_path):
    folder = local_copy(tmp_path / "c", "commonsense-170k")
    limited = skills_from_preset("commonsense-170k", folder=folder, limit=3)
    assert counts(limited) == dict.fromkeys(COMMONSENSE, 3)
    with pytest.raises(SkillSetError, match="the limit is 0"):
        skills_from_preset("alpaca", folder=folder, limit=0)


@pytest.mark.parametrize("name", DATA_PRESETS)
def test_without_a_network_the_message_says_what_to_do(name):
    with pytest.raises(SkillSetError, match=rf"{name}: .*cannot be read.*--from"):
        skills_from_preset(name)


def test_a_copy_of_something_else_is_refused(tmp_path):
    folder = local_copy(tmp_path / "c", "alpaca")
    with pytest.raises(SkillSetError, match=r"no source, completions; found instruction"):
        skills_from_preset("ultrafeedback", folder=folder)
    with pytest.raises(SkillSetError, match=r"no \.parquet"):
        skills_from_preset("alpaca", folder=tmp_path / "none")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SkillSetError, match=r"alpaca: .*cannot be read"):
        skills_from_preset("alpaca", folder=tmp_path / "broken")


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(SkillSetError, match=r"'gsm8k'.*ultrafeedback, alpaca"):
        skills_from_preset("gsm8k")


def test_without_the_library_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(data_presets, "find_spec", lambda _: None)
    with pytest.raises(SkillSetError, match=r"pip install 'datasets"):
        skills_from_preset("alpaca")
    assert importlib.util.find_spec("datasets")  # the control: it is there


def test_the_command_writes_a_file_that_training_reads(tmp_path, capsys):
    folder, out = local_copy(tmp_path / "c", "math-10k"), tmp_path / "math.jsonl"
    command = ["skills-from-preset", "math-10k", "--from", str(folder), "--out", str(out)]
    assert main([*command, "--limit", "4"]) == 0
    said = capsys.readouterr().out
    assert "8 rows" in said
    assert "wording does not tell those apart" in said
    assert counts(read_skills(str(out))) == {"number": 4, "multiple_choice": 4}
    assert main(command) == 2
    assert "already" in capsys.readouterr().err


def test_every_preset_says_where_it_comes_from_and_how_rows_get_skills():
    for preset in DATA_PRESETS.values():
        assert preset.skill_rule
        assert preset.licence
        assert preset.n_rows > 1000
        assert preset.source.startswith("https://") or preset.source.count("/") == 1
