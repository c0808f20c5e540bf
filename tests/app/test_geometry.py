"""The Geometry page: first start, no run, broken runs, one subspace, choices in the URL."""

from dataclasses import replace

import pytest

from csreft_core.app import geometry
from csreft_core.config import preset
from tests.page_runs import assert_no_bug, n_charts, opened_parts, run_until, texts

PAGE = "pages/Geometry.py"
# Pairs, angles, Gram; three leaks, mixing; drift, constraint; seeds, which need another run.
FIGURES = dict(zip(geometry.PARTS, (3, 4, 2, 1), strict=True))
ALONE = FIGURES | {geometry.RUNS: 0}


def parts(open_app, **query):
    return opened_parts(open_app, PAGE, "geometry-part", geometry.PARTS, **query)


@pytest.mark.usefixtures("tmp_runs")
def test_first_start_shows_a_shipped_run_with_every_figure(open_app):
    assert open_app(PAGE).selectbox(key="run").value == "example:recommended-0"
    apps = parts(open_app)
    assert {part: n_charts(app) for part, app in apps.items()} == FIGURES
    assert not any(app.error for app in apps.values())
    assert "All 6 pairs are at 90.0°" in texts(apps[geometry.SHARED])
    assert "by construction" in texts(apps[geometry.SHARED])
    app = apps[geometry.RUNS]
    assert "4 skills, 2 other runs" in texts(app)
    assert "same settings, 2 other seeds" in app.selectbox(key="against").options
    app.selectbox(key="against").select("example:loreft-0").run()
    assert_no_bug(app)
    assert app.query_params["against"] in ("example:loreft-0", ["example:loreft-0"])
    assert "No skill here has a subspace of the same name" in texts(app)


@pytest.mark.fast
@pytest.mark.usefixtures("no_examples")
def test_measure_and_pair_are_in_the_address(open_app, make_run):
    make_run()
    app = open_app(PAGE, measure="overlap", pair="plural·spelling")
    assert n_charts(app) == FIGURES[geometry.SHARED]
    assert "The overlap is 0.000 for all 6 pairs" in texts(app)
    assert "between plural and spelling" in texts(app)
    first = [chart.proto.spec for chart in app.get("plotly_chart")]
    app.selectbox(key="measure").select("chordal")
    app.selectbox(key="pair").select("french·spelling").run()
    assert_no_bug(app)
    assert app.query_params["measure"] in ("chordal", ["chordal"])
    assert app.query_params["pair"] in ("french·spelling", ["french·spelling"])
    second = [chart.proto.spec for chart in app.get("plotly_chart")]
    assert [a != b for a, b in zip(first, second, strict=True)] == [True, True, False]


@pytest.mark.usefixtures("no_examples")
def test_an_unknown_choice_in_the_address_gives_the_default(open_app, make_run):
    make_run()
    app = open_app(PAGE, measure="nothing", pair="a·b", layer="7", against="nobody")
    assert app.selectbox(key="measure").value == "smallest_angle"
    assert app.selectbox(key="pair").value == "french·category"
    alone = open_app(PAGE, against="nobody", **{"geometry-part": geometry.RUNS})
    assert "no other finished run on this base" in texts(alone)
    assert n_charts(open_app(PAGE, **{"geometry-part": "none"})) == FIGURES[geometry.SHARED]
    assert not app.error


@pytest.mark.usefixtures("no_examples")
def test_layer_and_group_can_be_chosen_where_there_are_several(open_app, make_run):
    config = preset("recommended")
    config = replace(
        config, adapter=replace(config.adapter, layers=(1, 3), positions="f1+l1", tied=False)
    )
    make_run(config=config)
    app = open_app(PAGE, layer="3", group="1", **{"geometry-part": geometry.REACH})
    assert (app.selectbox(key="layer").value, app.selectbox(key="group").value) == ("3", "1")
    assert "At the edited block 3" in texts(app)
    assert not app.error
    app.selectbox(key="layer").select("1").run()
    assert_no_bug(app)
    assert "At the edited block 1" in texts(app)


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("paper", (geometry.SHARED, geometry.RUNS)),
        ("oracle", (geometry.REACH, geometry.TRAINING)),
    ],
)
def test_runs_of_other_presets_are_shown(open_app, make_run, name, shown):
    make_run(config=preset(name))
    apps = opened_parts(open_app, PAGE, "geometry-part", shown, run="mine")
    assert {part: n_charts(app) for part, app in apps.items()} == {p: ALONE[p] for p in shown}
    assert not any(app.error for app in apps.values())


@pytest.mark.usefixtures("no_examples")
def test_one_subspace_has_nothing_to_leak_into(open_app, make_run):
    make_run(config=preset("loreft"))
    apps = parts(open_app, run="mine")
    # Pairs (a message) and Gram; drift and constraint.
    found = {part: n_charts(app) for part, app in apps.items()}
    assert found == dict(zip(geometry.PARTS, (2, 0, 2, 0), strict=True))
    assert "one subspace for everything" in texts(apps[geometry.REACH])
    assert "no pair to compare" in texts(apps[geometry.SHARED])
    assert not any(app.error for app in apps.values())


@pytest.mark.usefixtures("no_examples")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("metrics.jsonl", "broken line"),
        ("snapshots/step-00000000.safetensors", "damaged or of another adapter"),
    ],
)
def test_a_broken_record_of_the_training_gives_a_message(open_app, make_run, broken, message):
    path = make_run().path / broken
    path.parent.mkdir(exist_ok=True)
    path.write_text("{ no\n", encoding="utf-8")
    app = open_app(PAGE, run="mine", **{"geometry-part": geometry.TRAINING})
    assert [message in error.value for error in app.error] == [True], app.error


@pytest.mark.usefixtures("no_examples")
def test_a_broken_neighbour_does_not_stop_the_page(open_app, make_run):
    make_run("neighbour")
    make_run("stranger", base="f" * 64)
    (make_run("second").path / "adapter.safetensors").write_text("{ no", encoding="utf-8")
    make_run()
    app = open_app(PAGE, run="mine", against="second", **{"geometry-part": geometry.RUNS})
    assert not n_charts(app)
    # A run of another base has nothing to compare with; nor has the run itself.
    assert app.selectbox(key="against").options[-2:] == ["second", "neighbour"]
    assert not {"stranger", "mine"} & set(app.selectbox(key="against").options)
    assert any("second" in error.value and "damaged" in error.value for error in app.error)
    app.selectbox(key="against").select("neighbour").run()
    assert_no_bug(app)
    assert n_charts(app) == FIGURES[geometry.RUNS]
    assert not app.error


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
