"""The Start page: first start, a finished run, and runs that cannot answer."""

import shutil
from dataclasses import replace

import pytest

from csreft_core.app.page import library
from csreft_core.config import preset
from csreft_core.runs import all_runs as runs_module
from tests.page_runs import assert_no_bug, n_charts, run_until, texts

SHIPPED = "example:recommended-0"


@pytest.fixture
def examples(monkeypatch, tmp_path, make_run):
    """Two shipped runs, untrained but whole."""
    folder = tmp_path / "examples"
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", folder)
    make_run("recommended-0", root=folder)
    make_run("paper-0", config=preset("paper"), root=folder)


@pytest.mark.fast
@pytest.mark.usefixtures("examples")
def test_first_start_shows_a_shipped_run(open_app):
    app = open_app()
    assert app.selectbox(key="run").value == "example:recommended-0"
    assert app.text_input(key="prompt").value
    assert n_charts(app) == 3  # gates of the prompt, and the gates over prompts of two runs
    shown = texts(app)
    assert "What does the model answer?" in shown
    assert "Without the adapter" in shown
    assert "With the adapter" in shown
    assert len(app.code) == 2
    assert not app.error


@pytest.mark.usefixtures("examples")
def test_the_papers_router_gives_every_prompt_the_same_gates(open_app):
    app = open_app()
    labels = {metric.label: metric.value for metric in app.metric}
    paper = float(next(value for label, value in labels.items() if "paper" in label))
    other = float(next(value for label, value in labels.items() if "recommended" in label))
    assert paper <= 1e-6
    assert other > 1e-3  # an untrained router on the mean of the prompt sees the prompt
    assert "The gates ignore the prompt" in texts(app)
    assert "The gates depend on the prompt" in texts(app)


@pytest.mark.usefixtures("examples")
def test_the_prompt_is_in_the_address_and_another_prompt_gives_other_gates(open_app):
    app = open_app(prompt="What is the plural of dog?")
    assert app.text_input(key="prompt").value == "What is the plural of dog?"
    first = app.get("plotly_chart")[0].proto.spec
    app.text_input(key="prompt").set_value("Spell the word cat.").run()
    assert_no_bug(app)
    assert app.query_params["prompt"] in ("Spell the word cat.", ["Spell the word cat."])
    assert app.get("plotly_chart")[0].proto.spec != first


@pytest.mark.usefixtures("examples")
def test_an_example_prompt_is_one_click_away(open_app):
    app = open_app()
    button = app.button(key="example-plural")
    button.click().run()
    assert_no_bug(app)
    assert app.text_input(key="prompt").value == button.label


@pytest.mark.usefixtures("examples")
def test_an_empty_prompt_gives_a_message(open_app):
    app = open_app()
    app.text_input(key="prompt").set_value(" ").run()
    assert_no_bug(app)
    assert any("prompt is empty" in error.value for error in app.error)


@pytest.mark.usefixtures("examples")
def test_words_that_the_base_does_not_know_are_named(open_app):
    app = open_app(prompt="What is the plural of zyzzyva?")
    assert any("zyzzyva" in warning.value for warning in app.warning)
    known = open_app(prompt="What is the plural of dog?")
    assert not known.warning


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize("name", ["oracle", "loreft", "unsupervised", "paper"])
def test_runs_of_every_preset_can_be_asked(open_app, make_run, name):
    make_run(config=preset(name))
    app = open_app(run="mine")
    assert n_charts(app) == 1
    assert len(app.code) == 2
    assert not app.error


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("name", ["nothing", "../../etc", "example:nothing", "a b", "x" * 3000])
def test_an_address_with_an_unknown_run_says_so_and_shows_the_default(open_app, name):
    app = open_app(run=name)
    assert len(app.error) == 1
    assert app.selectbox(key="run").value == "example:recommended-0"
    assert app.query_params["run"] in (SHIPPED, [SHIPPED])


@pytest.mark.usefixtures("examples")
def test_the_choice_survives_a_page_switch(open_app, make_run):
    make_run()
    app = open_app(run="mine")
    for page in ("pages/Runs.py", "pages/Train.py", "app.py"):
        app.query_params.clear()
        app.switch_page(page).run()
        assert_no_bug(app)
        assert app.selectbox(key="run").value == "mine"
        assert app.query_params["run"] in ("mine", ["mine"])
    app.selectbox(key="run").select("example:paper-0").run()
    app.switch_page("pages/Runs.py").run()
    assert app.selectbox(key="run").value == "example:paper-0"


@pytest.mark.usefixtures("examples")
def test_a_deleted_run_does_not_stay_chosen(open_app, make_run):
    run = make_run()
    app = open_app(run="mine")
    shutil.rmtree(run.path)
    app.run()
    assert_no_bug(app)
    assert app.selectbox(key="run").value == "example:recommended-0"


@pytest.mark.usefixtures("examples")
def test_the_session_holds_names_and_numbers_only(open_app):
    app = open_app()
    for name, value in app.session_state.to_dict().items():
        assert isinstance(value, str | int | float | bool | list | dict | None), name


def test_ids_of_runs_and_their_labels(make_run, examples):  # noqa: ARG001
    run = make_run()
    assert library.run_id(run) == "mine"
    every = library.all_runs()
    assert list(every) == ["mine", "example:recommended-0", "example:paper-0"]
    assert library.run_id(every["example:paper-0"]) == "example:paper-0"
    assert library.example("paper", every).name == "paper-0"
    assert library.example("nothing", every) is None
    assert library.label("example:paper-0") == "paper-0 (shipped)"


@pytest.mark.usefixtures("no_examples")
def test_a_base_that_is_not_shipped_is_loaded_only_when_asked_to(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(run="mine")
    assert not app.error
    assert not n_charts(app)
    app.button(key="load").click().run()
    run_until(app, lambda a: a.error)
    assert_no_bug(app)
    assert any("no/such-base" in error.value for error in app.error)
