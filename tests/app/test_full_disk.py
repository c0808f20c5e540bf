"""A disk that refuses takes no page down: what could not be written is said."""

import pytest

from csreft_core.app.skills import choice as skill_choice
from tests.full_disk import refusing
from tests.page_runs import assert_no_bug, texts

FULL = "the disk is full"


@pytest.mark.parametrize("page", ["app.py", "pages/Train.py", "pages/Runs.py", "pages/Skills.py"])
def test_pages_stay_up_and_say_so(open_app, make_run, page):
    make_run(state="running")  # its process is gone, which cannot be written down
    with refusing():
        app = open_app(page, run="mine")
        assert FULL in texts(app)
        if page == "pages/Train.py":
            assert "interrupted, step 2 of 4" in [bar.proto.text for bar in app.get("progress")]
            assert {button.key for button in app.button} >= {"resume", "duplicate"}
    assert FULL not in texts(open_app(page, run="mine"))


def test_a_queued_run_can_be_seen_on_a_full_disk(open_app, make_run):
    run = make_run(state="running")
    with run.training_lock(), refusing():
        app = open_app("pages/Train.py", run="mine")
        assert FULL not in texts(app)
        app.button(key="stop").click().run()
        assert_no_bug(app)
        assert FULL in texts(app)


@pytest.mark.parametrize(
    ("page", "state", "key"),
    [
        ("pages/Train.py", "finished", "start"),
        ("pages/Train.py", "stopped", "resume"),
        ("pages/Runs.py", "finished", "delete"),
    ],
)
def test_every_button_says_so(open_app, make_run, page, state, key):
    run = make_run(state=state)
    app = open_app(page, run="mine")
    with refusing():
        app.button(key=key).click().run()
        assert_no_bug(app)
        assert FULL in texts(app)
    assert run.status().state == state


def test_an_undo_says_so(open_app, make_run):
    make_run()
    app = open_app("pages/Runs.py", run="mine")
    app.button(key="delete").click().run()
    with refusing():
        app.button(key="undo").click().run()
        assert_no_bug(app)
        assert FULL in texts(app)
    app.run()
    assert "Deleted: mine" in texts(app)  # and can still be taken back


@pytest.mark.usefixtures("tmp_runs")
def test_an_upload_says_so(open_app):
    app = open_app("pages/Skills.py")
    app.segmented_control(key="skill-set").set_value("own").run()
    with refusing():
        app.text_area(key="pasted").set_value(skill_choice.FORM).run()
        assert_no_bug(app)
        assert FULL in texts(app)
