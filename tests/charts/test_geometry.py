"""Figures of the geometry on small tables: traces, values, chance beside them, empty tables."""

import numpy as np
import pandas as pd
import pytest

from csreft_core.charts.geometry import drift, gram
from csreft_core.charts.geometry import figures as geometry
from csreft_core.charts.theme import DARK, LIGHT

pytestmark = pytest.mark.fast

BAND = ("random 2.5 %", "random median", "random 97.5 %")
RIGHT_ANGLE = np.pi / 2


def with_band(rows, columns, blank):
    """Rows of a run, and three random rows with rising last values."""
    chance = [(kind, *blank, value) for kind, value in zip(BAND, (0.25, 0.5, 0.75), strict=True)]
    return pd.DataFrame([*rows, *chance], columns=columns)


def pairs(*values):
    names = (("a", "b"), ("a", "c"), ("b", "c"))
    rows = [("run", *pair, value) for pair, value in zip(names, values, strict=False)]
    table = with_band(rows, ["kind", "a", "b", "smallest_angle"], ("", ""))
    return table.assign(
        mean_angle=table["smallest_angle"],
        overlap=0.5,
        excess=-0.125,
        grassmann=1.0,
        chordal=0.5,
        rank=2,
        d_model=16,
        draws=200,
        constraint="within",
    )


PAIRS = pairs(0.0, RIGHT_ANGLE, np.pi / 3)
ANGLES = pd.DataFrame(
    [("run", "a", "b", 1, np.pi / 6), ("run", "a", "b", 2, RIGHT_ANGLE)]
    + [
        (kind, "", "", m, np.radians(q + 10 * m))
        for kind, q in zip(BAND, (30, 50, 60), strict=True)
        for m in (1, 2)
    ],
    columns=["kind", "a", "b", "m", "angle"],
).assign(draws=200)
GRAM = pd.DataFrame(
    [
        (kind, a, i, b, j, value + (0.0 if (a, i) != (b, j) else 1 - value))
        for kind, value in (("run", 0.0), ("random", 0.25))
        for a in "ab"
        for i in (1, 2)
        for b in "ab"
        for j in (1, 2)
    ],
    columns=["kind", "row_skill", "row", "column_skill", "column", "value"],
)
LEAKS = pd.concat(
    with_band(
        [("run", "a", "b", 0.375), ("run", "b", "a", 1e-8)],
        ["kind", "source", "target", "value"],
        ("", ""),
    ).assign(measure=measure)
    for measure in ("write leak", "read leak", "data-weighted overlap")
).assign(n=4, draws=200)
MIXING = pd.DataFrame(
    [
        ("run", a, b, layer, 1.0 if a == b else 0.1 * layer + (a == "b"))
        for a in "ab"
        for b in "ab"
        for layer in (1, 2)
    ]
    + [
        (kind, "", "", layer, q)
        for kind, q in zip(BAND, (0.1, 0.2, 0.3), strict=True)
        for layer in (1, 2)
    ],
    columns=["kind", "source", "target", "layer", "value"],
)
DRIFT = pd.DataFrame(
    [
        (step, "from the start", "run", a, "", np.pi / 3 * (step > 0))
        for step in (0, 50)
        for a in "ab"
    ]
    + [(step, "between skills", "run", "a", "b", np.pi / 4) for step in (0, 50)]
    + [(np.nan, "from the start", "float16 resolution", "", "", 1e-4)]
    + [
        (np.nan, measure, kind, "", "", q)
        for measure in ("from the start", "between skills")
        for kind, q in zip(BAND, (1.0, 1.2, 1.4), strict=True)
    ],
    columns=["step", "measure", "kind", "a", "b", "angle"],
)
TRAINING = pd.DataFrame(
    {
        "step": [1, 2],
        "orthonormality_error": [0.0, 1e-7],
        "constraint_error": [np.nan, np.nan],
        "overlap": [0.0, 0.125],
        "chance": [0.0625, 0.0625],
        "constraint": "within",
    }
)
SEEDS = pd.DataFrame(
    [
        ("same skill", "r", "a", "a", 2, 2, 0.5),
        ("different skills", "r", "a", "b", 2, 2, 0.125),
        ("same skill", "r", "b", "b", 2, 2, 0.75),
        ("all skills together", "r", "all", "all", 4, 4, 1),
    ]
    + [
        (kind, "", "", "", n, n, q * n)
        for n in (2, 4)
        for kind, q in zip(BAND, (0.01, 0.02, 0.03), strict=True)
    ],
    columns=["kind", "run", "a", "b", "rank_a", "rank_b", "overlap"],
).assign(smallest_angle=0.5, largest_angle=1.0)
ALL = [
    (geometry.pair_matrix, PAIRS),
    (geometry.angle_bars, ANGLES),
    (geometry.leak_matrix, LEAKS),
    (gram.gram_matrix, GRAM),
    (drift.mixing_curves, MIXING),
    (drift.drift_curves, DRIFT),
    (drift.constraint_and_chance, TRAINING),
    (drift.seed_dots, SEEDS),
]
IDS = [chart.__name__ for chart, _ in ALL]


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_every_figure_asks_a_question_and_can_be_read_aloud(chart, table):
    before = table.copy(deep=True)
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.layout.template.layout.paper_bgcolor == palette.background
        assert figure.data
        assert all(trace.hovertemplate for trace in figure.data)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_an_empty_table_gives_a_figure_with_a_message(chart, table):
    figure = chart(table.iloc[:0])
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


