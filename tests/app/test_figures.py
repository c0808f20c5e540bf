"""The text below a figure, for each kind of source, and a table that is computed once."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from csreft_core.analysis.gates import tables as gates
from csreft_core.analysis.methods import tables as methods
from csreft_core.analysis.skills import batch
from csreft_core.app.figures.figure import table_of
from csreft_core.app.figures.shown_code import code, command
from csreft_core.app.figures.source import JUDGED, Source, of_run, of_skills, short_path
from csreft_core.charts import methods as method_charts
from csreft_core.charts.gates import figures as gate_charts
from csreft_core.charts.skills import batch as batch_charts
from csreft_core.config import preset
from csreft_core.runs.all_runs import Run
from tests.repository import ROOT

EXAMPLE = Path("assets/examples/recommended-0")
SKILLS = Source("check-skills", "four", ("train.batch_size=4",))


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_code_opens_a_run_by_its_short_path():
    source, options = of_run(Run(ROOT / EXAMPLE)), {"names": ["plural"]}
    arguments = {"prompts": ("two words",), "gates": "off"}
    assert code(source, gates.gates_table, gate_charts.gate_bars, arguments, options) == (
        "from csreft_core.analysis.subject import open_subject\n"
        "from csreft_core.analysis.gates import tables\n"
        "from csreft_core.charts.gates import figures as charts\n\n"
        "subject = open_subject('assets/examples/recommended-0')\n"
        "table = tables.gates_table(subject, prompts=('two words',), gates='off')\n"
        "charts.gate_bars(table, names=['plural']).show()"
    )


def test_code_writes_a_page_of_a_skill_set_to_a_file():
    shown = code(SKILLS, batch.batch_table, batch_charts.batch_page, {"step": 0}, {"examples": 8})
    assert shown == (
        "from pathlib import Path\n\n"
        "from csreft_core.analysis.skills.subject import open_skills\n"
        "from csreft_core.analysis.skills import batch\n"
        "from csreft_core.charts.skills import batch as charts\n\n"
        "subject = open_skills('four', ['train.batch_size=4'])\n"
        "table = batch.batch_table(subject, step=0)\n"
        'Path("batch.html").write_text(charts.batch_page(table, examples=8), encoding="utf-8")'
    )


def test_code_of_a_comparison_opens_nothing():
    shown = code(JUDGED, methods.main_table, method_charts.method_dots, {"comparison": "c"}, {})
    assert shown.splitlines()[-2:] == [
        "table = tables.main_table(comparison='c')",
        "charts.method_dots(table).show()",
    ]


@pytest.mark.parametrize(
    ("source", "make", "arguments", "words"),
    [
        (
            of_run(Run(ROOT / EXAMPLE)),
            gates.gates_table,
            {"prompts": ("a b", "c"), "gates": "off", "per_skill": None, "note": "é"},
            f"inspect {EXAMPLE.as_posix()} gates --table gates --prompt 'a b' c --gates=off "
            "--set 'note=\"é\"'",
        ),
        (
            SKILLS,
            batch.batch_table,
            {"step": 3},
            "check-skills four --table batch --step=3 --set train.batch_size=4",
        ),
        (
            JUDGED,
            methods.quality_table,
            {"split": "test", "comparison": "runs/c"},
            "judge methods runs/c --table quality --set split=test",
        ),
    ],
    ids=["run", "skills", "comparison"],
)
def test_the_command_names_the_source_and_each_argument(source, make, arguments, words):
    assert command(source, make, arguments) == f"python -m csreft_core {words} --csv"


def test_only_settings_that_matter_stand_in_the_source_of_a_skill_set():
    config = preset("recommended")
    train = replace(config.train, steps=7, batch_size=4)
    assert of_skills(replace(config, train=train)) == SKILLS
    assert of_skills(config) == Source("check-skills", "four")


def test_a_path_is_short_only_where_it_leads_to_the_folder(monkeypatch, tmp_path):
    assert short_path(ROOT / EXAMPLE) == str(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    assert short_path(ROOT / EXAMPLE) == str(ROOT / EXAMPLE)
    assert short_path(tmp_path / "mine") == str(tmp_path / "mine")


def test_a_table_is_made_once_until_a_file_of_its_source_changes(monkeypatch, tmp_path):
    st.cache_data.clear()
    (tmp_path / "comparison.json").write_text("{}")
    calls = []

    def main_table(comparison: str) -> pd.DataFrame:
        calls.append(comparison)
        return pd.DataFrame({"n": [len(calls)]})

    main_table.__module__ = methods.__name__
    monkeypatch.setattr(methods, "main_table", main_table)
    for _ in range(2):
        table = table_of(JUDGED, methods.main_table, comparison=str(tmp_path))
        assert table["n"].tolist() == [1]
    result = tmp_path / "cells" / "lora-0" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    assert table_of(JUDGED, methods.main_table, comparison=str(tmp_path))["n"].tolist() == [2]
    assert calls == [str(tmp_path)] * 2
