"""The States page: first start, its choices in the address, and runs that it cannot show."""

import json
from dataclasses import replace

import pytest
import streamlit as st
import torch
from safetensors.torch import save_file

from csreft_core.app.states import panels as states
from csreft_core.config import preset
from csreft_core.reft.adapter import load_adapter, save_adapter
from tests.page_runs import assert_no_bug, n_charts, opened_parts, run_until, texts
from tests.tiny import move

PAGE = "pages/States.py"
# Two pictures; scree, coordinates; sizes on held-out prompts and on one's own, energy; ...
FIGURES = dict(zip(states.PARTS, (2, 2, 3, 1, 1), strict=True))
QUICK = (states.PICTURE, states.AXES, states.SIZE)


def parts(open_app, labels=QUICK, **query):
    return opened_parts(open_app, PAGE, "states-part", labels, **query)


def figures(apps):
    return {part: n_charts(app) for part, app in apps.items()}


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
    apps = parts(open_app, states.PARTS)
    assert figures(apps) == FIGURES
    assert not any(app.error or app.warning for app in apps.values())
    app = apps[states.PICTURE]
    assert app.selectbox(key="run").value == "example:recommended-0"
    assert "The picture hides the edit." in texts(app)  # on the axes of the base states
    assert "R h' = (1 - gate) R h + gate · target holds within" in texts(apps[states.AXES])
    assert "The difference is exactly 0 in" in texts(apps[states.SIZE])
    names = {trace.get("name") for trace in chart(app, "states-chosen")["data"]}
    assert {"your prompt", "french", "spelling", "base h", "edited h'"} <= names
    for name, value in app.session_state.to_dict().items():
        assert isinstance(value, str | int | float | bool | list | dict | None), name


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
    apps = parts(open_app, run="mine", **{"states-layer": "3"})
    assert figures(apps) == {states.PICTURE: 2, states.AXES: 1, states.SIZE: 2}
    app = apps[states.AXES]
    assert "edits the tokens l1 at layer 1" in texts(app)
    app.selectbox(key="states-layer").select("1").run()
    assert_no_bug(app)
    assert n_charts(app) == FIGURES[states.AXES]


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
    assert not app.error
    size = open_app(PAGE, run="mine", prompt=" ", **{"states-part": states.SIZE})
    assert n_charts(size) == FIGURES[states.SIZE] - 1  # without the map of one's own prompt


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


def test_the_animation_shows_the_snapshots(open_app, moved_run):
    run = moved_run()
    save_snapshots(run)
    app = open_app(PAGE, run="mine", **{"states-part": states.TRAINING})
    assert n_charts(app) == 1
    assert [frame["name"] for frame in chart(app, "formation")["frames"]] == ["0", "4"]
    assert "over 4 validation prompts is exactly 0 at step 0 and 45.3 at step 4" in texts(app)
    run.snapshot_path(4).write_text("{ no", encoding="utf-8")
    st.cache_data.clear()
    app.run()
    assert_no_bug(app)
    assert [e for e in app.error if "is damaged" in e.value]


def test_a_run_without_snapshots_says_so_and_the_skill_is_still_read(open_app, moved_run):
    moved_run()
    apps = parts(open_app, (states.TRAINING, states.SKILL), run="mine")
    assert [e for e in apps[states.TRAINING].error if "no snapshots" in e.value]
    assert "The silhouette of the skills goes from" in texts(apps[states.SKILL])


@pytest.mark.parametrize("name", ["oracle", "loreft", "paper"])
def test_runs_of_every_preset_are_shown(open_app, moved_run, name):
    moved_run(config=preset(name))
    apps = parts(open_app, run="mine")
    assert figures(apps) == {part: FIGURES[part] for part in QUICK}
    assert not any(app.error for app in apps.values())
    app = apps[states.PICTURE]
    assert "less than random axes" in texts(app) or "% of the edit" in texts(app)


def test_oracle_gates_leave_an_unknown_prompt_out(open_app, moved_run):
    moved_run(config=preset("oracle"))
    app = open_app(PAGE, run="mine", prompt="Spell the word cat now please.")
    assert "Your prompt is not in the data" in texts(app)
    assert not app.error
    names = {trace.get("name") for trace in chart(app, "states-chosen")["data"]}
    assert "your prompt" not in names
    assert "french" in names


@pytest.mark.usefixtures("no_examples")
def test_a_base_that_is_not_shipped_is_loaded_only_when_asked_to(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(PAGE, run="mine")
    assert not app.error
    assert not n_charts(app)
    app.button(key="load").click().run()
    run_until(app, lambda a: a.error)
    assert_no_bug(app)
    assert any("no/such-base" in error.value for error in app.error)
