"""Figures of interference hold the numbers of their tables."""

import pandas as pd
import pytest

from csreft_core.analysis.interference import tables as t
from csreft_core.charts import cells
from csreft_core.charts.interference import figures as c
from csreft_core.charts.theme import DARK, LIGHT

SETTINGS = pd.DataFrame(
    [
        ("a", "off", "run", 3.0, 0.0, 0.0, 0.0, 0.0, 5),
        ("a", "only:a", "run", 1.0, -2.0, -2.5, -1.5, 1.0, 5),
        ("a", "learned", "run", 1.5, -1.5, -1.75, -1.25, 0.8, 5),
        ("a", "oracle", "run", 1.0, -2.0, -2.5, -1.5, 1.0, 5),
        ("a", "run:loreft-0", "control", 4.0, 1.0, 0.5, 1.25, 0.0, 5),
        ("b", "off", "run", 2.0, 0.0, 0.0, 0.0, 0.0, 4),
        ("b", "only:a", "run", 6.0, 4.0, 3.0, 5.0, 0.0, 4),
        ("b", "learned", "run", 0.5, -1.5, -1.75, -1.25, 0.8, 4),
        ("b", "oracle", "run", 0.25, -1.75, -2.0, -1.5, 1.0, 4),
        ("b", "run:loreft-0", "control", 1.0, -1.0, -1.25, -0.5, 0.0, 4),
    ],
    columns=list(t.SETTING_COLUMNS[:-1]),
)
PAIRS = pd.DataFrame(
    [
        ("I_on", "a", "a", True, -2.0, -2.5, -1.5, 4.0, -0.5, 5),
        ("I_on", "a", "b", False, 1.0, 0.5, 1.5, 2.0, 0.5, 5),
        ("I_on", "b", "a", False, 0.001, 0.0, 0.002, 1.0, 0.001, 5),
    ],
    columns=list(t.PAIR_COLUMNS[:-1]),
)
REGRET = pd.DataFrame(
    [
        ("a", "learned", "run", 1.0, 0.75, 0.25, 0.125, 0.5, 5),
        ("a", "off", "control", 3.0, 0.75, 2.25, 2.0, 2.5, 5),
    ],
    columns=list(t.REGRET_COLUMNS[:-1]),
)
OVERLAP = pd.DataFrame(
    [
        ("r", "none", "a", "b", 0.5, 1.0, 0.75, 1.5, 5),
        ("s", "joint", "b", "a", 0.0, 2.0, 1.5, 2.5, 5),
    ],
    columns=list(t.OVERLAP_COLUMNS[:-1]),
)
SINGLE = pd.DataFrame(
    [
        ("run", "x", "a", "a", True, 4.0, 1.0, -3.0, -0.75, 7),
        ("run", "x", "a", "b", False, 2.0, 2.5, 0.5, 0.25, 7),
        ("control", "y", "a", "b", False, 2.0, 8.0, 6.0, 3.0, 7),
    ],
    columns=list(t.SINGLE_COLUMNS),
)
EXAMPLES = pd.DataFrame(
    [
        ("a", "only:b", "Say it.", "x" * 40, 1.0, 3.0, 2.0, "z"),
        ("a", "only:b", "Say it.", "y", 2.0, 0.5, -1.5, "y"),
    ],
    columns=list(t.EXAMPLE_COLUMNS),
)
ALL = [
    (c.setting_matrix, SETTINGS, {"gate setting", "prompts of skill"}),
    (c.pair_matrix, PAIRS, {"gate opened beside the own", "prompts of skill"}),
    (c.single_skill_matrix, SINGLE, {"trained on", "measured on"}),
    (c.bottleneck_bars, SETTINGS, {"loss that is left (nats per answer token)"}),
    (c.regret_bars, REGRET, {"regret (nats per answer token)"}),
    (
        c.overlap_scatter,
        OVERLAP,
        {"overlap of the subspaces (no unit, 0 to 1)", "I_on (nats per answer token)"},
    ),
    (c.example_shifts, EXAMPLES, {"loss (nats per answer token)", "right answer"}),
]
IDS = [chart.__name__ for chart, _, _ in ALL]


@pytest.mark.parametrize(("chart", "table", "titles"), ALL, ids=IDS)
def test_every_figure_asks_a_question_has_units_and_leaves_its_table_alone(chart, table, titles):
    before = table.copy(deep=True)
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.layout.template.layout.paper_bgcolor == palette.background
        found = [figure.layout[n].title.text for n in figure.layout if n[:5] in ("xaxis", "yaxis")]
        assert {text for text in found if text} == titles
        drawn = [trace for trace in figure.data if trace.hoverinfo != "skip"]
        assert all(trace.hovertemplate for trace in drawn)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("chart", "table", "titles"), ALL, ids=IDS)
def test_an_empty_table_gives_a_message(chart, table, titles):  # noqa: ARG001
    figure = chart(table.iloc[:0])
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


