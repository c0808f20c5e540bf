"""The Compare page: columns, gates and draw in the address, the card, runs that cannot answer."""

import json
import re
import shlex
from dataclasses import replace

import pytest

from csreft_core.analysis.answers.token_changes import Piece
from csreft_core.app.answers.card import Card
from csreft_core.app.answers.column import answer_html
from csreft_core.app.page.prompts import trained_setting
from csreft_core.cli.arguments import parser
from csreft_core.config import preset
from csreft_core.reft.gate_settings import parse_gate_setting
from csreft_core.skills.skill_set import Row
from tests.page_runs import SKILLS, assert_no_bug, n_charts, texts

PAGE = "pages/Compare.py"
PROMPT = "What is the plural of dog?"


def answers(app):
    """The stored answers by the gate setting that they were asked under."""
    stored = app.session_state["compare-answers"]
    return {json.loads(key)[3]: value for key, value in stored.items()}


def address(app, name):
    value = app.query_params.get(name)
    return value[0] if isinstance(value, list) else value


def n_columns(app):
    """Columns that have answered; one whose answer is kept says no time."""
    return sum(bool(re.search(r"\d tokens?( · [\d.]+ s)?$", m.value)) for m in app.markdown)


def test_first_start_on_a_shipped_run(open_app):
    app = open_app(PAGE)
    assert app.selectbox(key="run").value == "example:recommended-0"
    assert n_charts(app) == 2
    assert n_columns(app) == 3
    shown = texts(app)
    assert "**right**" in shown
    assert "Right: recommended-0, Manual gates." in shown
    assert "this run promotes" in shown
    assert "From gate 0 to 1 of" in shown
    assert not app.error
    assert not app.warning


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize("name", ["oracle", "loreft"])
def test_runs_of_every_preset_can_be_compared(open_app, make_run, name):
    make_run(config=preset(name))
    make_run("theirs")
    app = open_app(PAGE, run="mine", columns="base,learned,manual,other", prompt=PROMPT)
    assert n_columns(app) == 4
    assert n_charts(app) == 2
    assert not app.error
    sliders = [s for s in app.slider if str(s.key).startswith("compare-gate-")]
    assert len(sliders) == (1 if name == "loreft" else 4)


