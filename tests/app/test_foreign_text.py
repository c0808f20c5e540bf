"""Texts that are not ours stay texts, on every page and in every message."""

import pytest

from csreft_core.app.page import markup
from tests import hostile
from tests.page_runs import assert_no_bug, texts

PAGES = {
    "app.py": {},
    "pages/Model.py": {"base-from": "folder", "base-folder": hostile.EVERYTHING},
    "pages/Skills.py": {},
    "pages/Train.py": {"set": [f"base.path={hostile.EVERYTHING}"]},
    "pages/Router.py": {},
    "pages/Geometry.py": {},
    "pages/States.py": {},
    "pages/Interference.py": {},
    "pages/Compare.py": {"temperature": hostile.IMAGE, "gates": hostile.EVERYTHING},
    "pages/Methods.py": {},
    "pages/Runs.py": {},
}


@pytest.fixture
def run(tmp_runs, fingerprint):
    """The only run that is not shipped; beside it a folder that is none."""
    (tmp_runs / f"{hostile.FOLDER} broken").mkdir()
    return hostile.hostile_run(tmp_runs, fingerprint)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_draws_a_foreign_text_as_markdown(open_app, run, page):
    app = open_app(page, run=run.name, prompt=hostile.EVERYTHING, **PAGES[page])
    assert hostile.not_drawn_as_text(app) == []
    # The control: the run is on the page, its texts are there, as they were written.
    assert run.name in texts(app)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("page", ["app.py", "pages/Compare.py", "pages/Train.py", "pages/Runs.py"])
def test_addresses_in_messages_are_texts(open_app, page):
    app = open_app(page, run=hostile.EVERYTHING)
    assert hostile.not_drawn_as_text(app) == []
    assert "![x](http" in texts(app)


@pytest.mark.parametrize(
    ("page", "part"),
    [
        ("pages/Router.py", {"pin": hostile.IMAGE}),
        ("pages/States.py", {"states-part": "Axes and targets"}),
        ("pages/Interference.py", {"i-part": "Pairs of gates"}),
        ("pages/Interference.py", {"i-part": "Your own prompt", "i-answer": hostile.IMAGE}),
        ("pages/Interference.py", {"i-part": "Training on one skill"}),
        ("pages/Train.py", {"train-part": "Answers and entropy"}),
    ],
)
def test_nor_does_any_part(open_app, run, page, part):
    app = open_app(page, run=run.name, prompt=hostile.EVERYTHING, **part)
    assert hostile.not_drawn_as_text(app) == []


def test_the_check_sees_what_it_looks_for():
    from streamlit.testing.v1 import AppTest

    def page(text):
        import streamlit as st_

        st_.button(text)
        st_.error(text)
        st_.html(text)
        st_.code(text)
        st_.button("fine", help=text)

    app = AppTest.from_function(page, args=(hostile.EVERYTHING,)).run()
    assert_no_bug(app)
    kinds = {found.partition(":")[0] for found in hostile.not_drawn_as_text(app)}
    assert kinds == {"button.label", "error.body", "html.body", "button.help"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain, 3.5 % of train.batch_size; it's (fine)!", None),
        ("![x](y)", r"\!\[x\](y)"),
        ("a*b_c_d _e_", r"a\*b_c_d \_e\_"),
        ("<b>&lt;</b>", r"\<b\>\&lt;\</b\>"),
        ("# a\n\n# b", r"\# a # b"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("`a` $b$ ~c~ |d| {e}", r"\`a\` \$b\$ \~c\~ \|d\| \{e\}"),
        ("C:\\a", r"C:\\a"),
        (":red[a]", r"\:red\[a\]"),
        (":smile: :material/home:", ":\u2060smile: :\u2060material/home:"),
        ("https://a.b www.a.b a@b.c", "https:\u2060//a.b www\u2060.a.b a\u2060@b.c"),
        ("rows.jsonl:12: 10:30:45", None),
        ("half \ud83d", "half ?"),
    ],
)
def test_a_text_without_markup(text, written):
    assert markup.plain(text) == (text if written is None else written)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a", "`a`"),
        ("", "` `"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("a\n\n![x](y)", "`a ![x](y)`"),
    ],
)
def test_a_text_as_code(text, written):
    assert markup.verbatim(text) == written
