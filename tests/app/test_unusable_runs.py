"""Pages about a run, where there is none, or one that cannot be shown."""

import pytest

from tests.page_runs import n_charts, texts

PAGES = {
    "app.py": "Train a run of your own",
    "pages/Router.py": "Train one",
    "pages/Geometry.py": "Train one",
    "pages/States.py": "Train one",
    "pages/Interference.py": "Train a run of your own",
    "pages/Compare.py": "There is no run to compare",
}
"""Each with what it says where there is no run."""

IN_TWO_PANELS = ("app.py", "pages/Router.py")
"""Where two panels ask the run, and each says what is wrong with it."""

pytestmark = pytest.mark.usefixtures("no_examples")


@pytest.mark.fast
@pytest.mark.usefixtures("tmp_runs")
@pytest.mark.parametrize("page", PAGES)
def test_without_any_run_the_page_says_what_to_do(open_app, page):
    app = open_app(page)
    assert PAGES[page] in texts(app)
    assert not n_charts(app)
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_a_run_without_adapter_says_where_to_watch_it(open_app, make_run, page):
    make_run(state="stopped", with_adapter=False)
    app = open_app(page, run="mine")
    assert "no trained adapter yet" in texts(app)
    assert not n_charts(app)
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_a_run_of_another_base_gives_a_message(open_app, make_run, page):
    make_run(base="f" * 64)
    app = open_app(page, run="mine")
    messages = 2 if page in IN_TWO_PANELS else 1
    assert [("trained on a base" in error.value) for error in app.error] == [True] * messages
    assert not n_charts(app)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("adapter.safetensors", "damaged"),
        ("skills.jsonl", "skills.jsonl:1"),
        ("config.json", "not JSON"),
    ],
)
def test_a_broken_file_gives_a_message(open_app, make_run, page, broken, message):
    run = make_run()
    (run.path / broken).write_text("{ no", encoding="utf-8")
    app = open_app(page, run="mine")
    assert any(message in error.value for error in app.error), [e.value for e in app.error]