def test_the_matrix_shows_every_change_with_its_interval():
    figure = c.setting_matrix(SETTINGS, ["b", "a"])
    (heat,) = figure.data
    assert [list(row) for row in heat.z] == [[0, 0], [4, -2], [-1.5, -1.5], [-1.75, -2], [-1, 1]]
    assert heat.text[0][0] == "0"
    assert heat.text[1][0] == "+4.00<br><sub>+3.00 to +5.00</sub>"
    assert heat.text[1][1] == "−2.00<br><sub>−2.50 to −1.50</sub>"
    assert figure.layout.xaxis.ticktext == ("b", "a")
    assert figure.layout.yaxis.ticktext == (
        "off",
        "only a",
        "learned",
        "oracle",
        "control loreft-0",
    )
    assert list(heat.customdata[1][0]) == [6.0, 3.0, 5.0, 0.0, 4, "only a", "b"]


def test_colours_are_centred_at_zero():
    axis = c.setting_matrix(SETTINGS).layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-4.0, 0, 4.0)
    places = [place for place, _ in axis.colorscale]
    assert places[3] == 0.5
    assert [round(1 - place, 9) for place in reversed(places)] == places
    assert axis.colorscale[3][1] == cells.DIVERGING[3]
    nothing = c.setting_matrix(SETTINGS[SETTINGS["setting"] == "off"]).layout.coloraxis
    assert nothing.cmax == 1.0


def test_a_missing_cell_stays_empty_and_a_relative_one_has_its_own_unit():
    figure = c.pair_matrix(PAIRS)
    (heat,) = figure.data
    assert [list(row) for row in heat.z] == [[-2, 1], [0.001, None]]
    assert heat.text[1][1] == ""
    assert heat.text[1][0].startswith("+0.00")
    units = [note.text for note in figure.layout.annotations]
    assert units == ["change of loss (nats per answer token)"]
    relative = c.pair_matrix(PAIRS, relative=True)
    assert [list(row) for row in relative.data[0].z] == [[-0.5, 0.5], [0.001, None]]
    assert relative.data[0].text[0][0] == "−0.50"
    assert relative.layout.annotations[0].text == "change of loss / loss before (no unit)"


@pytest.mark.parametrize(("measure", "word"), [("I_on", "beside"), ("S", "alone"), ("A", "closed")])
def test_the_question_is_that_of_the_measure(measure, word):
    figure = c.pair_matrix(PAIRS.assign(measure=measure))
    assert word in figure.layout.yaxis.title.text
    questions = {c.pair_matrix(PAIRS.assign(measure=m)).layout.meta["question"] for m in t.MEASURES}
    assert len(questions) == 3


def test_single_skill_runs_and_their_control_have_a_panel_each():
    figure = c.single_skill_matrix(SINGLE, ["a", "b"])
    run, control = figure.data
    assert [list(row) for row in run.z] == [[-3.0, 0.5]]
    assert [list(row) for row in control.z] == [[6.0]]
    assert figure.layout.coloraxis.cmax == 6.0  # one scale for both
    assert len(c.single_skill_matrix(SINGLE[SINGLE["kind"] == "run"]).data) == 1
    relative = c.single_skill_matrix(SINGLE, relative=True)
    assert [list(row) for row in relative.data[1].z] == [[3.0]]


def test_the_bottleneck_has_learned_and_oracle_bars_only():
    figure = c.bottleneck_bars(SETTINGS, ["b", "a"])
    assert [(b.name, list(b.x), list(b.y)) for b in figure.data] == [
        ("learned", [0.5, 1.5], ["b", "a"]),
        ("oracle", [0.25, 1.0], ["b", "a"]),
    ]
    assert figure.data[0].marker.pattern.shape != figure.data[1].marker.pattern.shape
    assert not c.bottleneck_bars(SETTINGS[SETTINGS["setting"] != "oracle"]).data


def test_regret_and_overlap_carry_their_intervals():
    learned, off = c.regret_bars(REGRET).data
    assert (list(learned.x), list(off.x)) == ([0.25], [2.25])
    assert list(learned.text) == ["0.250 <sub>(0.125 to 0.500)</sub>"]
    one = c.regret_bars(REGRET.assign(low=float("nan"))).data[0]
    assert list(one.text) == ["0.250"]
    below = c.regret_bars(REGRET.assign(regret=[-0.5, 2.0])).layout.xaxis.range
    assert below[0] < -0.5
    figure = c.overlap_scatter(OVERLAP)
    points = {trace.name: trace for trace in figure.data}
    assert (list(points["r"].x), list(points["r"].y)) == ([0.5], [1.0])
    assert (points["r"].error_y.array[0], points["r"].error_y.arrayminus[0]) == (0.5, 0.25)
    assert points["r"].marker.symbol != points["s"].marker.symbol
    assert figure.layout.shapes[0].y0 == 0


def test_examples_join_before_and_after_and_shorten_long_answers():
    figure = c.example_shifts(EXAMPLES)
    points = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(points["off"].x) == [1.0, 2.0]
    assert list(points["only b"].x) == [3.0, 0.5]
    lines = [list(trace.x) for trace in figure.data if trace.mode == "lines"]
    assert lines == [[1.0, 3.0], [2.0, 0.5]]
    assert figure.layout.yaxis.ticktext == ("x" * 23 + "…", "y")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.004, "+0.00"), (-0.001, "−0.00"), (1.234, "+1.23"), (-123.4, "−123")],
)
def test_numbers_in_cells(value, text):
    assert cells.with_sign(value) == text
