"""The figures of the Compare page hold their tables' numbers, and say when there is nothing."""

import pandas as pd
import pytest

from csreft_core.charts import answers
from csreft_core.charts.theme import DARK, LIGHT

NEXT = pd.DataFrame(
    [
        ("p", "base", "a", 1, 0.5, 1, 0.5, 1, "same"),
        ("p", "this run", " b", 2, 0.75, 1, 0.0, 40, "new"),
        ("p", "this run", "<c>\n", 3, 0.125, 2, 0.25, 2, "same"),
        ("p", "this run", "a", 1, 0.0625, 3, 0.5, 1, "down"),
        ("p", "manual gates", "a", 1, 0.5, 1, 0.5, 2, "up"),
        ("q", "this run", "z", 9, 1.0, 1, 1.0, 1, "same"),
    ],
    columns=[
        "prompt",
        "column",
        "token",
        "token_id",
        "probability",
        "rank",
        "base_probability",
        "base_rank",
        "change",
    ],
)
DOSE = pd.DataFrame(
    [
        ("p", "s", -1.0, "", "known answer", "x", -8.0, "x", 0.125),
        ("p", "s", 0.75, "router", "known answer", "x", -1.0, "x", 0.5),
        ("p", "s", 2.0, "now", "known answer", "x", -2.0, "x", 0.25),
        ("p", "s", -1.0, "", "base's answer", "<y>", -1.0, "<y>", 0.75),
        ("p", "s", 0.75, "router", "base's answer", "<y>", -3.0, "<y>", 0.5),
        ("p", "s", 2.0, "now", "base's answer", "<y>", -4.0, "<y>", 0.0),
        ("q", "s", 0.0, "", "known answer", "z", -5.0, "z", 0.0),
    ],
    columns=[
        "prompt",
        "subspace",
        "gate",
        "mark",
        "kind",
        "answer",
        "log_probability",
        "first_token",
        "first_probability",
    ],
)
ALL = [(answers.next_tokens, NEXT), (answers.dose_curve, DOSE)]


@pytest.mark.parametrize(("chart", "table"), ALL)
def test_every_figure_asks_a_question_and_leaves_its_table_alone(chart, table):
    before = table.copy(deep=True)
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.layout.template.layout.paper_bgcolor == palette.background
    assert all(trace.hovertemplate for trace in figure.data if trace.hoverinfo != "skip")
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("chart", "table"), ALL)
def test_an_empty_table_gives_a_figure_with_a_message(chart, table):
    figure = chart(table.iloc[:0])
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


def test_next_tokens_holds_the_probabilities_of_the_first_prompt():
    figure = answers.next_tokens(NEXT)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(t.name, list(t.x)) for t in points] == [
        ("base", [1e-6, 0.25, 0.5]),  # a probability of 0 has no place on a log scale
        ("this run", [0.75, 0.125, 0.0625]),
        ("base", [0.5]),
        ("manual gates", [0.5]),
    ]
    assert list(figure.layout.yaxis.ticktext) == ["␣b", "&lt;c>⏎", "a"]
    labels = [a.text for a in figure.layout.annotations]
    assert labels == [
        "base → this run",
        "base → manual gates",
        "✦ 40 → 1",
        "= 2",
        "▼ 1 → 3",
        "▲ 2 → 1",
    ]
    assert "0.000000 → 0.750000<br>rank 40 → 1 (new)" in points[1].hovertext[0]
    assert points[1].marker.symbol != points[3].marker.symbol
    axes = [figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text]
    assert axes == [None, "probability (log scale)"]


def test_next_tokens_shows_the_columns_that_are_asked_for():
    figure = answers.next_tokens(NEXT, ("manual gates", "nobody"))
    assert [t.name for t in figure.data if t.mode == "markers"] == ["base", "manual gates"]
    assert not answers.next_tokens(NEXT, ()).data


def test_dose_curve_holds_both_panels_and_marks_the_gates():
    figure = answers.dose_curve(DOSE)
    lines = [t for t in figure.data if t.mode == "lines"]
    assert [(t.name, list(t.x), list(t.y)) for t in lines] == [
        ("known answer: x", [-1, 0.75, 2], [-8, -1, -2]),
        ("known answer: x", [-1, 0.75, 2], [0.125, 0.5, 0.25]),
        ("base's answer: &lt;y>", [-1, 0.75, 2], [-1, -3, -4]),
        ("base's answer: &lt;y>", [-1, 0.75, 2], [0.75, 0.5, 0]),
    ]
    assert {t.line.dash for t in lines} == {"solid", "dash"}
    marks = [(t.name, t.marker.symbol, *t.x, *t.y) for t in figure.data if t.mode == "markers"]
    assert marks[:2] == [
        ("the run's own gate", "star", 0.75, -1),
        ("the manual gate", "diamond", 2, -2),
    ]
    assert len(marks) == 8
    assert [t.name for t in figure.data if t.showlegend] == [
        "known answer: x",
        "the run's own gate",
        "the manual gate",
        "base's answer: &lt;y>",
    ]
    assert {shape.x0 for shape in figure.layout.shapes} == {0, 1}
    titles = {figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text}
    assert titles == {"log-probability (nats)", "first token (probability)"}
    assert figure.layout.xaxis2.title.text == "gate of s (beyond 0 to 1: extrapolation)"
    inside = answers.dose_curve(DOSE[DOSE["gate"] == 0.75])
    assert not inside.layout.shapes
