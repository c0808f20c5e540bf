"""The papers' presets: valid configs with the papers' parameter counts, which run on small data."""

import re

import pytest

from csreft_core.__main__ import main
from csreft_core.config import ASSETS, read_config
from csreft_core.reft.adapter import build_adapter, parameter_counts
from csreft_core.runs.all_runs import open_run
from csreft_core.skills.skill_set import SkillSet, read_skills, write_skills
from tests.repository import ROOT

FOLDER = ASSETS / "presets"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
# d_model and layers of the base, and what ReFT's tables count.
COUNTS = {
    "commonsense": (4096, 32, 2_097_408),
    "arithmetic": (4096, 32, 2_097_408),
    "instructions": (4096, 32, 262_176),
}


def test_there_is_a_preset_for_each_benchmark():
    glue = [name for name in NAMES if name.startswith("glue-")]
    assert sorted({*NAMES} - {*glue}) == sorted(COUNTS)
    assert len(glue) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains_as_many_parameters_as_the_paper_says(name):
    d_model, n_layers, expected = COUNTS.get(name, (768, 12, 18_444))
    config = read_config(FOLDER / f"{name}.json")
    adapter = build_adapter(
        config, d_model=d_model, n_layers=n_layers, skills=("a", "b"), base_fingerprint="x"
    )
    assert parameter_counts(adapter) == {"subspaces": expected, "router": 0, "total": expected}


def test_the_readme_states_the_steps_of_every_preset():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `(.+)\.json` \| ([\d,]+) \| (\d+) \| (\d+) \| ([\d,]+) \|", text)
    assert sorted(row[0] for row in rows) == NAMES
    for name, *numbers in rows:
        n_rows, epochs, batch, steps = (int(number.replace(",", "")) for number in numbers)
        train = read_config(FOLDER / f"{name}.json").train
        assert steps == train.steps == round(n_rows * epochs / batch)
        assert batch == train.batch_size


@pytest.mark.parametrize("name", ["commonsense", "arithmetic", "instructions", "glue-mnli"])
def test_a_preset_runs_on_a_local_base_and_data(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    whole = read_skills("four")
    few = [row for row in whole.rows if row.split in ("train", "validation")][::40]
    data = tmp_path / "mine.jsonl"
    write_skills(SkillSet(tuple(few), whole.names), data)
    changes = [
        "base.path=pocket",
        "base.precision=fp32",
        f"data.path={data}",
        "adapter.layers=[0,1,2]",
        "train.batch_size=8",
        "train.accumulate=2",
        "train.steps=2",
    ]
    config = FOLDER / f"{name}.json"
    out = tmp_path / "run"
    words = [word for change in changes for word in ("--set", change)]
    assert main(["train", str(config), *words, "--out", str(out), "--json"]) == 0
    capsys.readouterr()
    run = open_run(out)
    asked, made = read_config(config), run.config()
    assert run.status().state == "finished"
    same = ("rank", "positions", "tied", "form", "constraint", "init", "n_subspaces")
    assert [getattr(made.adapter, n) for n in same] == [getattr(asked.adapter, n) for n in same]
    assert (made.train.lr, made.train.warmup) == (asked.train.lr, asked.train.warmup)
