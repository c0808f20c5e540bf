"""The Train page: settings to config, its start, and runs in every state."""

import json
from dataclasses import replace

import pytest

from csreft_core.app.page import settings
from csreft_core.config import PRESETS, config_to_dict, preset, with_overrides
from csreft_core.methods.presets import named_config
from csreft_core.runs import all_runs as runs_module
from csreft_core.runs import queue
from csreft_core.runs.all_runs import open_run
from tests.page_runs import assert_no_bug, n_charts, texts

PAGE = "pages/Train.py"
LINES = "\n".join(
    json.dumps({"skill": s, "prompt": f"What is the {s} of {w}?", "response": w})
    for s in ("plural", "category")
    for w in "dog cat horse apple pear tram tie shoe knee house".split()
)


@pytest.fixture(autouse=True)
def no_examples(monkeypatch, tmp_path):
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", tmp_path / "none")


@pytest.fixture
def submitted(monkeypatch):
    """What the page hands to the queue; the run folder is made, no process is started."""
    given = []

    def submit(config, skill_set, name):
        runs_module.check_name(name)
        given.append((config, skill_set, name))
        return runs_module.create_run(runs_module.runs_root() / name, config, skill_set)

    monkeypatch.setattr(queue, "submit", submit)
    return given


def shown_command(app):
    """The command below the form, which is folded at first."""
    app.session_state["command"] = True
    app.run()
    assert_no_bug(app)
    return next(code.value for code in app.code if code.language == "bash")


def shown_config(app):
    shown_command(app)
    return json.loads(next(code.value for code in app.code if code.language == "json"))


@pytest.mark.fast
@pytest.mark.usefixtures("tmp_runs")
def test_a_first_visit_shows_the_form_with_command_and_config(open_app):
    app = open_app(PAGE)
    assert shown_command(app).startswith("python -m csreft_core train --preset recommended --out")
    assert shown_config(app) == config_to_dict(preset("recommended"))
    assert app.text_input(key="name").value == "recommended"
    assert not app.button(key="start").disabled
    assert not app.error


@pytest.mark.usefixtures("tmp_runs")
def test_every_setting_has_a_widget_with_its_description(open_app):
    app = open_app(PAGE, folded=["all-settings"])
    keys = {
        w.key
        for kind in (app.selectbox, app.number_input, app.text_input, app.toggle)
        for w in kind
    }
    drawn = {key.removeprefix("set-") for key in keys if key and key.startswith("set-")}
    assert drawn == set(settings.all_paths()) - {"data.path", "adapter.layers"}
    rank = app.number_input(key="set-adapter.rank")
    assert "Dimensions r of each subspace." in rank.help
    assert "`adapter.rank`" in rank.help


@pytest.mark.usefixtures("tmp_runs")
def test_changes_reach_config_command_and_address(open_app):
    app = open_app(PAGE, folded=["all-settings"])
    app.number_input(key="set-adapter.rank").set_value(3).run()
    app.selectbox(key="set-adapter.constraint").select("within").run()
    app.number_input(key="set-train.lr").set_value(0.005).run()
    app.multiselect(key="layers").set_value([1, 3]).run()
    app.text_input(key="set-router.hidden").set_value("paper").run()
    assert_no_bug(app)
    config = shown_config(app)
    assert config["adapter"]["rank"] == 3
    assert config["adapter"]["layers"] == [1, 3]
    assert config["train"]["lr"] == 0.005
    assert "--set adapter.rank=3" in shown_command(app)
    assert "--set adapter.constraint=within" in shown_command(app)
    shared = list(app.query_params["set"])
    other = open_app(PAGE, set=shared)
    assert shown_config(other) == config


@pytest.mark.usefixtures("tmp_runs")
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_shown_as_it_is(open_app, name):
    app = open_app(PAGE, preset="oracle" if name != "oracle" else "paper")
    app.number_input(key="set-adapter.rank").set_value(5).run()
    app.selectbox(key="preset").select(name).run()
    assert_no_bug(app)
    assert f"--preset {name} --out" in shown_command(app)
    assert "set" not in app.query_params
    assert not app.error


@pytest.mark.usefixtures("tmp_runs")
def test_the_settings_survive_a_page_switch(open_app):
    app = open_app(PAGE)
    app.selectbox(key="preset").select("oracle").run()
    app.number_input(key="set-train.steps").set_value(77).run()
    app.switch_page("pages/Runs.py").run()
    app.query_params.clear()
    app.switch_page(PAGE).run()
    assert_no_bug(app)
    assert app.selectbox(key="preset").value == "oracle"
    assert shown_config(app)["train"]["steps"] == 77


