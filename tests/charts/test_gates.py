"""Figures of the Router page on small tables: they hold the table's numbers and can be read."""

import numpy as np
import pandas as pd
import pytest

from csreft_core.charts.gates import figures as gates
from csreft_core.charts.gates import maps as gate_maps
from csreft_core.charts.gates import scores as gate_scores
from csreft_core.charts.theme import DARK, LIGHT

SOURCES = ("learned", "paper-0 (first token)")
DISTRIBUTION = pd.DataFrame(
    [
        (source, f"p{i}", skill, subspace, 0.1 * i + 0.05 * (subspace == "b"))
        for source in SOURCES
        for i, skill in enumerate(("a", "a", "b"))
        for subspace in ("a", "b")
    ],
    columns=["source", "prompt", "skill", "subspace", "gate"],
)
MEANS = pd.DataFrame(
    [
        (source, skill, subspace, value, value - 0.01, value + 0.01, 7)
        for source in SOURCES
        for skill, subspace, value in (
            ("a", "a", 0.875),
            ("a", "b", 0.125),
            ("b", "a", 0.25),
            ("b", "b", 0.75),
        )
    ],
    columns=["source", "skill", "subspace", "gate", "low", "high", "n"],
)
PATTERNS = pd.DataFrame(
    [
        ("learned", "a", "a", 3, 0.75),
        ("learned", "a", "a+b", 1, 0.25),
        ("learned", "b", "b", 4, 1.0),
        ("uniform", "a", "none", 4, 1.0),
        ("uniform", "b", "none", 4, 1.0),
    ],
    columns=["source", "skill", "pattern", "n", "share"],
)
METRICS = pd.DataFrame(
    [
        (source, metric, subspace, 0.25, 0.125, 0.5, 9, "no unit")
        for source in SOURCES
        for metric, subspace in (
            ("nmi", ""),
            ("matched_accuracy", ""),
            ("usage_balance", ""),
            ("dead_gates", ""),
            *((m, s) for m in ("range", "variance", "entropy", "open_share") for s in ("a", "b")),
        )
    ],
    columns=["source", "metric", "subspace", "value", "low", "high", "n", "unit"],
)
PAIRS = pd.DataFrame(
    [
        (source, a, b, 0.5 if a == b else 0.25, 8)
        for source in SOURCES
        for a in ("a", "b")
        for b in ("a", "b")
    ],
    columns=["source", "subspace", "other", "both_open", "n"],
)
TOKENS = pd.DataFrame(
    [
        ("p", i, token, kind, subspace, 0.25 * i + 0.125 * (subspace == "b"))
        for i, (token, kind) in enumerate((("<bos>", "special"), ("dog", "word"), ("dog", "word")))
        for subspace in ("a", "b")
    ],
    columns=["prompt", "position", "token", "kind", "subspace", "gate"],
)
DIFFERENCE = pd.DataFrame(
    [("a", 0.25, 0.75, 0.5), ("b", 0.5, 0.5, 0.0)],
    columns=["subspace", "pinned", "now", "change"],
)


def scored(**columns):
    ends = {
        f"{m}{end}": v + d
        for m, v in (("loss", 0.5), ("exact_match", 0.75), ("gap", 0.1))
        for end, d in (("", 0.0), ("_low", -0.125), ("_high", 0.125))
    }
    return columns | ends | {"n": 12}


SETTINGS = pd.DataFrame([scored(source=s) for s in (*SOURCES, "off")])
SWEEP = pd.DataFrame(
    [
        scored(source=s, gates=g, threshold=t, n_open=2.0)
        for s in SOURCES
        for g, t in (("soft", np.nan), ("hard", 0.0), ("hard", 1.0))
    ]
)
ALL = [
    (gates.gates_by_source, DISTRIBUTION),
    (gates.gate_difference, DIFFERENCE),
    (gate_maps.mean_gate_map, MEANS),
    (gate_maps.pattern_map, PATTERNS),
    (gate_maps.coactivation_map, PAIRS),
    (gate_maps.token_map, TOKENS),
    (gate_scores.information_dots, METRICS),
    (gate_scores.gate_profile, METRICS),
    (gate_scores.setting_dots, SETTINGS),
    (gate_scores.sweep_lines, SWEEP),
]
IDS = [chart.__name__ for chart, _ in ALL]


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_every_figure_asks_a_question_and_leaves_its_table(chart, table):
    before = table.copy(deep=True)
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.data
        drawn = [trace for trace in figure.data if trace.hoverinfo != "skip"]
        assert all(trace.hovertemplate for trace in drawn)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_an_empty_table_gives_a_figure_with_a_message(chart, table):
    figure = chart(table.iloc[:0])
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


def test_every_gate_of_every_source_is_a_point():
    figure = gates.gates_by_source(DISTRIBUTION)
    drawn = sorted(float(x) for trace in figure.data for x in trace.x)
    assert drawn == pytest.approx(sorted(DISTRIBUTION["gate"]))
    titles = [a.text for a in figure.layout.annotations]
    assert titles == ["learned", "paper-0<br>(first token)"]
    # A point stays in the row of its subspace, and no two points of a row share a place.
    of_source = [t for t in figure.data if t.xaxis in (None, "x")]
    places = np.concatenate([t.y for t in of_source])
    assert len(set(places)) == 6
    assert sorted(np.round(places)) == [0, 0, 0, 1, 1, 1]
    assert len({t.marker.symbol for t in of_source}) == 2


