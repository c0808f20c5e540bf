"""What training accepted, every later command accepts: odd skills, and rows that are cut."""

import inspect
import json
import math
from importlib import import_module

import pandas as pd
import pytest
import torch

from csreft_core.analysis.gates.metrics import gate_skill_nmi
from csreft_core.analysis.skills.sentences import sentence_similarity
from csreft_core.analysis.subject import open_subject
from csreft_core.analysis.view_names import INSPECTED, module_of
from csreft_core.attachment.passes import request
from csreft_core.cli import main
from csreft_core.errors import ConfigError, CsreftError
from csreft_core.inference.scoring import answer_scores, batches
from csreft_core.skills.skill_set import Row
from tests import tiny_runs

TABLES = [
    (view, table) for view in sorted(INSPECTED) for table in import_module(module_of(view)).TABLES
]


def row(skill: str | list[str] | None, item: int, split: str, n_more: int = 0) -> dict:
    """A row of a tiny skill set; `n_more` words come in front of its prompt."""
    name = {} if skill is None else {"skill": skill}
    words = " ".join(["w9"] * n_more + [f"w{10 + item}", "w4"])
    return {**name, "prompt": words, "response": f"w{40 + len(str(skill))} w50", "split": split}


# Each skill with its trouble: a `+` in its name, one row alone, in a test split alone, none at
# all; every second row of red is longer than the base reads.
ODD = [
    *(row("red", i, s, 70 * (i % 2)) for i, s in enumerate(["train"] * 8 + ["test_items"] * 4)),
    *(
        row("c++", i, s)
        for i, s in enumerate(["train"] * 5 + ["validation"] * 3 + ["test_items"] * 2, 30)
    ),
    row("one", 19, "train"),
    row("late", 20, "test_items"),
    row(None, 21, "train"),
    row(None, 22, "test_items"),
    row(["red", "c++"], 23, "test_two_skills", 66),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on the odd skill set, and on one skill alone."""
    folder = tmp_path_factory.mktemp("accepted")
    base = tiny_runs.save_base(folder / "base")
    for name, rows in (("odd", ODD), ("single", [r for r in ODD if r.get("skill") == "red"])):
        skills = tiny_runs.write_rows(folder / f"{name}.jsonl", rows)
        settings = tiny_runs.settings(base, skills, train__steps=4, router__supervision=0)
        assert main(["train", *settings, "--out", str(folder / name), "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def subject(runs):
    return open_subject(str(runs / "odd"))


@pytest.mark.parametrize(("view", "table"), TABLES)
def test_each_table_is_made(subject, view, table):
    make = getattr(import_module(module_of(view)), f"{table}_table")
    needed = {"prompts": ("w10 w4", "w11 w4"), "prompt": "w10 w4", "skill": "red"}
    parameters = inspect.signature(make).parameters
    given = {
        n: v
        for n, v in needed.items()
        if n in parameters and parameters[n].default is inspect.Parameter.empty
    }
    if (view, table) == ("states", "separation"):
        with pytest.raises(ConfigError, match="at least two skills with two prompts each"):
            make(subject, **given)
        return
    assert isinstance(make(subject, **given), pd.DataFrame)


def test_a_cut_row_has_the_gates_that_evaluation_uses(subject):
    rows = [r for r in subject.skill_set.split("test") if len(r.prompt.split()) > 60]
    encoded = subject.encoded(rows)
    assert encoded.n_cut == len(rows) == 2
    ((_, batch),) = batches(encoded, subject.engine.base.pad_id, 8, torch.device("cpu"))
    asked = request(subject.adapter, "learned", None)
    used = answer_scores(subject.engine.attachment, asked, batch)[2].prompt_gates()
    shown = subject.engine.gates(
        subject.adapter, subject.prompts_of(rows), template=subject.template
    )
    torch.testing.assert_close(shown, used, atol=1e-5, rtol=0)
    with pytest.raises(CsreftError, match="tokens, the base reads at most"):
        subject.engine.gates(subject.adapter, [rows[0].prompt], template=subject.template)
    typed = Row((), rows[0].prompt, "", "")
    assert subject.prompts_of([typed]) == [rows[0].prompt]


def test_a_plus_in_a_name_is_no_pair(subject):
    table = import_module("csreft_core.analysis.interference.tables").pairs_table(
        subject, measure="S", split="all"
    )
    own = table[table["own"]].groupby("skill")["changed"].agg(set).to_dict()
    assert own["c++"] == {"c++"}
    assert own["red+c++"] == {"red", "c++"}


@pytest.mark.parametrize("gates", ["learned", "hard", "best", "uniform"])
def test_a_run_of_one_skill_has_no_nmi(runs, capsys, gates):
    assert main(["evaluate", str(runs / "single"), "--gates", gates, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["skills"]["red"]["n"] == 4
    assert found.get("nmi", None) is None


def test_nmi_needs_two_skills():
    def table(*skills: str) -> pd.DataFrame:
        rows = [(f"p{i}", s, "a", float(i % 2)) for i, s in enumerate(skills)]
        return pd.DataFrame(rows, columns=["prompt", "skill", "subspace", "gate"])

    assert math.isnan(gate_skill_nmi(table("red", "red")))
    assert math.isnan(gate_skill_nmi(table("red", "", "red", "")))
    assert gate_skill_nmi(table("red", "blue", "red", "blue")) == pytest.approx(1)


def test_a_skill_of_one_row_is_not_called_nan_alike():
    pairs = [
        ("a", "a", 0.5, 4, 4),
        ("a", "b", 0.25, 4, 1),
        ("b", "a", 0.25, 1, 4),
        ("b", "b", float("nan"), 1, 1),
    ]
    columns = ["skill", "other", "similarity", "n", "n_other"]
    said = sentence_similarity(pd.DataFrame(pairs, columns=columns))
    assert "nan" not in said
    assert "b with a single row cannot be compared with itself" in said