@pytest.mark.usefixtures("tmp_runs")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("adapter.rank=0", "adapter.rank"),
        ("train.lr=-1", "train.lr"),
        ("adapter.form=noreft", "noreft"),
        ("adapter.positions=x9", "adapter.positions"),
        ("adapter.layers=[]", "adapter.layers"),
        ("data.path=/etc/passwd", "not given on this page"),
        ("router.gate=open", "router.gate"),
    ],
)
def test_a_setting_that_does_not_fit_is_said_and_cannot_be_started(open_app, given, message):
    app = open_app(PAGE, set=[given])
    assert any(message in error.value for error in app.error), [e.value for e in app.error]
    assert app.button(key="start").disabled


@pytest.mark.usefixtures("tmp_runs")
def test_unknown_settings_in_the_address_are_left_out(open_app):
    app = open_app(PAGE, set=["no.such=1", "train.steps=50"], preset="none")
    assert shown_config(app)["train"]["steps"] == 50
    assert app.selectbox(key="preset").value == "recommended"
    assert not app.error


@pytest.mark.usefixtures("tmp_runs")
def test_start_hands_the_config_over_and_shows_the_run(open_app, submitted):
    app = open_app(PAGE)
    app.number_input(key="set-train.steps").set_value(20).run()
    app.text_input(key="name").set_value("my-first").run()
    app.button(key="start").click().run()
    assert_no_bug(app)
    ((config, skill_set, name),) = submitted
    assert (config.train.steps, name) == (20, "my-first")
    assert skill_set.names == ("french", "category", "plural", "spelling")
    assert app.query_params["run"] in ("my-first", ["my-first"])
    assert "waits for its turn" in app.get("progress")[0].text
    assert app.text_input(key="name").value == "recommended"
    assert open_run(runs_module.runs_root() / "my-first").config() == config


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize("name", ["../up", "mine"])
def test_a_bad_or_taken_name_gives_a_message(open_app, make_run, name):
    make_run()
    app = open_app(PAGE)
    app.text_input(key="name").set_value(name).run()
    app.button(key="start").click().run()
    assert_no_bug(app)
    assert len(app.error) == 1


@pytest.mark.usefixtures("tmp_runs")
def test_pasted_skills_are_trained_on(open_app, submitted):
    app = open_app(PAGE)
    app.segmented_control(key="skill-set").set_value("own").run()
    assert "upload a file or paste lines" in texts(app)
    app.text_area(key="pasted").set_value(LINES).run()
    assert_no_bug(app)
    assert not app.error
    app.button(key="start").click().run()
    ((config, skill_set, _),) = submitted
    assert skill_set.names == ("plural", "category")
    assert ".uploads" in config.data.path


@pytest.mark.usefixtures("tmp_runs")
def test_answers_that_the_base_cannot_write_are_trained_on_when_asked_twice(open_app, submitted):
    app = open_app(PAGE)
    app.segmented_control(key="skill-set").set_value("own").run()
    lines = LINES + "\n" + LINES.splitlines()[0].replace("dog", "wug")
    app.text_area(key="pasted").set_value(lines).run()
    app.button(key="start").click().run()
    assert_no_bug(app)
    assert not submitted
    (error,) = app.error
    assert "1 of 21 answers cannot be written by this base" in error.value
    assert "'wug' (no token for 'wug')" in error.value
    app.button(key="start").click().run()
    assert not submitted  # the same click again is not a second question
    app.checkbox(key="train-unwritable").check().run()
    assert "--unwritable-answers" in shown_command(app)
    app.button(key="start").click().run()
    assert_no_bug(app)
    assert len(submitted) == 1


@pytest.mark.usefixtures("tmp_runs")
def test_an_uploaded_file_is_read_and_its_faults_are_named(open_app, tmp_runs):
    app = open_app(PAGE)
    app.segmented_control(key="skill-set").set_value("own").run()
    app.file_uploader(key="upload").upload("../../evil.jsonl", LINES.encode()).run()
    assert_no_bug(app)
    assert any("the name of the upload" in error.value for error in app.error)
    assert not (tmp_runs / ".uploads").exists()
    app.file_uploader(key="upload").upload("good.jsonl", LINES.encode()).run()
    assert_no_bug(app)
    assert not app.error
    assert [p.suffix for p in (tmp_runs / ".uploads").iterdir()] == [".jsonl"]
    broken = LINES.replace('"response": "cat"', '"nonsense": "cat"').encode()
    app.file_uploader(key="upload").upload("b.jsonl", broken).run()
    assert_no_bug(app)
    assert any(":2" in error.value and "response" in error.value for error in app.error)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "interrupted"])