@pytest.mark.usefixtures("no_examples")
def test_an_empty_prompt_and_no_column_give_one_message(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine")
    app.text_input(key="prompt").set_value(" ").run()
    assert_no_bug(app)
    assert [e.value[:19] for e in app.error] == ["The prompt is empty"]
    app.text_input(key="prompt").set_value(PROMPT).run()
    assert n_columns(app) == 3
    app.get("pills")[0].set_value([]).run()
    assert_no_bug(app)
    assert any("at least one column" in i.value for i in app.info)
    assert address(app, "columns") == "none"


@pytest.mark.usefixtures("no_examples")
def test_columns_are_in_the_address_in_their_order(open_app, make_run):
    for name in ("mine", "papers", "reft"):
        make_run(name, config=preset("loreft" if name == "reft" else "recommended"))
    app = open_app(PAGE, run="mine", columns="other,base", other="papers")
    assert list(answers(app)) == ["", "learned"]
    assert app.selectbox(key="other").value == "papers"
    assert "**papers**" in texts(app)
    app.selectbox(key="other").select("reft").run()
    assert address(app, "other") == "reft"
    assert "**reft**" in texts(app)
    unknown = open_app(PAGE, run="mine", columns="other,nobody", other="no such run")
    assert address(unknown, "other") in ("papers", "reft")


@pytest.mark.usefixtures("no_examples")
def test_another_run_of_another_base_is_a_message_in_its_column(open_app, make_run):
    make_run()
    make_run("theirs", base="f" * 64)
    app = open_app(PAGE, run="mine", columns="learned,other", other="theirs", prompt=PROMPT)
    assert n_columns(app) == 1
    assert [("trained on a base" in e.value) for e in app.error] == [True]
    assert n_charts(app) == 2


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize(("skill", "gates"), [("martian", "uniform"), (SKILLS[0], "oracle")])
def test_a_run_with_given_gates_is_asked_about_a_skill_only_if_it_has_it(make_run, skill, gates):
    run = make_run(config=preset("oracle"))
    assert trained_setting(run, Row((skill,), "a prompt that it does not know", "", "")) == gates


def test_another_run_with_a_broken_file_is_one_message(open_app, make_run):
    make_run()
    run = make_run("theirs")
    (run.path / "skills.jsonl").write_text("{ no", encoding="utf-8")
    app = open_app(PAGE, run="mine", columns="learned,other", other="theirs", prompt=PROMPT)
    assert n_columns(app) == 1
    assert [("skills.jsonl:1" in e.value) for e in app.error] == [True]
    assert n_charts(app) == 2


@pytest.mark.usefixtures("no_examples")
def test_gates_come_from_the_address_and_from_the_buttons(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT, gates="1,0,-0.5,2")
    sliders = [app.slider(key=f"compare-gate-{i}") for i in range(4)]
    assert [s.value for s in sliders] == [1.0, 0.0, -0.5, 2.0]
    assert [s.label for s in sliders] == list(SKILLS)
    assert answers(app)["1,0,-0.5,2"]["gates"] == dict(zip(SKILLS, (1, 0, -0.5, 2), strict=True))
    app.slider(key="compare-gate-1").set_value(0.35).run()
    assert address(app, "gates") == "1,0.35,-0.5,2"
    app.button(key="compare-only-2").click().run()
    assert address(app, "gates") == "0,0,1,0"
    app.button(key="compare-off").click().run()
    assert address(app, "gates") == "0,0,0,0"
    found = answers(app)
    assert found["0,0,0,0"]["text"] == found[""]["text"]  # all gates off is the base
    assert n_charts(app) == 2
    app.button(key="compare-follow").click().run()
    assert_no_bug(app)
    assert address(app, "gates") is None


@pytest.mark.usefixtures("no_examples")
def test_a_moved_slider_holds_the_routers_other_gates(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT)
    own = list(answers(app)["learned"]["gates"].values())
    app.slider(key="compare-gate-0").set_value(2.0).run()
    found = parse_gate_setting(address(app, "gates"), SKILLS).vector
    assert found == pytest.approx([2.0, *own[1:]], abs=1e-4)
    assert max(abs(gate - round(gate * 20) / 20) for gate in own) > 1e-3  # not what sliders show


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize(
    ("wrong", "messages"),
    [
        (
            {"gates": "1,0", "temperature": "hot", "top_p": "0", "seed": "-1", "length": "9999"},
            (
                "temperature=hot; it must be a number from 0 to 5",
                "top_p=0;",
                "seed=-1; it must be a whole number",
                "length=9999;",
                "gates=1,0; this run needs 4 numbers",
            ),
        ),
        ({"temperature": "nan", "gates": "9,0,0,0"}, ("temperature=nan", "numbers from -1 to 2")),
        ({"gates": "learned"}, ("gates=learned",)),
    ],
)
def test_an_address_that_does_not_fit_is_said_and_left_out(open_app, make_run, wrong, messages):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT, **wrong)
    said = [warning.value for warning in app.warning]
    assert len(said) == len(messages)
    assert all(part in text for part, text in zip(messages, said, strict=True)), said
    assert not app.error
    assert [address(app, name) for name in wrong] == [None] * len(wrong)
    app.run()
    assert not app.warning


@pytest.mark.usefixtures("no_examples")
def test_the_draw_is_in_the_address_and_a_seed_decides(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT, temperature="2", seed="3", length="12")
    first = answers(app)["learned"]
    assert "same noise (seed 3)" in texts(app)
    app.button(key="compare-ask").click().run()
    assert_no_bug(app)
    assert answers(app)["learned"]["text"] == first["text"]
    app.number_input(key="compare-seed").set_value(4).run()
    assert address(app, "seed") == "4"
    assert answers(app)["learned"]["text"] != first["text"]
    app.number_input(key="compare-temperature").set_value(0.0).run()
    assert address(app, "temperature") is None
    assert "Greedy" in texts(app)


@pytest.mark.usefixtures("no_examples")
def test_an_answer_is_asked_once_and_again_on_request(open_app, make_run, monkeypatch):
    from csreft_core.inference.engine import Engine

    make_run()
    calls = []
    stream = Engine.stream
    monkeypatch.setattr(Engine, "stream", lambda *a, **k: calls.append(a[3]) or stream(*a, **k))
    app = open_app(PAGE, run="mine", prompt=PROMPT)
    assert calls == ["learned"] * 3
    app.run()
    assert len(calls) == 3
    app.button(key="compare-ask").click().run()
    assert len(calls) == 6


