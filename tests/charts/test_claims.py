"""The figure of one vector's memory: its lines are the shares of the table."""

import pandas as pd

from csreft_core.analysis.claims.sentences import sentence_memory
from csreft_core.charts.claims.memorisation import memory_lines

TABLE = pd.DataFrame(
    [
        (kind, layer, n, share, share - 0.1, share + 0.1, 5, 129)
        for layer in (1, 3)
        for n, shares in ((4, (1.0, 0.9, 0.8)), (32, (0.5, 0.25, 0.125)))
        for kind, share in zip(("text", "scrambled", "random"), shares, strict=True)
    ],
    columns=["kind", "layer", "tokens", "share", "low", "high", "seeds", "parameters"],
)


def test_each_kind_is_a_line_with_intervals():
    figure = memory_lines(TABLE)
    assert [line.name for line in figure.data] == [
        "text",
        "its words in random order",
        "random words",
    ]
    scrambled = figure.data[1]
    assert list(scrambled.x) == [4, 32]
    assert list(scrambled.y) == [0.9, 0.25]
    assert list(scrambled.error_y.array.round(9)) == [0.1, 0.1]
    assert list(scrambled.error_y.arrayminus.round(9)) == [0.1, 0.1]
    looks = {(line.line.color, line.line.dash, line.marker.symbol) for line in figure.data}
    assert len(looks) == 3
    assert "129 parameters" in figure.layout.meta["alt"]


def test_an_empty_table_says_so():
    figure = memory_lines(TABLE.iloc[:0])
    assert "No text was learned yet." in str(figure.layout.annotations)


def test_the_sentence_is_about_the_longest_text_of_the_first_layer():
    text = sentence_memory(TABLE)
    assert "129 parameters at layer 1 gives back 50% of a text of 32 tokens" in text
    assert "25% of its words in random order and 12% of random words" in text