def test_a_run_that_ended_is_shown_with_its_curves(open_app, make_run, state):
    run = make_run(state=state, message="it went wrong" if state == "failed" else "")
    run.log_path.write_text("a line of the log\n", encoding="utf-8")
    app = open_app(PAGE, run="mine")
    assert n_charts(app) == 2
    keys = {button.key for button in app.button}
    assert ("resume" in keys) == (state != "finished")
    assert "stop" not in keys
    assert ("it went wrong" in texts(app)) == (state == "failed")
    assert any("a line of the log" in code.value for code in app.code) == (state == "failed")


@pytest.mark.parametrize("part", ["Loss and gates", "Answers and entropy", "Constraint and rates"])
def test_each_part_of_the_curves_has_two_figures_and_stands_in_the_address(
    open_app, make_run, part
):
    make_run()
    app = open_app(PAGE, run="mine", **{"train-part": part})
    shown = {heading.value for heading in app.subheader}
    assert {
        "Loss and gates": "Is each skill being learned?",
        "Answers and entropy": "How many answers are right?",
        "Constraint and rates": "Do the subspaces stay orthonormal?",
    }[part] in shown, shown
    assert n_charts(app) == 2


def test_a_running_run_can_be_stopped(open_app, make_run):
    run = make_run(state="running")
    with run.training_lock():
        app = open_app(PAGE, run="mine")
        assert "step 2 of 4" in app.get("progress")[0].text
        assert "resume" not in {button.key for button in app.button}
        app.button(key="stop").click().run()
        assert_no_bug(app)
        assert run.stop_requested()
        assert app.button(key="stop").disabled


def test_a_run_whose_process_is_gone_is_interrupted_and_can_be_resumed(
    open_app, make_run, monkeypatch
):
    make_run(state="running")
    resumed = []
    monkeypatch.setattr(queue, "resume", lambda run: resumed.append(run.name))
    app = open_app(PAGE, run="mine")
    assert "interrupted" in texts(app)
    app.button(key="resume").click().run()
    assert_no_bug(app)
    assert resumed == ["mine"]


def test_duplicate_copies_the_settings(open_app, make_run):
    config = with_overrides(preset("paper"), ["adapter.rank=7", "train.seed=3"])
    make_run(config=config)
    app = open_app(PAGE, run="mine")
    app.button(key="duplicate").click().run()
    assert_no_bug(app)
    expected = replace(config, train=replace(config.train, steps=4))
    shown = shown_config(app)
    assert shown["adapter"]["rank"] == 7
    assert shown["train"]["steps"] == expected.train.steps
    assert app.selectbox(key="preset").value == "paper"


@pytest.mark.parametrize("method", ["lora", "olora"])
def test_duplicate_keeps_the_method(open_app, make_run, method):
    config = named_config(method)
    make_run(config=config, with_adapter=False)
    app = open_app(PAGE, run="mine")
    app.button(key="duplicate").click().run()
    assert_no_bug(app)
    assert shown_config(app)["method"] == config_to_dict(config)["method"]
    assert f"method.name={config.method.name}" in shown_command(app)


def test_collapsed_gates_and_bad_losses_are_said(open_app, make_run):
    run = make_run()
    bad = run.metrics()[1] | {"step": 5, "loss": float("nan")}
    run.append_metric(bad)
    app = open_app(PAGE, run="mine")
    assert any("not finite" in warning.value for warning in app.warning)


def test_broken_metrics_give_a_message(open_app, make_run):
    run = make_run()
    run.metrics_path.write_text("nonsense\n", encoding="utf-8")
    app = open_app(PAGE, run="mine")
    assert any("broken line" in error.value for error in app.error)
    assert not app.button(key="start").disabled


def test_a_run_without_records_waits_for_them(open_app, make_run):
    run = make_run(state="queued", with_adapter=False)
    run.metrics_path.unlink()
    with run.training_lock():
        app = open_app(PAGE, run="mine")
        assert "place 1 in the queue" in app.get("progress")[0].text
        assert n_charts(app) == 2
        assert not app.error


@pytest.mark.usefixtures("tmp_runs")
def test_spaces_in_a_name_become_dashes(open_app, submitted):
    app = open_app(PAGE)
    app.text_input(key="name").set_value(" my  skills ").run()
    assert app.text_input(key="name").value == "my-skills"
    app.button(key="start").click().run()
    assert_no_bug(app)
    assert [name for _, _, name in submitted] == ["my-skills"]
