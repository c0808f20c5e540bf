"""The Claims page: verdicts with what they rest on, the calculator, the papers' tables."""

import pytest

from csreft_core.app import claims
from csreft_core.comparison import folder as comparison_module
from tests.compared import made_up_comparison
from tests.page_runs import assert_no_bug, n_charts, texts

PAGE = "pages/Claims.py"


def test_verdicts_from_runs_and_a_comparison_of_ones_own(open_app, tmp_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_module, "SHIPPED_COMPARISONS", tmp_path / "none")
    made_up_comparison(tmp_runs / "mine")
    app = open_app(PAGE, folded=("open-C1",), **{"claims-from": "mine"})
    assert_no_bug(app)
    text = texts(app)
    assert "“holds here” (C7, R4)" in text
    assert "1 is “true by construction” (R1)" in text
    assert "says nothing about models" in text
    assert "95 % intervals over seeds." in text
    assert "“not measured yet” (R2)" in text
    assert "1 is “not testable here” (C6)" in text
    assert "C1.loreft: -0.2 " in text
    assert "C1.loreft_exact: 0.5 " in text
    assert "n = 40 prompts, 5 seeds, interval over seeds" in text
    assert n_charts(app) == 1
    assert any("compare --methods csreft,loreft --out redone" in code.value for code in app.code)


def test_the_memory_of_one_vector_stands_below_its_claim(open_app):
    app = open_app(PAGE, folded=("open-R3",))
    assert_no_bug(app)
    text = texts(app)
    assert "One vector of 129 parameters at layer 1 gives back" in text
    assert "R3.text: " in text
    assert n_charts(app) == 2
    assert any("csreft_core memorise --out" in code.value for code in app.code)


def test_the_calculator_shows_the_routers_part(open_app):
    app = open_app(PAGE, **{"claims-part": claims.PARAMETERS, "p-k": "4", "p-r": "5"})
    assert_no_bug(app)
    assert n_charts(app) == 2
    assert "Together 9,054,292 parameters, 0.1344 % of the base" in texts(app)
    app.selectbox(key="p-router").select("none").run()
    assert "The router is 0.0% of them" in texts(app)
    assert app.query_params["p-router"] in ("none", ["none"])
    counts = app.dataframe[0].value.set_index("method")["parameters"]
    assert counts["RED"] == 262_144


@pytest.mark.fast
def test_the_papers_results_say_who_measured_them(open_app):
    app = open_app(PAGE, **{"claims-part": claims.RESULTS})
    table = app.dataframe[0].value.set_index("method")
    assert table.loc["CS-ReFT", "AlpacaEval 1.0"] == 93.94
    assert "copied" in table.loc["LoRA", "origin"]
    assert "8 of them copied from other papers" in texts(app)
    app.selectbox(key="paper-table").select("glue").run()
    assert_no_bug(app)
    assert len(app.dataframe[0].value) == 15


def test_paper_beside_code(open_app):
    app = open_app(PAGE, **{"claims-part": claims.RELEASE})
    assert_no_bug(app)
    table = app.table[0].value
    assert "8,398,852" in table.loc["what is trained", "released code"]
