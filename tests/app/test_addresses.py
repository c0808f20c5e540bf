"""Any address opens a page: what it asks for is done, or said to be too much or no such thing."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from csreft_core.app.page.ceilings import MOST_WAITING, SETTINGS, check_setting
from csreft_core.app.page.settings import all_paths
from csreft_core.config import config_to_dict, preset
from csreft_core.errors import ConfigError
from csreft_core.runs import queue
from tests.page_runs import assert_no_bug, texts

NASTY = {
    "number": "9" * 400,
    "not finite": "-Infinity",
    "path": "../../etc\0/passwd",
    "list": "1," * 900,
    "deep": "[" * 1900,
    "unicode": "\u202e\ufeff\U0001f600é" * 100,
    "none": "",
}
PARAMETERS = {
    "app.py": ("run", "prompt"),
    "pages/Model.py": (
        "base-from",
        "base",
        "base-folder",
        "precision",
        "device",
        "batch",
        "length",
        "for",
        "edit",
        "preset",
    ),
    "pages/Skills.py": ("skills-part", "preset"),
    "pages/Train.py": ("run", "train-part", "preset"),
    "pages/Router.py": ("prompt", "pin", "gate", "router-part", "look", "split"),
    "pages/Geometry.py": ("layer", "group", "measure", "pair", "against", "geometry-part"),
    "pages/States.py": (
        "prompt",
        "states-layer",
        "states-token",
        "states-basis",
        "states-axes",
        "states-gates",
        "states-subspace",
        "states-n",
        "states-part",
    ),
    "pages/Interference.py": ("prompt", "i-part", "i-split", "i-rows", "i-gates", "i-skill"),
    "pages/Compare.py": (
        "prompt",
        "columns",
        "other",
        "temperature",
        "top_p",
        "seed",
        "length",
        "gates",
        "dose",
    ),
    "pages/Methods.py": ("comparison", "m-part", "m-quality", "drawn"),
    "pages/Claims.py": ("claims-from", "p-base", "p-k", "p-r", "p-l", "p-g"),
    "pages/Runs.py": ("run", "with", "runs-page"),
}


# Each page gets one kind, and each kind a page or two: all go through the same functions.
PAIRS = [
    (page, kind)
    for i, page in enumerate(PARAMETERS)
    for j, kind in enumerate(NASTY)
    if (i - j) % len(NASTY) == 0
]


@pytest.mark.parametrize(("page", "kind"), PAIRS)
def test_every_page_opens_at_any_address(open_app, make_run, page, kind):
    make_run()
    asked = dict.fromkeys(PARAMETERS[page], NASTY[kind])
    if page == "pages/Model.py" and kind != "none":
        asked["base-from"] = "folder"
    if page == "pages/Claims.py":
        asked["claims-part"] = "Parameters"  # the verdicts take long
    app = open_app(page, **asked, set=[f"train.steps={NASTY[kind]}", NASTY[kind]])
    assert len(app.title) + len(app.subheader) > 0


def test_a_batch_of_a_million_rows_is_refused_before_any_table(open_app):
    asked = {"skills-part": "As the model sees it", "set": ["train.batch_size=1000000"]}
    app = open_app("pages/Skills.py", **asked)
    assert "Train.batch_size: 1000000 is more than the pages take, up to 1,024" in texts(app)
    assert not app.dataframe


def test_the_largest_batch_of_long_rows_is_refused_too(open_app, tmp_runs):
    from csreft_core.app.skills import uploads
    from csreft_core.skills.skill_set import Row, SkillSet

    rows = tuple(Row(("a",), f"{'dog ' * 400}{i}", "dogs", "train") for i in range(300))
    path = uploads.keep(SkillSet(rows, ("a",)))
    assert path.is_relative_to(tmp_runs)
    settings_ = [f"data.path={path}", "train.batch_size=1024"]
    app = open_app("pages/Skills.py", **{"skills-part": "As the model sees it", "set": settings_})
    assert "tokens; 100,000 can be shown here" in texts(app)


def test_every_number_has_a_ceiling_that_the_presets_keep():
    tree = config_to_dict(preset("recommended"))
    numbers = {
        path
        for path in all_paths()
        for group, _, name in [path.partition(".")]
        if isinstance(tree[group][name], int | float) and not isinstance(tree[group][name], bool)
    }
    # A share of 1 is bounded by the config itself.
    assert numbers - {"adapter.dropout", "router.threshold", "train.warmup"} <= set(SETTINGS)
    for path in all_paths():
        group, _, name = path.partition(".")
        check_setting(path, tree[group][name])
    for path, most in SETTINGS.items():
        check_setting(path, most)
        with pytest.raises(ConfigError, match="is more than the pages take"):
            check_setting(path, most + 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.lr", float("inf")),
        ("train.lr", float("nan")),
        ("data.template", "{prompt}" + "x" * 2000),
        ("adapter.layers", list(range(300))),
        ("adapter.positions", "f999999999"),
        ("adapter.positions", "f1+l99999"),
    ],
)
def test_texts_and_lists_have_one_as_well(path, value):
    with pytest.raises(ConfigError, match="is more than the pages take"):
        check_setting(path, value)


def test_the_queue_of_the_pages_has_an_end(open_app, monkeypatch):
    started = []
    monkeypatch.setattr(queue, "submit", lambda *args: started.append(args))
    monkeypatch.setattr(queue, "n_waiting", lambda _: MOST_WAITING)
    app = open_app("pages/Train.py")
    app.button(key="start").click().run()
    assert_no_bug(app)
    assert f"{MOST_WAITING} runs wait for their turn" in texts(app)
    assert started == []


def settings_page() -> None:
    import streamlit as st_

    from csreft_core.app.page import settings as settings_module
    from csreft_core.app.page.shell import showing_errors

    settings_module.recall_preset()
    settings_module.overrides()
    for path in settings_module.all_paths():
        settings_module.draw(path)
    with showing_errors():
        settings_module.build()
        st_.success("fits")


_VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(
        lambda value: json.dumps(value)
    ),
    st.sampled_from([*NASTY.values(), "1e400", "true", '"\\ud800"', "{}"]),
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(all_paths()), _VALUES), min_size=1, max_size=6))
def test_any_settings_in_an_address_fit_or_are_refused_in_words(pairs):
    app = AppTest.from_function(settings_page)
    app.query_params["set"] = [f"{path}={value}" for path, value in pairs]
    app.run()
    assert_no_bug(app)
    assert len(app.success) + len(app.error) == 1
