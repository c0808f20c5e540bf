"""Figures of what each token does to the gates."""

import numpy as np
import pandas as pd
import pytest

from csreft_core.charts.gates import words
from csreft_core.charts.theme import DARK, LIGHT

TOKENS = (("<bos>", "special"), ("dog", "word"), ("dog", "word"))


def table(prompt="p"):
    rows = []
    for position, (token, kind) in enumerate(TOKENS):
        for i, name in enumerate(("a", "b")):
            start, x = (prompt, position, token, kind, name), 0.25 * position - 0.5 * i
            rows += [
                (*start, "occlusion", "gate", x, 0.25 + 0.5 * i, 0.25 + 0.5 * i - x),
                (*start, "occlusion", "logit", 10 * x, 4.0, 4.0 - 10 * x),
                (*start, "integrated gradients", "logit", 100 * x, 4.0, 1.0),
            ]
    columns = [
        "prompt",
        "position",
        "token",
        "kind",
        "subspace",
        "method",
        "quantity",
        "value",
        "full",
        "reference",
    ]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("chart", [words.word_map, words.word_bars])
def test_every_figure_asks_a_question_and_leaves_its_table(chart):
    found = table()
    for palette in (LIGHT, DARK):
        figure = chart(found, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert all(trace.hovertemplate for trace in figure.data)
    pd.testing.assert_frame_equal(found, table())
    nothing = chart(found.iloc[:0])
    assert not nothing.data
    assert len(nothing.layout.annotations[0].text) > 10


def test_the_map_prints_the_change_of_each_gate():
    figure = words.word_map(table(), ["b", "a"])
    (cells,) = figure.data
    assert np.asarray(cells.z).tolist() == [[-0.5, 0.0], [-0.25, 0.25], [0.0, 0.5]]
    assert np.asarray(cells.text).tolist() == [["-0.50", "0"], ["-0.25", "+0.25"], ["0", "+0.50"]]
    assert (cells.zmin, cells.zmax) == (-1, 1)
    assert cells.customdata[1][0] == "without dog: gate b is 1.0000, not 0.7500"
    assert list(figure.layout.yaxis.tickvals) == [0, 1, 2]
    assert list(figure.layout.yaxis.ticktext) == ["<i>[&lt;bos&gt;]</i>", "dog", "dog"]


def test_the_bars_are_those_of_one_gate_by_both_methods():
    def bars(figure):
        return {(t.xaxis, t.legendgroup): dict(zip(t.y, t.x, strict=True)) for t in figure.data}

    strongest = bars(words.word_bars(table()))  # b: its gate is 0.75
    assert strongest["x", "word"] == {1: -2.5, 2: 0.0}
    assert strongest["x", "template"] == {0: -5.0}
    assert strongest["x2", "word"] == {1: -25.0, 2: 0.0}
    chosen = words.word_bars(table(), "a")
    assert bars(chosen)["x", "word"] == {1: 2.5, 2: 5.0}
    assert chosen.layout.meta["question"] == "Which words count for the gate a?"


def test_only_the_first_prompt_is_drawn():
    both = pd.concat([table(), table("q").assign(value=9.0)])
    assert np.asarray(words.word_map(both).data[0].z).max() == 0.5
