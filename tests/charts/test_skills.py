"""Figures about a skill set: what is drawn is what the table holds."""

import html
import re

import numpy as np
import pandas as pd
import pytest

from csreft_core.charts.skills import batch as skill_batch
from csreft_core.charts.skills import figures as skills
from csreft_core.charts.theme import DARK, LIGHT

COUNTS = pd.DataFrame(
    [("a", "train", 600), ("a", "test_items", 20), ("b", "train", 30), ("b", "test_items", 0)],
    columns=["skill", "split", "n"],
)
LENGTHS = pd.DataFrame({"tokens": [3, 4, 4, 9, 12, 12], "limit": 9, "split": "train"})
LEAKS = pd.DataFrame(
    [
        ("train", "train", 10, 2, 1, 0),
        ("train", "test_items", 10, 0, 0, 0),
        ("test_items", "train", 4, 1, 2, 3),
        ("test_items", "test_items", 4, 0, 0, 0),
    ],
    columns=["split", "other", "n", "exact", "near", "conflicts"],
)
ALIKE = pd.DataFrame(
    [("a", "a", 0.5, 3, 3), ("a", "b", 0.25, 3, 2), ("b", "a", 0.25, 2, 3), ("b", "b", 0.75, 2, 2)],
    columns=["skill", "other", "similarity", "n", "n_other"],
)
BATCH = pd.DataFrame(
    [
        (1, "a", 1, "<pad>", 0, "padding", False, False),
        (1, "a", 2, " <script>", 7, "prompt", False, True),
        (1, "a", 3, "x\n", 8, "answer", True, False),
        (2, "b", 1, "q", 9, "prompt", False, False),
        (2, "b", 2, "r", 9, "prompt", False, True),
        (2, "b", 3, "s", 10, "answer", True, True),
    ],
    columns=["example", "skill", "column", "token", "token_id", "part", "in_loss", "edited"],
)
ALL = [
    (skills.balance_bars, COUNTS),
    (skills.length_histogram, LENGTHS),
    (skills.leak_map, LEAKS),
    (skills.similarity_map, ALIKE),
]


@pytest.mark.parametrize(("chart", "table"), ALL)
def test_every_figure_asks_a_question_and_an_empty_table_gives_a_message(chart, table):
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
    nothing = chart(table.iloc[:0])
    assert len(nothing.data) == 0
    assert nothing.layout.annotations[0].text


def test_bars_are_the_counts_in_the_colours_of_the_skills():
    figure = skills.balance_bars(COUNTS, names=["b", "a"])
    bars = {bar.customdata or i: bar for i, bar in enumerate(figure.data) if bar.x[0] is not None}
    assert [list(bar.x) for bar in bars.values()] == [[30, 600], [0, 20]]
    assert [list(bar.y) for bar in bars.values()] == [["b", "a"]] * 2
    assert all(list(bar.marker.color) == list(LIGHT.colours[:2]) for bar in bars.values())
    legend = [bar for bar in figure.data if bar.showlegend is not False]
    assert [bar.name for bar in legend] == ["train", "test_items"]
    patterns = [bar.marker.pattern.shape for bar in bars.values()]
    assert patterns == [bar.marker.pattern.shape for bar in legend]
    assert len(set(patterns)) == 2


def test_a_bar_of_the_histogram_never_crosses_the_cut():
    figure = skills.length_histogram(LENGTHS)
    fits, cut = figure.data
    assert dict(zip(fits.x, fits.y, strict=True))[4] == 2
    assert (sum(fits.y), sum(cut.y)) == (4, 2)
    assert max(fits.x) <= 9 < min(cut.x)
    assert figure.layout.shapes[0].x0 == 9.5
    rng = np.random.default_rng(0)
    for limit in (37, 200, 512):
        tokens = rng.integers(5, 900, 500)
        many = skills.length_histogram(pd.DataFrame({"tokens": tokens, "limit": limit}))
        counts = {bar.name: sum(bar.y) for bar in many.data}
        assert counts == {"fits": (tokens <= limit).sum(), "is cut": (tokens > limit).sum()}
        assert sum(len(bar.x) for bar in many.data) <= 42


def test_a_far_cut_does_not_squeeze_the_bars():
    figure = skills.length_histogram(LENGTHS.assign(limit=512))
    assert not figure.layout.shapes
    assert "512, far to the right" in figure.layout.annotations[0].text
    assert [bar.name for bar in figure.data] == ["fits"]


def test_maps_hold_the_values_of_their_tables():
    (leaks,) = skills.leak_map(LEAKS).data
    assert np.array(leaks.z).tolist() == [[3, 0], [3, 0]]
    assert "1 of 4 rows have the very same prompt" in leaks.customdata[1][0]
    assert "3 answer differently" in leaks.customdata[1][0]
    (alike,) = skills.similarity_map(ALIKE, names=["b", "a"]).data
    assert np.array(alike.z).tolist() == [[0.75, 0.25], [0.25, 0.5]]
    assert alike.text[0][0] == "0.75"


def test_the_batch_shades_the_loss_and_marks_the_edits():
    page = skill_batch.batch_html(BATCH, names=["a", "b"])
    spans = re.findall(r'<span style="([^"]*)" title="([^"]*)">([^<]*)</span>', page)
    shown = [
        (html.unescape(text), "background" in css, "box-shadow" in css) for css, _, text in spans
    ]
    assert shown == [
        ("␣<script>", False, True),
        ("x⏎", True, False),
        ("q", False, False),
        ("r", False, True),
        ("s", True, True),
    ]
    assert "<script>" not in page
    assert "padding ×1" in page
    assert "token 10 at place 3: answer, in the loss, edited" in page
    assert LIGHT.colours[1] in page
    assert "␣" not in skill_batch.batch_html(BATCH[BATCH["example"] == 2])


def test_the_batch_as_a_page_needs_no_network():
    page = skill_batch.batch_page(BATCH, examples=1, palette=DARK)
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert DARK.background in page
    assert page.count("<small>") == 1
