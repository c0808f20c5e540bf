"""The Router page: shipped and own runs, runs that cannot answer, and what the URL keeps."""

from dataclasses import replace

import pandas as pd
import pytest

from csreft_core.app.gates import panels as router
from csreft_core.app.gates import rows as router_rows
from csreft_core.app.gates.rows import control_runs
from csreft_core.config import preset
from csreft_core.runs import all_runs as runs_module
from tests.page_runs import assert_no_bug, n_charts, texts

PAGE = "pages/Router.py"
PROMPT = "What is the plural of dog?"


def held_out(open_app, **query):
    """The page with the tab of the held-out prompts open."""
    return open_app(PAGE, **query, **{"router-part": router.HELD_OUT})


@pytest.fixture
def examples(monkeypatch, tmp_path, make_run):
    """Two shipped runs, untrained but whole."""
    folder = tmp_path / "examples"
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", folder)
    make_run("recommended-0", root=folder)
    make_run("paper-0", config=preset("paper"), root=folder)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Less to compute: the page is the same."""
    for figure in router_rows.PER_SKILL:
        monkeypatch.setitem(router_rows.PER_SKILL, figure, 3)


def headings(app):
    return [heading.value for heading in app.subheader]


def per_token():
    config = preset("recommended")
    return replace(config, router=replace(config.router, granularity="per_token"))


@pytest.mark.fast
@pytest.mark.usefixtures("examples")
def test_first_start_shows_one_prompt_and_held_out_ones(open_app):
    app = open_app(PAGE)
    assert headings(app)[0] == "Which gate does the router open?"
    assert "Which words decide the gates?" in headings(app)
    assert n_charts(app) == 3
    assert "Reads: mean of the prompt" in texts(app)
    assert "once for a whole prompt" in texts(app)
    assert not app.error
    app = held_out(open_app)
    assert headings(app) == [
        "Do the gates depend on the prompt?",
        "Does each skill get a gate of its own?",
    ]
    assert n_charts(app) == 2
    assert "the gates of paper-0 (first token) ignore the prompt" in texts(app)
    assert not app.error


@pytest.mark.usefixtures("examples")
def test_the_papers_run_says_that_its_gates_ignore_the_prompt(open_app):
    app = open_app(PAGE, run="example:paper-0")
    assert "No word decides" in texts(app)
    assert "Reads: first token" in texts(app)
    rows = texts(held_out(open_app, run="example:paper-0"))
    assert "The gates ignore the prompt" in rows
    assert "the gates of recommended-0 (mean of the prompt) depend on it" in rows
    assert "No word decides" not in texts(open_app(PAGE))
    assert "The gates ignore the prompt" not in texts(held_out(open_app))


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("look", "questions"),
    [
        ("Skills", ["Which gates open together for which skill?", "Do the open gates tell"]),
        ("Each gate", ["How does each gate behave?", "Which gates are open at the same time?"]),
        ("Answers", ["Is the router or the edit the bottleneck?", "Does the threshold matter?"]),
    ],
)
def test_each_look_has_its_figures_and_stands_in_the_address(open_app, look, questions):
    app = held_out(open_app, look=look)
    assert not app.error
    assert n_charts(app) == 2
    for heading, question in zip(headings(app)[-2:], questions, strict=True):
        assert heading.startswith(question)
    app.segmented_control(key="look").set_value("Gates").run()
    assert_no_bug(app)
    assert "look" not in app.query_params  # the default is left out
    app.segmented_control(key="look").set_value(look).run()
    assert app.query_params["look"] in (look, [look])


@pytest.mark.usefixtures("examples")
def test_split_and_gate_come_from_the_address_and_nonsense_does_not(open_app):
    rows = held_out(open_app, split="validation", look="nothing")
    assert rows.selectbox(key="split").value == "validation"
    assert rows.segmented_control(key="look").value == "Gates"
    app = open_app(PAGE, gate="plural", **{"router-part": "nothing"})
    assert app.selectbox(key="gate").value == "plural"
    assert "Which words count for the gate plural?" in headings(app)
    app.selectbox(key="gate").set_value("french").run()
    assert_no_bug(app)
    assert "Which words count for the gate french?" in headings(app)
    assert app.query_params["gate"] in ("french", ["french"])


@pytest.mark.usefixtures("examples")
def test_pin_a_prompt_then_change_a_word(open_app):
    app = open_app(PAGE, prompt=PROMPT)
    assert "What did the edit of the prompt change?" not in headings(app)
    app.button(key="router-pin").click().run()
    assert_no_bug(app)
    assert app.query_params["pin"] in (PROMPT, [PROMPT])
    assert "Now change a word" in texts(app)
    app.text_input(key="prompt").set_value("What is the plural of cat?").run()
    assert_no_bug(app)
    assert "What did the edit of the prompt change?" in headings(app)
    assert "moved most: from" in texts(app)
    assert app.code[0].value == PROMPT
    app.button(key="router-unpin").click().run()
    assert_no_bug(app)
    assert "pin" not in app.query_params
    assert "What did the edit of the prompt change?" not in headings(app)


@pytest.mark.usefixtures("examples")
def test_a_pinned_prompt_comes_from_the_address(open_app):
    app = open_app(PAGE, prompt="What is the plural of cat?", pin=PROMPT)
    assert "What did the edit of the prompt change?" in headings(app)


@pytest.mark.usefixtures("examples")
def test_an_empty_prompt_gives_messages(open_app):
    app = open_app(PAGE)
    app.text_input(key="prompt").set_value(" ").run()
    assert_no_bug(app)
    assert any("prompt is empty" in error.value for error in app.error)
    assert app.button(key="router-pin").disabled


@pytest.mark.usefixtures("no_examples")
def test_a_router_per_token_has_a_ribbon_and_a_map(open_app, make_run):
    make_run("tokens", config=per_token())
    make_run("prompts")
    app = open_app(PAGE, run="tokens", prompt=PROMPT)
    assert not app.error
    assert "Which gate is open at which token?" in headings(app)
    assert "Which gates are open at the last token?" in headings(app)
    assert "Decides: for each token" in texts(app)
    (strip,) = [e for e in app.get("html") if "strongest gate" in e.proto.body]
    assert strip.proto.body.count('tabindex="0"') == 10  # bos, Q:, seven words, A:
    whole = open_app(PAGE, run="prompts", prompt=PROMPT)
    assert "Which gate is open at which token?" not in headings(whole)
    assert not [e for e in whole.get("html") if "strongest gate" in e.proto.body]


def test_the_ribbon_escapes_tokens_and_names_the_gate():
    table = pd.DataFrame(
        [
            ("p", 0, "<b>", "word", "a", 0.25),
            ("p", 0, "<b>", "word", "b", 0.5),
            ("p", 1, '"x', "template", "a", 1.5),
            ("p", 1, '"x', "template", "b", -1.0),
        ],
        columns=["prompt", "position", "token", "kind", "subspace", "gate"],
    )
    found = router.ribbon(table, ["a", "b"])
    assert "<b>" not in found
    assert "&lt;b&gt;" in found
    assert 'title="&quot;x: a 1.500, b -1.000"' in found
    assert "<small>b 0.50</small>" in found
    assert " 50%, transparent" in found
    assert " 100%, transparent" in found
    assert router.ribbon(table, ["a", "b"], dark=True) != found


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("name", "look"), [("oracle", "Gates"), ("loreft", "Answers"), ("unsupervised", "Gates")]
)
def test_runs_of_every_preset_have_a_page(open_app, make_run, name, look):
    make_run(config=preset(name))
    app = open_app(PAGE, run="mine", pin=PROMPT)
    assert not app.error
    assert not held_out(open_app, run="mine", look=look).error
    assert any("has no router" in info.value for info in app.info) == (name != "unsupervised")
    assert ("Which words decide the gates?" in headings(app)) == (name == "unsupervised")
    assert ("No router decides here" in texts(app)) == (name != "unsupervised")


@pytest.mark.usefixtures("examples")
def test_a_row_of_the_data_becomes_the_prompt(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine")
    app.session_state["router-rows"] = True
    app.run()
    assert_no_bug(app)
    app.selectbox(key="router-row-split").set_value("validation").run()
    app.selectbox(key="router-row-skill").set_value("plural").run()
    assert_no_bug(app)
    box = app.selectbox(key="router-row")
    box.set_value(box.options[3]).run()
    assert_no_bug(app)
    assert app.text_input(key="prompt").value == box.options[3]


@pytest.mark.usefixtures("examples")
def test_a_control_of_another_base_is_left_out(make_run):
    assert len(control_runs(make_run())) == 1
    assert control_runs(make_run("elsewhere", base="f" * 64)) == ()


@pytest.mark.usefixtures("no_examples")
def test_a_broken_control_is_no_harm(open_app, make_run, monkeypatch, tmp_path):
    folder = tmp_path / "examples"
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", folder)
    paper = make_run("paper-0", config=preset("paper"), root=folder)
    paper.adapter_path.write_text("{ no", encoding="utf-8")
    make_run()
    app = held_out(open_app, run="mine")
    assert not app.error
    assert "Do the gates depend on the prompt?" in headings(app)


@pytest.mark.usefixtures("no_examples")
def test_a_base_that_is_not_shipped_is_loaded_only_when_asked_to(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(PAGE, run="mine")
    assert not app.error
    assert not n_charts(app)
