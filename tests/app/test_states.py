"""The States page: first start, its choices in the address, and runs that it cannot show."""

import json
from dataclasses import replace

import pytest
import streamlit as st
import torch
from safetensors.torch import save_file

from csreft_core.adapter import load_adapter, save_adapter
from csreft_core.config import preset
from tests.page_runs import assert_no_bug, n_charts, texts
from tests.tiny import move

PAGE = "pages/States.py"


@pytest.fixture
def moved_run(no_examples, make_run):  # noqa: ARG001
    """A run whose edits are large, as after training."""

    def make(**options):
        run = make_run(**options)
        adapter = load_adapter(run.adapter_path)
        with torch.no_grad():
            move(adapter, 0.3, 0)
        save_adapter(adapter, run.adapter_path)
        return run

    return make


def chart(app, name):
    """The figure of a name, as its JSON."""
    found = [c for c in app.get("plotly_chart") if f"chart-{name}" in c.proto.id]
    assert len(found) == 1, [c.proto.id for c in app.get("plotly_chart")]
    return json.loads(found[0].proto.spec)


@pytest.mark.usefixtures("tmp_runs")
def test_first_start_shows_the_shipped_run(open_app):
    app = open_app(PAGE)
    assert app.selectbox(key="run").value == "example:recommended-0"
    assert n_charts(app) == 7
    said = texts(app)
    assert "The picture hides the edit." in said  # the axes of the base states, as a comparison
    assert "R h' = (1 - gate) R h + gate · target holds within" in said
    assert "The difference is exactly 0 in" in said
    assert not app.error
    assert not app.warning
    names = {trace.get("name") for trace in chart(app, "states-chosen")["data"]}
    assert {"your prompt", "french", "spelling", "base h", "edited h'"} <= names
    for name, value in app.session_state.to_dict().items():
        assert isinstance(value, str | int | float | bool | list | dict | None), name


@pytest.mark.usefixtures("no_examples", "tmp_runs")
def test_without_any_run_the_page_says_what_to_do(open_app):
    app = open_app(PAGE)
    assert "Train one" in texts(app)
    assert not n_charts(app)
    assert not app.error


def test_the_choices_are_in_the_address_and_change_the_picture(open_app, moved_run):
    moved_run()
    app = open_app(
        PAGE, run="mine", **{"states-layer": "2", "states-axes": "3", "states-basis": "differences"}
    )
    assert app.selectbox(key="states-layer").value == "2"
    assert app.selectbox(key="states-basis").value == "differences"
    assert {trace["type"] for trace in chart(app, "states-chosen")["data"]} == {"scatter3d"}
    app.selectbox(key="states-axes").select("2").run()
    assert_no_bug(app)
    assert {trace["type"] for trace in chart(app, "states-chosen")["data"]} == {"scatter"}
    assert "states-axes" not in app.query_params  # the default
    app.selectbox(key="states-gates").select("off").run()
    assert_no_bug(app)
    assert app.query_params["states-gates"] in ("off", ["off"])
    assert "all gates are 0. The difference is exactly 0." in texts(app)


def test_unknown_choices_in_the_address_fall_back(open_app, moved_run):
    moved_run()
    bad = {f"states-{name}": "x" for name in ("layer", "token", "basis", "axes", "gates", "n")}
    app = open_app(PAGE, run="mine", **bad)
    assert app.selectbox(key="states-layer").value == "1"
    assert not app.error
    # The axes of a subspace exist at edited layers only.
    query = {"states-layer": "3", "states-basis": "subspace:french"}
    app = open_app(PAGE, run="mine", **query)
    assert app.selectbox(key="states-basis").value == "joint"
    assert not app.error


def test_a_layer_without_subspaces_says_where_they_are(open_app, moved_run):
    moved_run()
    app = open_app(PAGE, run="mine", **{"states-layer": "3"})
    assert "edits the tokens l1 at layer 1" in texts(app)
    assert n_charts(app) == 5  # no coordinates, no energy
    app.selectbox(key="states-layer").select("1").run()
    assert_no_bug(app)
    assert n_charts(app) == 7


