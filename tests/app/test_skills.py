"""The Skills page: choice, uploads, mapping, figures, edits, and the code that it shows."""

import io
import json
import shlex
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import streamlit as st
from pandas.testing import assert_frame_equal

from csreft_core.__main__ import main
from csreft_core.app.page import widgets
from csreft_core.app.skills import panels as skills
from csreft_core.app.skills import rows as skill_rows
from csreft_core.app.skills.panels import PARTS
from csreft_core.app.skills.uploads import keep, open_upload, skill_set_of, uploads_folder
from csreft_core.skills.skill_set import as_csv, as_jsonl, read_skills
from tests.app.broken_files import broken_files
from tests.app.test_train import LINES
from tests.page_runs import assert_no_bug, n_charts, texts

PAGE = "pages/Skills.py"
# A fault of each kind; all of them go through the same function in tests/app/test_uploads.py.
FEW = ("csv: a cell too few", "csv: zip bomb in disguise", "jsonl: pickle 4", "name: up")

pytestmark = pytest.mark.usefixtures("tmp_runs")


@pytest.fixture
def own() -> str:
    """The path of a kept skill set with a leak, a long row and unknown words."""
    more = [
        {
            "skill": "plural",
            "prompt": "what is the plural of Dog",
            "response": "dogs",
            "split": "test_items",
        },
        {"skill": "wug", "prompt": "wug " * 40, "response": "blick", "split": "train"},
    ]
    rows = [json.loads(line) | {"split": "train"} for line in LINES.splitlines()]
    data = "\n".join(map(json.dumps, rows + more)).encode()
    return str(keep(skill_set_of(open_upload("x.jsonl", data))))


def upload(app, name: str, data: bytes):
    app.segmented_control(key="skill-set").set_value("own").run()
    app.file_uploader(key="upload").upload(name, data).run()
    assert_no_bug(app)
    return app


def html_of(app) -> str:
    return "\n".join(str(element.proto.body) for element in app.get("html"))


@pytest.mark.fast
@pytest.mark.usefixtures("no_examples")
def test_a_first_visit_shows_the_shipped_skills(open_app):
    app = open_app(PAGE)
    said = texts(app)
    assert "Balanced: every skill has 600 rows" in said
    assert n_charts(app) == 1
    for name in ("french", "category", "plural", "spelling"):
        assert name in html_of(app)
    assert not app.error


@pytest.mark.parametrize(
    ("part", "headings"),
    [
        (PARTS[0], ["Is it balanced?", "Can the base write every answer?"]),
        (
            PARTS[1],
            [
                "Am I training on the right tokens?",
                "What will be cut?",
                "Can the base read every word?",
            ],
        ),
        (PARTS[2], ["Is there leakage?", "Are two skills the same thing?"]),
        (PARTS[3], []),
    ],
)
def test_each_part_has_its_questions_and_stands_in_the_address(open_app, own, part, headings):
    app = open_app(PAGE, **{"skills-part": part, "set": [f"data.path={own}"]})
    assert [heading.value for heading in app.subheader] == headings
    assert not app.error


def test_a_set_with_faults_shows_them(open_app, own):
    settings = [f"data.path={own}", "train.max_length=20"]
    seen = texts(open_app(PAGE, **{"skills-part": PARTS[1], "set": settings}))
    assert "Longer than 20 tokens: 1 of 22 rows (1 in train" in seen
    assert "“wug”" in seen
    leaks = texts(open_app(PAGE, **{"skills-part": PARTS[2], "set": settings}))
    assert "Leakage: a training row asks the same as 1 of 1 test rows." in leaks
    assert "The 2 rows with a twin" in {
        e.label for e in open_app(PAGE, **{"skills-part": PARTS[2], "set": settings}).expander
    }


def test_the_choice_is_that_of_the_train_page(open_app):
    app = open_app(PAGE)
    app.segmented_control(key="skill-set").set_value("six").run()
    assert_no_bug(app)
    assert "data.path=six" in app.query_params["set"]
    app.switch_page("pages/Train.py").run()
    assert_no_bug(app)
    assert app.segmented_control(key="skill-set").value == "six"
    assert open_app("pages/Train.py").segmented_control(key="skill-set").value == "four"


def test_settings_that_do_not_fit_and_a_missing_set_are_said(open_app):
    app = open_app(PAGE, set=["train.max_length=1"])
    assert any("train.max_length" in error.value for error in app.error)
    app = open_app(PAGE, set=["data.path=/etc/passwd"])
    assert any("not given on this page" in error.value for error in app.error)
    app = open_app(PAGE, set=["data.path=runs/.uploads/none.jsonl"])
    assert len(app.error) == 1
    assert n_charts(app) == 0
    assert any("Choose a shipped skill set" in info.value for info in app.info)