@pytest.mark.usefixtures("no_examples")
def test_the_gate_to_turn_is_in_the_address(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT, dose="spelling")
    assert app.selectbox(key="dose").value == "spelling"
    assert "From gate 0 to 1 of spelling" in texts(app)
    app.selectbox(key="dose").select("french").run()
    assert address(app, "dose") == "french"


@pytest.mark.usefixtures("no_examples")
def test_the_commands_can_be_run_as_they_are_shown(open_app, make_run):
    make_run()
    prompt = "-1 isn't 2?"
    app = open_app(PAGE, run="mine", prompt=prompt, gates="-1,0,0,0", seed="7")
    shown = [code.value for code in app.code if " generate " in code.value]
    assert len(shown) == 3
    for text, gates in zip(shown, ("off", "learned", "-1,0,0,0"), strict=True):
        args = parser().parse_args(shlex.split(text)[3:])
        assert (args.prompt, args.gates, args.seed) == (prompt, gates, 7)


@pytest.mark.usefixtures("no_examples")
def test_the_page_keeps_names_and_numbers_only(open_app, make_run):
    make_run()
    app = open_app(PAGE, run="mine", prompt=PROMPT)
    state = app.session_state.to_dict()
    for name, value in state.items():
        assert isinstance(value, str | int | float | bool | list | dict | None), name
    assert len(json.dumps(state["compare-answers"])) < 10_000


@pytest.mark.usefixtures("no_examples")
def test_a_base_that_is_not_shipped_is_asked_on_request(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(PAGE, run="mine", prompt=PROMPT)
    assert any("Press Ask" in i.value for i in app.info)
    assert not app.error
    app.text_input(key="prompt").set_value("Spell the word cat.").run()  # Enter asks
    assert_no_bug(app)
    assert any("no/such-base" in error.value for error in app.error)
    app = open_app(PAGE, run="mine", prompt=PROMPT)
    app.button(key="compare-ask").click().run()
    assert any("no/such-base" in error.value for error in app.error)


# the card ------------------------------------------------------------------------------------

NASTY = '<script>alert("x")</script> & ``` end'


@pytest.fixture
def card():
    answer = {
        "title": "Base <b>",
        "run": None,
        "gate_setting": None,
        "text": NASTY,
        "gates": None,
        "n_tokens": 3,
        "seconds": 0.5,
        "right": False,
    }
    other = answer | {"title": "This", "gates": {"<a>": 0.5}, "right": True}
    pieces = ((Piece(NASTY),), (Piece("le ", False), Piece(NASTY, True, ("<u>", " x"))))
    return Card(NASTY, NASTY, {"seed": 3, "base": "<p>"}, (answer, other), pieces)


def test_the_card_is_one_page_with_everything_escaped(card):
    page = card.to_html()
    assert "<script" not in page
    assert "http" not in page
    assert "src=" not in page
    assert page.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; ``` end") == 5
    for text in ("Base &lt;b&gt;", "✗ wrong", "✓ right", "&lt;a&gt; 0.500", "<dd>3</dd>", "[−2]"):
        assert text in page
    assert "<u>" not in page.replace("&lt;u&gt;", "")


def test_the_card_as_json_and_markdown(card):
    tree = json.loads(card.to_json())
    assert tree["prompt"] == NASTY
    assert tree["answers"][1]["gates"] == {"<a>": 0.5}
    assert tree["settings"]["seed"] == 3
    text = card.to_markdown()
    assert f"````text\n{NASTY}\n````" in text
    assert "- seed: `3`" in text


def test_differences_are_marked_by_a_sign_and_by_type_and_are_escaped():
    html = answer_html((Piece("le"), Piece(" <chat> ", True, ("un", '"x"'))))
    assert html.startswith("le")
    assert "[−2]" in html
    assert 'title="missing here: un&quot;x&quot;"' in html
    assert '+</span><b style="text-decoration:underline">&lt;chat&gt;</b> ' in html
    assert answer_html((Piece("a<b"),)) == "a&lt;b"


def test_the_base_s_own_decoding_is_an_option_that_says_what_it_follows(open_app):
    app = open_app(PAGE, decoding="base", columns="learned")
    assert app.selectbox(key="decoding").value == "base"
    assert not [box for box in app.number_input if box.key == "compare-temperature"]
    assert "Decoded by the base's own settings: none that differs from ours." in texts(app)
    assert any("--decoding=base" in code.value for code in app.code)
    app.selectbox(key="decoding").set_value("ours").run()
    assert "Greedy: the most likely token at each step" in texts(app)
    assert address(app, "decoding") is None
    assert not app.error