@pytest.mark.parametrize(
    ("chart", "table"),
    [(c, t[t["kind"] != "run"]) for c, t in ALL if "kind" in t and c is not gram.gram_matrix][:3],
)
def test_one_subspace_gives_a_message_though_chance_is_known(chart, table):
    figure = chart(table)
    assert not figure.data
    assert "one subspace" in figure.layout.annotations[0].text


def test_pair_matrix_is_symmetric_in_degrees_with_chance_beside():
    figure = geometry.pair_matrix(PAIRS, ["c", "a", "b"])
    pairs_drawn, chance = figure.data
    assert list(figure.layout.xaxis.ticktext) == ["c", "a", "b"]
    expected = [[np.nan, 90, 60], [90, np.nan, 0], [60, 0, np.nan]]
    np.testing.assert_allclose(pairs_drawn.z, expected, atol=1e-12)
    assert np.degrees([0.25, 0.5, 0.75]) == pytest.approx([row[0] for row in chance.z])
    assert [row[0] for row in chance.text] == [
        "2.5 %<br>14.3",
        "median<br>28.6",
        "97.5 %<br>43.0",
    ]
    assert list(pairs_drawn.text[0]) == ["", "90.0", "60.0"]
    # Dark is what is shared: an angle of 0, an overlap of 1.
    assert tuple(pairs_drawn.colorscale[0]) == (0.0, "#0b3c78")
    overlap = geometry.pair_matrix(PAIRS, measure="overlap").data[0]
    assert tuple(overlap.colorscale[-1]) == (1.0, "#0b3c78")
    assert (overlap.zmin, overlap.zmax) == (0, 1)
    assert overlap.z[0][1] == 0.5


@pytest.mark.parametrize(
    ("measure", "value", "top"),
    [
        ("mean_angle", 60.0, 90),
        ("excess", -0.125, 1),
        ("grassmann", 57.2958, 127.28),
        ("chordal", 0.5, 1.4142),
    ],
)
def test_every_measure_has_its_unit_and_scale(measure, value, top):
    heat = geometry.pair_matrix(PAIRS, measure=measure).data[0]
    assert heat.z[1][2] == pytest.approx(value, abs=1e-4)
    assert heat.zmax == pytest.approx(top, abs=0.01)


def test_angle_bars_have_the_band_beside_each_bar():
    figure = geometry.angle_bars(ANGLES)
    bar, chance = figure.data
    assert list(bar.y) == pytest.approx([30, 90])
    assert list(chance.y) == pytest.approx([60, 70])
    assert list(chance.error_y.array) == pytest.approx([10, 10])
    assert list(chance.error_y.arrayminus) == pytest.approx([20, 20])
    assert figure.layout.shapes[0].y0 == 90
    assert figure.layout.yaxis.title.text == "angle (degrees)"


