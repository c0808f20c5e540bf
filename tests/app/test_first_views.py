"""What the pages of shipped runs show at first: kept, true, and without base or torch."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pandas as pd
import pytest
import streamlit as st
from pandas.testing import assert_frame_equal

from csreft_core.analysis.subject import open_subject
from csreft_core.app import first_views
from csreft_core.app.page import kept
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from csreft_core.errors import CsreftError, UnsupportedModelError
from csreft_core.inference.engine import Engine
from csreft_core.inference.loaded_bases import LoadedBases
from csreft_core.runs import all_runs as runs_module
from csreft_core.runs.all_runs import example_runs
from tests.page_runs import assert_no_bug, n_charts, texts
from tests.repository import ROOT

SHIPPED = {run.name: run for run in example_runs()}
OPENED = (
    first_views.START,
    first_views.ROUTER,
    first_views.STATES,
    first_views.INTERFERENCE,
    first_views.GEOMETRY,
    first_views.COMPARE,
)
# Another machine adds up in another order.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _few_rows() -> None:
    """Instead of the fixture that makes figures from few rows: these are the pages as shipped."""


@pytest.fixture
def no_base(monkeypatch):
    """No base can be loaded, and nothing that pages computed before is remembered."""

    def refuse(*_):
        raise UnsupportedModelError("the base is not on this machine; fetch it")

    monkeypatch.setattr(LoadedBases, "engine", refuse)
    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.mark.parametrize("name", SHIPPED)
def test_first_views_are_kept_of_the_files_as_they_are(name):
    assert kept.read(SHIPPED[name]), f"run: python -m csreft_core build-views {name}"


@pytest.mark.usefixtures("no_base", "tmp_runs")
@pytest.mark.parametrize("name", SHIPPED)
def test_pages_open_without_the_base(name):
    for page in OPENED:
        app = first_views.open_view(SHIPPED[name], page, {})
        assert_no_bug(app)
        assert "not on this machine" not in texts(app), page
        assert n_charts(app), page


@pytest.mark.usefixtures("no_base", "tmp_runs")
def test_every_part_and_every_example_opens_without_the_base():
    run = SHIPPED["recommended-0"]
    for page, query in first_views.first_views(run):
        app = first_views.open_view(run, page, query)
        assert_no_bug(app)
        assert not app.error, (page, query, texts(app))


@pytest.mark.usefixtures("no_base", "tmp_runs")
def test_ones_own_prompt_says_that_the_base_is_missing():
    run = SHIPPED["recommended-0"]
    for page in (first_views.START, first_views.ROUTER, first_views.COMPARE):
        app = first_views.open_view(run, page, {"prompt": "What is the plural of dog?"})
        assert_no_bug(app)
        assert any("not on this machine" in error.value for error in app.error), page


def test_pages_open_without_torch(tmp_path):
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'scipy', 'sklearn'): sys.modules[name] = None\n"
        "from csreft_core.app import first_views as first\n"
        "from csreft_core.runs.all_runs import example_runs\n"
        "run = {run.name: run for run in example_runs()}['recommended-0']\n"
        f"for page in {OPENED!r}:\n"
        "    app = first.open_view(run, page, {})\n"
        "    print(page, [e.message for e in app.exception], [e.value for e in app.error])\n"
        "own = first.open_view(run, first.START, {'prompt': 'What is the plural of dog?'})\n"
        "print(len(own.exception))\n"
    )
    environment = {**os.environ, "CSREFT_RUNS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(
        asked, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[: len(OPENED)] == [f"{page} [] []" for page in OPENED]
    assert lines[-1] == "1"  # one's own prompt does need it


@pytest.fixture(scope="module")
def engine():
    return Engine(load_base(BaseConfig()))


def _computed(run, engine, what, arguments):
    module, _, function = what.rpartition(".")
    subject = open_subject(str(run.path), engine)
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    return getattr(import_module(module), function)(subject, **plain)


def _check(run, engine, key, value):
    what, arguments = json.loads(key)
    if what == "answer":
        again = engine.generate(
            None if not arguments["gates"] else open_subject(str(run.path), engine).adapter,
            arguments["prompt"],
            arguments["gates"] or "learned",
            template=run.config().provenance.template,
            skills=arguments["skills"] or None,
        )
        assert (again.text, again.n_tokens) == (value["text"], value["n_tokens"])
        assert "".join(value["tokens"]) == value["text"]
        if again.gates is None:
            assert value["gates"] is None
        else:
            assert again.gates == pytest.approx(value["gates"], abs=TOLERANCE)
    elif what.startswith("csreft_core."):
        table = _computed(run, engine, what, arguments)
        assert_frame_equal(
            kept.table_of_columns(value), table, rtol=TOLERANCE, atol=TOLERANCE, obj=what
        )


def test_every_kept_table_of_a_run_is_what_is_computed(engine, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = SHIPPED["recommended-0"]
    views = kept.read(run)
    assert len(views) > 50
    for key, value in views.items():
        _check(run, engine, key, value)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "recommended-0"])
def test_kept_gates_and_answers_are_what_is_computed(name, engine):
    run = SHIPPED[name]
    views = kept.read(run)
    quick = [key for key in views if json.loads(key)[0].endswith((".gates_table", "answer"))]
    assert len(quick) > 4
    for key in quick:
        _check(run, engine, key, views[key])


def test_a_table_is_kept_to_the_last_digit():
    table = pd.DataFrame(
        {
            "text": ["a", "b", "a"],
            "gate": [0.1 + 0.2, float("nan"), 1e-300],
            "n": [1, 2, 3],
            "own": [True, False, True],
            "same": ["x", "x", "x"],
            "level": [2.0, 2.0, 2.0],
            "pattern": pd.Series(["01", None, "10"], dtype=object),
        }
    )
    columns = json.loads(json.dumps(kept.columns_of_table(table)))
    assert_frame_equal(kept.table_of_columns(columns), table, check_exact=True)
    empty = table.iloc[:0]
    assert_frame_equal(kept.table_of_columns(kept.columns_of_table(empty)), empty)


@pytest.fixture
def shipped(make_run, monkeypatch, tmp_path):
    """A made-up shipped run, with a view that is kept, and another run that it is held against."""
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", tmp_path / "shipped")
    run, other = (make_run(name, root=tmp_path / "shipped") for name in ("mine", "other"))
    with kept.noting() as noted:
        kept.value(run, "words", {"prompt": "p"}, lambda: ["kept"])
        kept.value(run, "words", {"others": (str(other.path),)}, lambda: ["held against"])
    kept.write(run, noted[run.path])
    return run


def _words(run):
    return kept.value(run, "words", {"prompt": "p"}, lambda: ["computed"])


def test_what_is_kept_is_taken_and_another_argument_is_computed(shipped):
    assert _words(shipped) == ["kept"]
    assert kept.value(shipped, "words", {"prompt": "q"}, lambda: ["computed"]) == ["computed"]


@pytest.mark.parametrize(
    "file", ["adapter.safetensors", "config.json", "skills.jsonl", "../other/adapter.safetensors"]
)
def test_what_is_kept_of_other_files_is_not_taken(shipped, file):
    assert kept.read(shipped)
    path = shipped.path / file
    path.write_bytes(path.read_bytes() + b"\n")
    assert not kept.read(shipped)


def test_a_run_that_did_not_come_with_the_program_is_computed(shipped, tmp_runs):
    (tmp_runs / "mine").parent.mkdir(exist_ok=True)
    shipped.path.rename(tmp_runs / "mine")
    assert _words(type(shipped)(tmp_runs / "mine")) == ["computed"]


def test_a_table_that_a_run_has_not_is_kept_as_the_reason(shipped):
    def refuse():
        raise CsreftError("this run has one subspace")

    with kept.noting() as noted, pytest.raises(CsreftError, match="one subspace"):
        kept.table(shipped, "pairs_table", {}, refuse)
    kept.write(shipped, noted[shipped.path])
    with pytest.raises(CsreftError, match="this run has one subspace"):
        kept.table(shipped, "pairs_table", {}, lambda: pytest.fail("computed"))


def test_the_command_refuses_an_unknown_run():
    with pytest.raises(CsreftError, match="no shipped run 'nothing'"):
        next(first_views.keep_first_views(["nothing"]))