def test_ones_own_prompt_moves_in_the_picture(open_app, moved_run):
    moved_run()
    app = open_app(PAGE, run="mine", prompt="What is the plural of dog?")

    def star():
        data = chart(app, "states-chosen")["data"]
        return [t for t in data if t.get("name") == "your prompt" and t["mode"] == "markers"]

    first = star()
    assert len(first) == 2
    app.text_input(key="prompt").set_value("Spell the word cat.").run()
    assert_no_bug(app)
    assert star() != first
    app.text_input(key="prompt").set_value(" ").run()
    assert_no_bug(app)
    assert "The prompt is empty" in texts(app)
    assert star() == []
    assert n_charts(app) == 6  # without the map of one's own prompt
    assert not app.error


def save_snapshots(run):
    """Two steps of four prompts; in the second, the states have moved."""
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(4, 128, generator=generator).half()
    for step in (0, 4):
        arrays = {
            "rows": torch.arange(4),
            "gates": torch.ones(4, 4),
            "before.1": before,
            "after.1": before + step,
            "R.1": torch.eye(128)[:8].reshape(1, 4, 2, 128).half(),
        }
        run.snapshot_path(step).parent.mkdir(exist_ok=True)
        save_file(arrays, run.snapshot_path(step))


def test_the_animation_is_made_when_asked_for(open_app, moved_run):
    run = moved_run()
    save_snapshots(run)
    app = open_app(PAGE, run="mine")
    assert n_charts(app) == 7
    app.session_state["states-training"] = True
    app.run()
    assert_no_bug(app)
    assert n_charts(app) == 8
    assert [frame["name"] for frame in chart(app, "formation")["frames"]] == ["0", "4"]
    assert "over 4 validation prompts is exactly 0 at step 0 and 45.3 at step 4" in texts(app)
    run.snapshot_path(4).write_text("{ no", encoding="utf-8")
    st.cache_data.clear()
    app.run()
    assert_no_bug(app)
    assert [e for e in app.error if "is damaged" in e.value]


def test_a_run_without_snapshots_says_so_when_asked(open_app, moved_run):
    moved_run()
    app = open_app(PAGE, run="mine")
    app.session_state["states-training"] = True
    app.session_state["states-separation"] = True
    app.run()
    assert_no_bug(app)
    assert [e for e in app.error if "no snapshots" in e.value]
    assert "The silhouette of the skills goes from" in texts(app)


@pytest.mark.parametrize("name", ["oracle", "loreft", "unsupervised", "paper"])
def test_runs_of_every_preset_are_shown(open_app, moved_run, name):
    moved_run(config=preset(name))
    app = open_app(PAGE, run="mine")
    assert n_charts(app) == 7
    assert not app.error
    assert "less than random axes" in texts(app) or "% of the edit**" in texts(app)


def test_oracle_gates_leave_an_unknown_prompt_out(open_app, moved_run):
    moved_run(config=preset("oracle"))
    app = open_app(PAGE, run="mine", prompt="Spell the word cat now please.")
    assert "Your prompt is not in the data" in texts(app)
    assert not app.error
    assert n_charts(app) == 6


@pytest.mark.usefixtures("no_examples")
def test_a_run_of_another_base_gives_one_message(open_app, make_run):
    make_run(base="f" * 64)
    app = open_app(PAGE, run="mine")
    assert [e for e in app.error if "trained on a base" in e.value]
    assert len(app.error) == 1
    assert not n_charts(app)


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("adapter.safetensors", "damaged"),
        ("skills.jsonl", "skills.jsonl:1"),
        ("config.json", "not JSON"),
    ],
)
def test_a_broken_file_gives_a_message(open_app, make_run, broken, message):
    run = make_run()
    (run.path / broken).write_text("{ no", encoding="utf-8")
    app = open_app(PAGE, run="mine")
    assert any(message in error.value for error in app.error), [e.value for e in app.error]


@pytest.mark.usefixtures("no_examples")
def test_a_run_without_adapter_says_where_to_watch_it(open_app, make_run):
    make_run(state="stopped", with_adapter=False)
    app = open_app(PAGE, run="mine")
    assert "no trained adapter yet" in texts(app)
    assert not app.error
    assert not n_charts(app)


@pytest.mark.usefixtures("no_examples")
def test_a_base_that_is_not_shipped_is_loaded_only_when_asked_to(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(PAGE, run="mine")
    assert not app.error
    assert not n_charts(app)
    app.toggle(key="autorun").set_value(True).run()
    assert_no_bug(app)
    assert any("no/such-base" in error.value for error in app.error)
