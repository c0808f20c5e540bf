"""The Runs page: the table, two runs side by side, delete with undo."""

import pytest

from csreft_core.app.runs import summary
from csreft_core.config import nearest_preset, preset, with_overrides
from csreft_core.methods.presets import METHODS, named_config
from csreft_core.runs import all_runs as runs_module
from tests.page_runs import assert_no_bug, n_charts, texts

PAGE = "pages/Runs.py"


@pytest.fixture(autouse=True)
def examples(monkeypatch, tmp_path):
    folder = tmp_path / "examples"
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", folder)
    return folder


@pytest.mark.usefixtures("tmp_runs")
def test_an_empty_workspace_says_what_to_do(open_app):
    app = open_app(PAGE)
    assert "You have no runs yet" in texts(app)
    assert not n_charts(app)
    assert not app.error


@pytest.mark.fast
def test_the_table_lists_runs_with_their_scores(open_app, make_run, examples):
    make_run()
    make_run("recommended-0", root=examples)
    table = open_app(PAGE, run="mine").dataframe[0].value
    assert table["run"].tolist() == ["mine", "recommended-0 (shipped)"]
    assert table["status"].tolist() == ["finished", "finished"]
    assert table["exact match"].tolist() == [1.0, 1.0]
    assert table["loss"][0] == pytest.approx(3.0 * 0.5**4)
    assert table["settings"][0] == "recommended, train.steps=4"
    assert table["skills"][0] == "french, category, plural, spelling"
    assert "You have no runs yet" not in texts(open_app(PAGE))


def test_broken_folders_are_listed_with_their_message(open_app, make_run, tmp_runs):
    make_run()
    (tmp_runs / "half").mkdir()
    (tmp_runs / "half" / "config.json").write_text("{", encoding="utf-8")
    app = open_app(PAGE)
    assert ["half" in error.value and "not JSON" in error.value for error in app.error] == [True]
    assert len(app.dataframe[0].value) == 1


@pytest.mark.parametrize("file", ["metrics.jsonl", "skills.jsonl"])
def test_a_broken_file_does_not_hide_the_other_runs(open_app, make_run, file):
    make_run()
    (make_run("other").path / file).write_text("nonsense\n", encoding="utf-8")
    app = open_app(PAGE, run="mine")
    table = app.dataframe[0].value.set_index("run")
    assert table["status"].to_dict() == {"mine": "finished", "other": "broken"}


def test_two_runs_side_by_side(open_app, make_run):
    make_run()
    make_run("other", config=with_overrides(preset("recommended"), ["adapter.rank=4"]))
    app = open_app(PAGE, run="mine", **{"with": "other"})
    assert app.selectbox(key="with").value == "other"
    scores, differences = app.dataframe[1].value, app.dataframe[2].value
    assert scores["run"].tolist() == ["mine", "other"]
    assert scores["parameters, subspaces"][1] == 2 * scores["parameters, subspaces"][0]
    assert differences.values.tolist() == [["adapter.rank", "2", "4"]]
    assert list(differences) == ["setting", "mine", "other"]
    assert n_charts(app) == 2
    app.selectbox(key="with").select("").run()
    assert_no_bug(app)
    assert "with" not in app.query_params


def test_the_same_settings_have_no_differences(open_app, make_run):
    make_run()
    make_run("other")
    assert "the same settings" in texts(open_app(PAGE, run="mine", **{"with": "other"}))


def test_delete_and_undo(open_app, make_run, tmp_runs):
    make_run()
    app = open_app(PAGE, run="mine")
    app.button(key="delete").click().run()
    assert_no_bug(app)
    assert not (tmp_runs / "mine").exists()
    assert "Deleted: mine" in texts(app)
    app.button(key="undo").click().run()
    assert_no_bug(app)
    assert (tmp_runs / "mine").is_dir()
    assert "Deleted" not in texts(app)
    assert not app.error


def test_an_example_cannot_be_deleted(open_app, make_run, examples):
    make_run("recommended-0", root=examples)
    app = open_app(PAGE)
    assert app.button(key="delete").disabled
    make_run()
    assert not open_app(PAGE, run="mine").button(key="delete").disabled


def test_a_running_run_is_not_deleted(open_app, make_run):
    run = make_run(state="running")
    with run.training_lock():
        app = open_app(PAGE, run="mine")
        app.button(key="delete").click().run()
        assert_no_bug(app)
        assert any("trains or waits" in error.value for error in app.error)
        assert run.path.exists()


def test_a_run_without_metrics_can_be_compared(open_app, make_run):
    make_run().metrics_path.unlink()
    app = open_app(PAGE, run="mine")
    assert "No evaluation yet" in texts(app)
    assert not app.error


def test_summary_names_the_nearest_preset_and_what_differs():
    assert summary(preset("paper")) == "paper"
    assert summary(with_overrides(preset("oracle"), ["train.lr=0.5"])) == "oracle, train.lr=0.5"
    assert summary(with_overrides(preset("oracle"), ["train.threads=2"])) == "oracle"


@pytest.mark.parametrize("name", METHODS)
def test_summary_names_the_method(name):
    config = named_config(name)
    nearest, *changed = summary(config).split(", ")
    # Lists have commas of their own.
    assert (config.method.name == "csreft") != (f"method.name={config.method.name}" in changed)
    assert with_overrides(preset(nearest), nearest_preset(config)[1]) == config
