"""Figures of states hold the numbers of their tables, and say what they show."""

import numpy as np
import pandas as pd
import pytest

from csreft_core.app.page.widgets import screen
from csreft_core.charts.states import animation
from csreft_core.charts.states import figures as charts
from csreft_core.charts.states import maps as state_maps
from csreft_core.charts.theme import DARK, LIGHT

NAMES = ("a", "b")


def states(n_axes=2, own=True):
    rows = []
    for i, (prompt, skill, mine) in enumerate(
        [("p", "a", False), ("q", "b", False), ("r", "a", False), ("mine", "", True)]
    ):
        if mine and not own:
            continue
        for j, kind in enumerate(("base", "edited")):
            rows.append((prompt, skill, mine, kind, i + j, 2.0 * i - j, 3.0 + i, 1.5))
    columns = ["prompt", "skill", "own", "kind", "x", "y", "z", "moved"]
    table = pd.DataFrame(rows, columns=columns)
    shares = {f"{a}_{what}_frac": 0.25 for a in "xyz" for what in ("variance", "edit")}
    return table.assign(**shares) if n_axes == 3 else table.drop(columns="z").assign(**shares)


SCREE = pd.DataFrame(
    [("base states", 1, 0.6, 0.6), ("base states", 2, 0.3, 0.9), ("edit", 1, 0.9, 0.9)],
    columns=["kind", "component", "frac", "cumulative"],
).assign(n=5, chance=1 / 128)
COORDINATES = pd.DataFrame(
    [
        (prompt, skill, False, kind, x, 2 * x, gate)
        for prompt, skill, gate, places in (("p", "a", 0.9, (0, 4, 5)), ("q", "b", 0.1, (1, 1, 7)))
        for kind, x in zip(("before", "after", "target"), places, strict=True)
    ],
    columns=["prompt", "skill", "own", "kind", "x", "y", "gate"],
)
COORDINATES = COORDINATES.assign(distance=0.5, rank=2, subspace="a", target="W h + b")
SIZE = pd.DataFrame(
    [
        (layer, place, "", 0.5 * layer * (place == -1), 0.75, 1.5, 3, layer == 1)
        for layer in (0, 1)
        for place in (-2, -1)
    ],
    columns=["layer", "place", "text", "size", "highest", "between", "n", "edited_layer"],
)
TRAINING = pd.DataFrame(
    [
        (step, prompt, skill, kind, i + step * (kind == "edited"), float(i), 1.0, np.nan)
        for step in (0, 10, 20)
        for i, (prompt, skill) in enumerate((("p", "a"), ("q", "b")))
        for kind in ("base", "edited")
    ],
    columns=["step", "prompt", "skill", "kind", "x", "y", "moved", "gate"],
)
SEPARATION = pd.DataFrame(
    [
        ("h", "silhouette", "true labels", 0.1, 0.0, 0.3),
        ("h'", "silhouette", "true labels", 0.4, 0.3, 0.5),
        ("h", "probe accuracy", "true labels", 0.9, 0.8, 1.0),
        ("h", "probe accuracy", "shuffled labels", 0.2, 0.1, 0.3),
        ("h", "probe accuracy", "majority class", 0.25, 0.25, 0.25),
    ],
    columns=["features", "measure", "kind", "value", "low", "high"],
).assign(n=40, n_features=8)
ENERGY = pd.DataFrame(
    [
        (kind, skill, subspace, 0.75 if skill == subspace else 0.25, 6)
        for kind in ("gated", "all gates 1")
        for skill in NAMES
        for subspace in NAMES
    ],
    columns=["kind", "skill", "subspace", "share", "n"],
)
ALL = [
    (charts.state_scatter, states()),
    (charts.state_scatter, states(3)),
    (charts.scree_bars, SCREE),
    (charts.coordinate_scatter, COORDINATES),
    (state_maps.size_map, SIZE),
    (animation.training_states, TRAINING),
    (charts.separation_dots, SEPARATION),
    (state_maps.energy_map, ENERGY),
]
IDS = [f"{chart.__name__}-{i}" for i, (chart, _) in enumerate(ALL)]


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_every_figure_asks_a_question_and_is_never_empty_without_a_word(chart, table):
    for palette in (LIGHT, DARK, screen()):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
    nothing = chart(table.iloc[:0])
    assert not nothing.data
    assert len(nothing.layout.annotations[0].text) > 10


def traces(figure, mode, skill):
    return [t for t in figure.data if t.mode == mode and t.name == skill]


@pytest.mark.parametrize("n_axes", [2, 3])
def test_pairs_are_joined_open_and_filled_and_marked_by_skill(n_axes):
    figure = charts.state_scatter(states(n_axes), NAMES)
    assert {t.type for t in figure.data} == {"scatter" if n_axes == 2 else "scatter3d"}
    base, edited = traces(figure, "markers", "a")
    assert list(base.x) == [0, 2]
    assert list(edited.x) == [1, 3]
    assert list(edited.y) == [-1, 3]
    assert base.marker.symbol == f"{edited.marker.symbol}-open"
    (line,) = traces(figure, "lines", "a")
    np.testing.assert_array_equal(line.x, [0, 1, np.nan, 2, 3, np.nan])
    if n_axes == 3:
        assert list(edited.z) == [3, 5]
    other = traces(figure, "markers", "b")[1]
    assert other.marker.symbol != edited.marker.symbol
    assert other.marker.color != edited.marker.color
    assert edited.customdata[0][0] == "p"
    assert "1.5" in edited.customdata[0][2]
    assert [t.name for t in figure.data if t.showlegend is not False][:2] == ["base h", "edited h'"]