def test_a_base_that_cannot_be_read_leaves_the_other_figures(open_app):
    settings = ["base.path=./none"]
    app = open_app(PAGE, **{"skills-part": PARTS[1], "set": settings})
    assert any("no folder with a config.json" in error.value for error in app.error)
    app = open_app(PAGE, set=settings)
    assert not app.error
    assert n_charts(app) == 1


@pytest.mark.parametrize("case", FEW)
def test_a_broken_file_is_refused_and_what_was_chosen_stays(open_app, tmp_path, case):
    broken = broken_files(tmp_path / "exploded")[case]
    app = upload(open_app(PAGE), "good.jsonl", LINES.encode())
    assert not app.error
    before = list(app.query_params["set"]), sorted(tmp_path.rglob("*"))
    app.file_uploader(key="upload").upload(broken.name, broken.data).run()
    assert_no_bug(app)
    assert len(app.error) == 1
    assert "What was chosen before stays." in app.error[0].value
    assert (list(app.query_params["set"]), sorted(tmp_path.rglob("*"))) == before
    app.file_uploader(key="upload").upload(broken.sound_name, broken.sound).run()
    assert_no_bug(app)
    assert not app.error


def test_other_columns_are_mapped_with_a_preview(open_app):
    data = "frage;antwort\n".replace(";", ",") + "".join(f"p{i},r{i}\n" for i in range(8))
    app = upload(open_app(PAGE), "x.csv", data.encode())
    assert "Columns: say what they mean" in [e.label for e in app.expander]
    assert app.button(key="map-use").disabled
    app.selectbox(key="map-Prompt").select("frage").run()
    app.selectbox(key="map-Response").select("antwort").run()
    app.selectbox(key="map-Skill").select("one skill for the whole file").run()
    app.text_input(key="map-one").set_value("plural").run()
    preview = app.dataframe[0].value
    assert preview["prompt"].tolist() == [f"p{i}" for i in range(5)]
    assert preview["skill"].unique().tolist() == ["plural"]
    app.button(key="map-use").click().run()
    assert_no_bug(app)
    assert not app.error
    (kept,) = uploads_folder().iterdir()
    skill_set = read_skills(str(kept))
    assert skill_set.names == ("plural",)
    assert [row.response for row in skill_set.rows] == [f"r{i}" for i in range(8)]
    app.selectbox(key="map-Response").select("frage").run()
    app.selectbox(key="map-Split").select("antwort").run()
    assert_no_bug(app)
    assert any("field" in error.value and "antwort" in error.value for error in app.error)


def test_pasted_csv_is_read(open_app):
    app = open_app(PAGE)
    app.segmented_control(key="skill-set").set_value("own").run()
    app.text_area(key="pasted").set_value("frage;antwort\ndog?;dogs\n").run()
    assert "Columns: say what they mean" in [e.label for e in app.expander]
    app.text_area(key="pasted").set_value("prompt,response\ndog?,dogs\n").run()
    assert_no_bug(app)
    assert not app.error
    assert "unlabelled" in html_of(app)


def test_what_is_not_used_of_a_file_is_said(open_app):
    app = upload(open_app(PAGE), "x.jsonl", b'{"prompt": "p", "response": "r", "note": "lost?"}')
    assert not app.error
    said = "x.jsonl:1: the field 'note' is not used"
    assert [code.value for code in app.code if code.value == said] == [said]


def test_a_first_line_that_is_a_row_can_be_kept(open_app):
    app = upload(open_app(PAGE), "x.csv", b"dog?,dogs\ncat?,cats\n")
    app.checkbox(key="map-no-header").check().run()
    app.selectbox(key="map-Prompt").select("column 1").run()
    app.selectbox(key="map-Response").select("column 2").run()
    app.button(key="map-use").click().run()
    assert_no_bug(app)
    assert not app.error
    (kept,) = uploads_folder().iterdir()
    assert [row.response for row in read_skills(str(kept)).rows] == ["dogs", "cats"]


def edit(monkeypatch, change):
    """As if the user had edited the table; the harness cannot type into it."""
    monkeypatch.setattr(st, "data_editor", lambda frame, **_: change(frame.copy()))


