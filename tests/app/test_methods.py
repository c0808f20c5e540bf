"""The Methods page: nothing there yet, a comparison of one's own, every tab, the address."""

import io
import shlex

import pandas as pd
import plotly.graph_objects as go
import pytest
from pandas.testing import assert_frame_equal

from csreft_core.__main__ import main
from csreft_core.app import methods
from csreft_core.comparison import folder as comparison_module
from tests.compared import METHODS, made_up_comparison
from tests.page_runs import assert_no_bug, n_charts, opened_parts, texts

PAGE = "pages/Methods.py"


@pytest.fixture(autouse=True)
def _nothing_shipped(monkeypatch, tmp_path, tmp_runs):  # noqa: ARG001 - an empty runs folder
    monkeypatch.setattr(comparison_module, "SHIPPED_COMPARISONS", tmp_path / "none")


@pytest.fixture
def made_up(tmp_runs):
    return made_up_comparison(tmp_runs / "mine", failed=(("olora", 3),))


@pytest.mark.fast
def test_without_a_comparison_the_page_says_which_command_makes_one(open_app):
    app = open_app(PAGE)
    assert "No comparison is there yet" in texts(app)
    assert n_charts(app) == 0
    words = shlex.split(app.code[0].value)
    assert words[:4] == ["python", "-m", "csreft_core", "compare"]
    # The command is one that the program takes: it stops at the last argument, which is wrong.
    assert main([*words[3:], "--methods", "nothing"]) == 2


@pytest.mark.usefixtures("made_up")
def test_every_part_draws_its_figures_and_says_what_they_show(open_app):
    pages = opened_parts(open_app, PAGE, "m-part", methods.PARTS)
    for app in pages.values():
        assert_no_bug(app)
        assert not app.error
        assert "O-LoRA (1)" in texts(app)
    counts = {part: n_charts(app) for part, app in pages.items()}
    assert counts == {
        methods.QUALITY: 2,
        methods.INTERFERENCE: 2,
        methods.SEQUENCE: 2,
        methods.COST: 1,
        methods.TABLE: 0,
    }
    assert "CS-ReFT is number 1 of 4 with 90.2%" in texts(pages[methods.QUALITY])
    assert "The largest harm" in texts(pages[methods.INTERFERENCE])
    assert "french, learned first, has lost" in texts(pages[methods.SEQUENCE])
    table = pages[methods.TABLE].dataframe[-1].value
    assert table["name"].tolist() == ["CS-ReFT", "LoReFT (shared)", "LoRA", "O-LoRA"]
    assert table["seeds"].tolist() == [5, 5, 5, 4]
    assert table["failed"].tolist() == [0, 0, 0, 1]


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("part", "names"),
    [
        (methods.QUALITY, ("methodquality", "methodparameters")),
        (methods.INTERFERENCE, ("methodmatrices", "methodharm")),
        (methods.SEQUENCE, ("methodsequence", "methodforgetting")),
    ],
)
def test_the_shown_code_and_command_make_the_shown_table(
    open_app, part, names, capsys, monkeypatch
):
    monkeypatch.setattr(go.Figure, "show", lambda figure: figure)
    app = open_app(PAGE, folded=[f"data-{name}" for name in names], **{"m-part": part})
    codes = [code.value for code in app.code if code.language == "python"]
    commands = [code.value for code in app.code if " judge " in code.value]
    assert len(codes) == len(commands) == len(names)
    for code, command in zip(codes, commands, strict=True):
        namespace: dict = {}
        exec(code, namespace)  # the code as it is printed
        capsys.readouterr()
        assert main(shlex.split(command)[3:]) == 0
        printed = pd.read_csv(io.StringIO(capsys.readouterr().out))
        made = pd.read_csv(io.StringIO(namespace["table"].to_csv(index=False)))
        assert_frame_equal(printed, made, check_dtype=False)
        assert any(same(shown.value, namespace["table"]) for shown in app.dataframe)


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return list(one) == list(other) and len(one) == len(other)


@pytest.mark.usefixtures("made_up")
def test_the_choice_of_methods_stays_in_the_address(open_app):
    app = open_app(PAGE, **{"m-part": methods.INTERFERENCE, "drawn": "lora,nonsense"})
    assert app.multiselect(key="drawn-methods").value == ["lora"]
    (told,) = [found.value for found in app.markdown if "The largest harm" in found.value]
    assert told.startswith("What the other skills lose of their exact match, on average: LoRA +39")
    assert "LoReFT (shared)" not in told
    app.multiselect(key="drawn-methods").set_value(["csreft", "lora"]).run()
    assert_no_bug(app)
    assert app.query_params["drawn"] in ("csreft,lora", ["csreft,lora"])
    app.multiselect(key="drawn-methods").set_value(list(METHODS)).run()
    assert "drawn" not in app.query_params


@pytest.mark.usefixtures("made_up")
def test_two_skills_at_once_are_a_measure_of_their_own(open_app):
    app = open_app(PAGE, **{"m-quality": "two_skills"})
    assert not app.error
    assert "with 0.0%" in texts(app)


def test_a_broken_comparison_is_left_out_and_a_broken_cell_is_a_message(open_app, made_up):
    (made_up.cell_path("lora", 0) / "result.json").write_text("{", encoding="utf-8")
    app = open_app(PAGE)
    assert [("result.json" in e.value, "delete it" in e.value) for e in app.error] == [(True, True)]
    (made_up.path / "comparison.json").write_text("{", encoding="utf-8")
    assert "No comparison is there yet" in texts(open_app(PAGE))