def test_leak_matrix_goes_from_row_to_column_and_says_what_is_nearly_zero():
    figure = geometry.leak_matrix(LEAKS, measure="read leak")
    heat, chance = figure.data
    assert heat.z[0][1] == 0.375
    assert [list(row) for row in heat.text] == [["", "0.38"], ["≈0", ""]]
    assert [row[0] for row in chance.z] == [0.25, 0.5, 0.75]
    assert figure.layout.yaxis.title.text == "subspace of"
    assert figure.layout.xaxis.title.text == "is read by"
    nothing = LEAKS.assign(value=LEAKS["value"].where(LEAKS["kind"] != "run"))
    assert not geometry.leak_matrix(nothing).data


def test_gram_matrix_has_block_borders_and_a_random_draw():
    figure = gram.gram_matrix(GRAM, ["b", "a"])
    run, chance = figure.data
    np.testing.assert_array_equal(run.z, np.eye(4))
    assert chance.z[0][1] == 0.25
    assert list(run.text[0][:2]) == ["1", "0"]
    assert chance.text[0][1] == ".25"
    borders = [shape for shape in figure.layout.shapes if shape.x0 == shape.x1 == 1.5]
    assert len(borders) == 2
    assert list(figure.layout.yaxis.ticktext) == ["b", "a"]
    assert run.customdata[0][2] == "b 1 · a 1"


def test_mixing_curves_leave_the_skill_itself_out_and_name_each_target_once():
    figure = drift.mixing_curves(MIXING)
    lines = [t for t in figure.data if t.name.startswith("into")]
    assert [(t.name, list(t.y)) for t in lines] == [
        ("into b", pytest.approx([0.1, 0.2])),
        ("into a", pytest.approx([1.1, 1.2])),
    ]
    assert [t.showlegend for t in lines] == [True, True]
    bands = [t for t in figure.data if t.name == "random (95 %)"]
    assert [list(t.y) for t in bands] == [[0.1, 0.1], [0.3, 0.3]] * 2
    assert [t.showlegend for t in bands] == [False, True, False, False]


def test_drift_curves_are_in_degrees_with_a_band_in_each_panel():
    figure = drift.drift_curves(DRIFT)
    lines = {t.name: list(t.y) for t in figure.data if t.name != "random (95 %)"}
    assert lines["a"] == pytest.approx([0, 60])
    assert lines["each pair"] == pytest.approx([45, 45])
    bands = [t for t in figure.data if t.name == "random (95 %)"]
    assert len(bands) == 4
    assert [band.yaxis for band in bands] == ["y", "y", "y2", "y2"]
    assert list(bands[0].x) == [0, 50]
    assert list(bands[1].y) == pytest.approx(np.degrees([1.4, 1.4]))
    alone = drift.drift_curves(DRIFT[DRIFT["measure"] == "from the start"])
    assert [t.name for t in alone.data].count("random (95 %)") == 2


def test_constraint_and_chance_keeps_rounding_small():
    figure = drift.constraint_and_chance(TRAINING)
    drawn = {t.name: list(t.y) for t in figure.data}
    assert drawn == {
        "orthonormality error": [1e-9, 1e-7],
        "overlap": [0.0, 0.125],
        "random overlap, r/d": [0.0625, 0.0625],
    }
    assert figure.layout.yaxis.range == (-9.3, -4.0)
    broken = drift.constraint_and_chance(TRAINING.assign(constraint_error=[0.1, 1.0]))
    assert broken.layout.yaxis.range[1] > 0
    one = drift.constraint_and_chance(TRAINING.assign(overlap=np.nan))
    assert [t.name for t in one.data] == ["orthonormality error"]


def test_seed_dots_stand_over_the_band_of_their_ranks():
    figure = drift.seed_dots(SEEDS, ["b", "a"])
    band, *dots = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["b", "a", "all together"]
    assert list(band.base) == pytest.approx([0.02, 0.02, 0.04])
    assert list(band.base + band.x) == pytest.approx([0.06, 0.06, 0.12])
    points = {t.name: (list(t.x), list(t.y)) for t in dots}
    assert points["the same skill"] == ([0.5, 0.75], [1, 0])
    assert points["a different skill"] == ([0.125], [1])
    assert points["all skills together"] == ([1.0], [2])
    assert len({t.marker.symbol for t in dots}) == 3
