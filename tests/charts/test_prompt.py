"""Figures of one prompt hold the numbers of their tables."""

import pandas as pd
import pytest

from csreft_core.analysis.interference import prompt as t
from csreft_core.charts.cells import DIVERGING
from csreft_core.charts.interference import prompt as c
from csreft_core.charts.theme import DARK, LIGHT

PATTERNS = pd.DataFrame(
    [
        ("q", "x", "000", "base", 0, "none", 0.0, -3.0),
        ("q", "x", "001", "pattern", 1, "plural", 2.0, -0.5),
        ("q", "x", "111", "pattern", 3, "french + category + plural", 4.0, -7.0),
        ("q", "x", "learned", "in use", -1, "learned", 1.5, -0.25),
    ],
    columns=list(t.PATTERN_COLUMNS),
)
SHAPLEY = pd.DataFrame(
    [("q", "x", "a", 2.0, 3.0, -4.0, -3.0), ("q", "x", "b", -1.0, -0.5, -4.0, -3.0)],
    columns=list(t.SHAPLEY_COLUMNS),
)
INTERACTIONS = pd.DataFrame(
    [("q", "x", "a", "b", -0.5), ("q", "x", "a", "c", 0.25), ("q", "x", "b", "c", 0.0)],
    columns=list(t.INTERACTION_COLUMNS),
)
TOKENS = pd.DataFrame(
    [
        ("q", "dogs", 3, 1, 2, 0.25, 0.9),
        ("q", "dog", 1, 2, -1, 0.5, 0.05),
        ("q", " ", 2, 3, -1, 0.3, 0.01),
        ("q", "cat", 4, 4, 0, 0.01, 0.01),
    ],
    columns=list(t.TOKEN_COLUMNS),
)
ALL = [
    (c.pattern_answers, PATTERNS, {"log-probability of the answer (nats)", "open gates"}),
    (c.pattern_divergences, PATTERNS, {"KL to the base (nats)", "open gates"}),
    (c.shapley_bars, SHAPLEY, {"change of the answer's log-probability (nats)"}),
    (c.interaction_matrix, INTERACTIONS, {"gate"}),
    (c.token_ranks, TOKENS, {"probability of the next token (0 to 1)"}),
]
IDS = [chart.__name__ for chart, _, _ in ALL]


@pytest.mark.parametrize(("chart", "table", "titles"), ALL, ids=IDS)
def test_every_figure_asks_a_question_has_units_and_leaves_its_table_alone(chart, table, titles):
    before = table.copy(deep=True)
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
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


@pytest.mark.parametrize(
    ("chart", "column"), [(c.pattern_answers, "log_probability"), (c.pattern_divergences, "kl")]
)
def test_patterns_stand_in_the_order_of_the_answer(chart, column):
    figure = chart(PATTERNS)
    order = ["learned", "plural", "none", "fren + cate + plur"]
    assert list(figure.layout.yaxis.ticktext) == order
    drawn = {}
    for trace in figure.data:
        for x, y in zip(trace.x, trace.y, strict=True):
            drawn[figure.layout.yaxis.ticktext[int(y)]] = x
    expected = PATTERNS.sort_values("log_probability", ascending=False)[column].tolist()
    assert [drawn[label] for label in order] == expected
    assert len({trace.marker.symbol for trace in figure.data}) == 3


def test_shapley_bars_stand_beside_the_effect_alone():
    bars, alone = c.shapley_bars(SHAPLEY, ["b", "a"]).data
    assert (list(bars.y), list(bars.x), list(alone.x)) == (["b", "a"], [-1.0, 2.0], [-0.5, 3.0])
    assert list(bars.text) == ["−1.000", "+2.000"]
    low, high = c.shapley_bars(SHAPLEY).layout.xaxis.range
    assert low < -1.0
    assert high > 3.0


def test_interactions_are_mirrored_and_the_diagonal_is_empty():
    (heat,) = c.interaction_matrix(INTERACTIONS, ["a", "b", "c"]).data
    assert [list(row) for row in heat.z] == [
        [None, -0.5, 0.25],
        [-0.5, None, 0.0],
        [0.25, 0.0, None],
    ]
    assert heat.text[1][2] == "0"
    scale = c.interaction_matrix(INTERACTIONS).layout.coloraxis.colorscale
    assert scale[-1][1] == DIVERGING[0]  # above 0 helps the answer: blue, as everywhere


def test_tokens_have_ranks_and_arrows():
    figure = c.token_ranks(TOKENS)
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == ["dogs  3→1 ↑2", "dog  1→2 ↓1", "' '  2→3 ↓1", "cat  4→4 ="]
    points = {trace.name: list(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert points["without the adapter"] == [0.25, 0.5, 0.3, 0.01]
    assert points["with the adapter"] == [0.9, 0.05, 0.01, 0.01]