def test_other_subspaces_keep_their_names():
    assert not gates.gates_by_source(DISTRIBUTION).layout.yaxis2.showticklabels
    renamed = DISTRIBUTION.copy()
    renamed.loc[renamed["source"] != "learned", "subspace"] = "subspace 1"
    figure = gates.gates_by_source(renamed)
    assert figure.layout.yaxis2.showticklabels
    assert list(figure.layout.yaxis2.ticktext) == ["subspace 1"]


def test_the_difference_joins_pinned_and_now():
    figure = gates.gate_difference(DIFFERENCE, ["b", "a"])
    pinned, now = (next(t for t in figure.data if t.name == n) for n in ("pinned", "now"))
    assert list(pinned.x) == [0.5, 0.25]
    assert list(now.x) == [0.5, 0.75]
    assert list(now.text) == ["0", "+0.500"]
    assert [list(t.x) for t in figure.data if t.mode == "lines"] == [[0.5, 0.5], [0.25, 0.75]]


def test_the_mean_gates_are_printed_in_the_cells():
    figure = gate_maps.mean_gate_map(MEANS, ["b", "a"])
    assert len(figure.data) == 2
    cells = figure.data[0]
    assert np.asarray(cells.z).tolist() == [[0.75, 0.25], [0.125, 0.875]]
    assert np.asarray(cells.text).tolist() == [["0.75", "0.25"], ["0.12", "0.88"]]
    assert "0.8650 to 0.8850" in cells.customdata[1][1]
    assert list(figure.layout.yaxis.ticktext) == ["b", "a"]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


def test_patterns_show_counts_and_the_share_of_the_skill():
    learned, uniform = gate_maps.pattern_map(PATTERNS, ["a", "b"]).data
    assert np.asarray(learned.z).tolist() == [[0.75, 0.0, 0.25], [0.0, 1.0, 0.0]]
    assert np.asarray(learned.text).tolist() == [["3", "", "1"], ["", "4", ""]]
    assert np.asarray(uniform.text).tolist() == [["4"], ["4"]]


def test_rare_patterns_are_counted_together():
    many = pd.DataFrame(
        [("learned", "a", f"p{i}", 20 - i, 0.1) for i in range(10)], columns=list(PATTERNS)
    )
    figure = gate_maps.pattern_map(many)
    (cells,) = figure.data
    assert list(figure.layout.xaxis.ticktext)[-1] == "others"
    assert list(cells.text[0])[-1] == str(12 + 11)
    assert sum(int(t) for t in cells.text[0]) == many["n"].sum()


def test_pairs_are_symmetric_and_other_subspaces_are_left_out():
    figure = gate_maps.coactivation_map(PAIRS)
    assert np.asarray(figure.data[1].z).tolist() == [[0.5, 0.25], [0.25, 0.5]]
    renamed = PAIRS.assign(
        subspace=PAIRS["subspace"].where(PAIRS["source"] == "learned", "z"),
        other=PAIRS["other"].where(PAIRS["source"] == "learned", "z"),
    ).drop_duplicates(["source", "subspace", "other"])
    assert len(gate_maps.coactivation_map(renamed).data) == 1


def test_equal_tokens_keep_a_place_each_and_the_scale_is_fixed():
    figure = gate_maps.token_map(TOKENS)
    (cells,) = figure.data
    assert np.asarray(cells.z).tolist() == [[0.0, 0.25, 0.5], [0.125, 0.375, 0.625]]
    assert (cells.zmin, cells.zmax) == (0, 1)
    assert np.asarray(cells.text).tolist() == [["0.00", "0.25", "0.50"], ["0.12", "0.38", "0.62"]]
    assert cells.customdata[1][0] == "&lt;bos&gt; (position 0)<br>b"
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2]
    assert list(figure.layout.xaxis.ticktext) == ["<i>&lt;bos&gt;</i>", "dog", "dog"]


def test_intervals_reach_from_low_to_high():
    figure = gate_scores.information_dots(METRICS)
    assert [t.name for t in figure.data] == list(SOURCES)
    trace = figure.data[0]
    assert list(trace.x) == [0.25] * 3
    assert list(trace.error_x.array) == [0.25] * 3
    assert list(trace.error_x.arrayminus) == [0.125] * 3
    assert len({t.marker.symbol for t in figure.data}) == 2
    places = [y for t in figure.data for y in t.y]
    assert len(set(places)) == len(places)  # equal values of two sources do not hide each other


def test_the_profile_has_a_panel_for_each_measure():
    figure = gate_scores.gate_profile(METRICS)
    assert len(figure.data) == 4 * 2
    assert sum(bool(t.showlegend) for t in figure.data) == 2
    assert [a.text for a in figure.layout.annotations] == [
        "max - min",
        "variance",
        "entropy (nats)",
        "share open",
    ]


def test_settings_show_loss_and_exact_match():
    figure = gate_scores.setting_dots(SETTINGS)
    assert [t.x[0] for t in figure.data] == [0.5, 0.75] * 3
    assert list(figure.layout.yaxis.ticktext)[1] == "paper-0<br>(first token)"
    assert "nats" in figure.layout.xaxis.title.text


def test_the_sweep_draws_hard_lines_and_soft_references():
    figure = gate_scores.sweep_lines(SWEEP, threshold=0.5)
    assert len(figure.data) == 2 * 2 * 2
    hard = figure.data[0]
    assert list(hard.x) == [0.0, 1.0]
    assert list(hard.y) == [0.5, 0.5]
    assert figure.data[1].line.dash == "dot"
    assert [shape.x0 for shape in figure.layout.shapes] == [0.5, 0.5]