def test_an_edit_is_saved_as_a_new_file(open_app, own, monkeypatch):
    before = Path(own).read_bytes()
    frame = skill_rows.as_frame(read_skills(own))
    edit(monkeypatch, lambda f: pd.concat([f.iloc[1:], f.iloc[:1].assign(prompt="new one")]))
    app = open_app(PAGE, **{"skills-part": PARTS[3], "set": [f"data.path={own}"]})
    app.button(key="edit-save").click().run()
    assert_no_bug(app)
    assert not app.error
    assert Path(own).read_bytes() == before
    (new,) = [path for path in uploads_folder().iterdir() if path.name not in own]
    assert new.stem in str(app.query_params["set"])
    rows = read_skills(str(new)).rows
    assert [row.prompt for row in rows] == [*frame["prompt"][1:], "new one"]


def test_a_wrong_edit_names_row_and_column_and_saves_nothing(open_app, own, monkeypatch):
    def spoil(frame):
        frame.loc[2, "response"] = ""
        return frame

    edit(monkeypatch, spoil)
    app = open_app(PAGE, **{"skills-part": PARTS[3], "set": [f"data.path={own}"]})
    app.button(key="edit-save").click().run()
    assert_no_bug(app)
    assert any("Row 3: field 'response' is empty" in error.value for error in app.error)
    assert len(list(uploads_folder().iterdir())) == 1


def test_without_an_edit_there_is_nothing_to_save(open_app, own, monkeypatch):
    edit(monkeypatch, lambda frame: frame)
    app = open_app(PAGE, **{"skills-part": PARTS[3], "set": [f"data.path={own}"]})
    assert app.button(key="edit-save").disabled
    large = open_app(PAGE, **{"skills-part": PARTS[3]})
    assert "edit-save" not in {button.key for button in large.button}
    assert "4,400 rows" in texts(large)


def test_downloads_are_read_again(tmp_path, own):
    skill_set = read_skills(own)
    pairs = read_skills("two_skills")
    for n, one in enumerate((skill_set, pairs)):
        for write, ending in ((as_jsonl, "jsonl"), (as_csv, "csv")):
            path = tmp_path / f"{n}.{ending}"
            path.write_text(write(one.rows), encoding="utf-8")
            assert read_skills(str(path)) == one


@pytest.mark.parametrize("part", PARTS[:3])
def test_code_and_command_make_the_table_of_the_page(
    open_app, own, part, monkeypatch, capsys, tmp_path
):
    tables: dict[str, pd.DataFrame] = {}
    show_data = widgets.show_data

    def noted(table, name, *args, **kwargs):
        tables[name] = table
        show_data(table, name, *args, **kwargs)

    monkeypatch.setattr(widgets, "show_data", noted)
    monkeypatch.setattr(skills, "show_data", noted)
    settings = [f"data.path={own}", "train.max_length=20", "train.batch_size=4"]
    app = open_app(PAGE, **{"skills-part": part, "set": settings})
    for name in tables:
        app.session_state[f"data-{name}"] = True
    app.run()
    assert_no_bug(app)
    figures = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: figures.append(figure))
    monkeypatch.chdir(tmp_path)
    codes = [code.value for code in app.code if code.language == "python"]
    commands = [code.value for code in app.code if code.language == "bash"]
    assert len(commands) == len(tables) >= len(codes) > 0
    for command, table in zip(commands, tables.values(), strict=True):
        capsys.readouterr()
        words = shlex.split(command)
        assert words[:4] == ["python", "-m", "csreft_core", "check-skills"]
        assert main(words[3:]) == 0
        printed = pd.read_csv(io.StringIO(capsys.readouterr().out))
        expected = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        assert_frame_equal(printed, expected, check_dtype=False)
    pages = 0
    for code in codes:
        namespace: dict = {}
        exec(code, namespace)  # the code as it is printed
        pages += "write_text" in code
        assert any(namespace["table"].equals(table) for table in tables.values())
    assert len(figures) == len(codes) - pages
    assert len(list(tmp_path.glob("*.html"))) == pages


def test_the_command_reports_all_tables_in_words_and_as_json(capsys, own):
    assert main(["check-skills", own]) == 0
    said = capsys.readouterr().out
    assert "no token for" in said
    assert "Leakage: " in said
    assert main(["check-skills", own, "--json", "--set", "train.batch_size=2"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert len(tables["skills"]) == 3
    assert {row["example"] for row in tables["batch"]} == {1, 2}
    for wrong, words in (
        (["--table", "nope"], "choose one of skills, counts"),
        (["--csv"], "--table"),
        (["--table", "batch", "--step=-1"], "--step is -1"),
        (["--set", "train.max_length=1"], "train.max_length"),
    ):
        assert main(["check-skills", own, *wrong]) == 2
        assert words in capsys.readouterr().err