def test_ones_own_prompt_stands_out():
    figure = charts.state_scatter(states(), NAMES)
    base, edited = traces(figure, "markers", "your prompt")
    assert (list(base.x), list(edited.x)) == ([3], [4])
    assert edited.marker.symbol == "star"
    assert edited.marker.size > traces(figure, "markers", "a")[1].marker.size
    assert not traces(charts.state_scatter(states(own=False)), "markers", "your prompt")


def test_axes_say_what_they_show_and_have_equal_scales():
    figure = charts.state_scatter(states())
    assert figure.layout.xaxis.title.text == (
        "axis 1 (units of h; 25.0% of variance; 25.0% of edit)"
    )
    assert figure.layout.yaxis.scaleanchor == "x"
    unknown = states().assign(x_edit_frac=np.nan)
    title = charts.state_scatter(unknown).layout.xaxis.title.text
    assert title == "axis 1 (units of h; 25.0% of variance)"


def test_a_skill_looks_the_same_on_every_figure():
    figures = [
        charts.state_scatter(states(), NAMES),
        charts.coordinate_scatter(COORDINATES, NAMES),
        animation.training_states(TRAINING, NAMES),
    ]
    looks = {
        (t.marker.symbol, t.marker.color) for f in figures for t in traces(f, "markers", "b")[1:2]
    }
    assert len(looks) == 1
    only_b = states()[states()["skill"].eq("b")]
    (alone,) = traces(charts.state_scatter(only_b, NAMES), "markers", "b")[1:]
    assert (alone.marker.symbol, alone.marker.color) in looks


def test_bars_are_the_shares_and_the_line_is_chance():
    figure = charts.scree_bars(SCREE)
    assert [list(t.y) for t in figure.data] == [[0.6, 0.3], [0.9]]
    assert [list(t.customdata) for t in figure.data] == [[0.6, 0.9], [0.9]]
    assert figure.layout.shapes[0].y0 == 1 / 128
    assert len({t.marker.pattern.shape for t in figure.data}) == 2


def test_targets_are_drawn_for_open_gates_only():
    figure = charts.coordinate_scatter(COORDINATES, NAMES)
    (target,) = [t for t in figure.data if (t.name or "").startswith("target")]
    assert list(target.x) == [5]
    assert target.name == "target W h + b (gate above 0.5)"
    assert list(traces(figure, "markers", "b")[1].x) == [1]


def test_a_line_of_coordinates_has_a_row_for_each_prompt():
    line = COORDINATES.assign(y=np.nan, rank=1)
    figure = charts.coordinate_scatter(line, NAMES)
    rows = [traces(figure, "markers", skill)[1].y[0] for skill in NAMES]
    assert rows == [1, 2]
    assert figure.layout.yaxis.title.text == "prompts, by skill"


def test_the_map_prints_each_value_and_names_edited_layers():
    figure = state_maps.size_map(SIZE)
    (heat,) = figure.data
    assert np.asarray(heat.z).tolist() == [[0, 0], [0, 0.5]]
    assert np.asarray(heat.text).tolist() == [["0", "0"], ["0", "0.50"]]
    assert list(figure.layout.yaxis.ticktext) == ["0", "1 (edited)"]
    assert list(figure.layout.xaxis.ticktext) == ["-2", "-1"]
    missing = SIZE.assign(n=[3, 3, 0, 3])
    assert np.isnan(np.asarray(state_maps.size_map(missing).data[0].z, dtype=float)[1, 0])


def test_repeated_tokens_do_not_merge():
    figure = state_maps.size_map(SIZE.assign(text="the"))
    assert list(figure.data[0].x) == [0, 1]
    assert list(figure.layout.xaxis.ticktext) == ["the", "the"]


def test_the_animation_has_a_frame_for_each_step_and_fixed_axes():
    figure = animation.training_states(TRAINING, NAMES)
    assert [frame.name for frame in figure.frames] == ["0", "10", "20"]
    shown = {i: list(t.x) for i, t in enumerate(figure.data)}
    last = figure.frames[-1]
    for i, trace in zip(last.traces, last.data, strict=True):
        np.testing.assert_array_equal(trace.x, shown[i])  # what is seen first is the last step
    edited = [list(f.data[2].x) for f in figure.frames]
    assert edited == [[0], [10], [20]]
    low, high = figure.layout.xaxis.range
    assert low < 0
    assert high > 21
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "10", "20"]
    assert slider.active == 2
    assert figure.layout.updatemenus[0].buttons[0].label == "Play"


def test_points_of_the_separation_carry_their_intervals():
    figure = charts.separation_dots(SEPARATION)
    first = figure.data[0]
    assert list(first.x) == [0.1, 0.4]
    assert list(first.error_x.array) == pytest.approx([0.2, 0.1])
    assert list(first.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert {t.name for t in figure.data} == {"true labels", "shuffled labels", "majority class"}
    assert len({t.marker.symbol for t in figure.data}) == 3


def test_the_energy_map_shows_both_kinds():
    figure = state_maps.energy_map(ENERGY, ("b", "a"))
    for heat in figure.data:
        assert np.asarray(heat.z).tolist() == [[0.75, 0.25], [0.25, 0.75]]
        assert np.asarray(heat.text).tolist() == [["75%", "25%"], ["25%", "75%"]]
    assert list(figure.layout.yaxis.ticktext) == ["b", "a"]
    assert [a.text for a in figure.layout.annotations] == ["with the gates", "all gates 1"]
