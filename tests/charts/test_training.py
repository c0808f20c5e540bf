"""Each figure on a small table: traces, axis titles with units, data equal to the input."""

import pandas as pd
import pytest

from csreft_core.charts import training
from csreft_core.charts.gates import figures as gates
from csreft_core.charts.theme import DARK, LIGHT, MOST_POINTS

pytestmark = pytest.mark.fast

GATES = pd.DataFrame(
    [("p", "a", "a", 0.875), ("p", "a", "b", 0.25), ("q", "b", "a", 0.5), ("q", "b", "b", 0.75)],
    columns=["prompt", "skill", "subspace", "gate"],
)
LOSS = pd.DataFrame(
    [(1, "a", "train", 3.0), (2, "a", "train", 2.0), (0, "a", "validation", 4.0)],
    columns=["step", "skill", "split", "loss"],
)
CURVES = pd.DataFrame(
    [
        (s, k, u, g)
        for s in (0, 5)
        for k, u, g in (("a", "a", 0.9), ("a", "b", 0.1), ("b", "a", 0.2), ("b", "b", 0.8))
    ],
    columns=["step", "skill", "subspace", "gate"],
)
STEPS = pd.DataFrame(
    {
        "step": [1, 2],
        "gate_entropy": [0.5, 0.25],
        "orthonormality_error": [0.0, 1e-7],
        "constraint_error": [1e-6, 2e-6],
        "overlap": [0.5, 0.125],
        "grad_norm": [2.0, 1.0],
        "lr": [0.01, 0.02],
        "router_lr": [0.03, 0.04],
    }
)
SCORES = pd.DataFrame([("a", 0.5, 10), ("b", 1.0, 30)], columns=["skill", "exact_match", "n"])
RUNS = pd.DataFrame([("r", 0, 4.0), ("r", 5, 1.0), ("s", 0, 3.0)], columns=["run", "step", "loss"])
ALL = [
    (gates.gate_bars, GATES[GATES["prompt"] == "p"]),
    (gates.gates_over_prompts, GATES),
    (training.loss_curves, LOSS),
    (training.gate_curves, CURVES),
    (training.entropy_curve, STEPS),
    (training.constraint_curves, STEPS),
    (training.optimiser_curves, STEPS),
    (training.exact_match_bars, SCORES),
    (training.run_curves, RUNS),
]
IDS = [chart.__name__ for chart, _ in ALL]


def axis_titles(figure):
    axes = [figure.layout[name] for name in figure.layout if name.startswith(("xaxis", "yaxis"))]
    return [axis.title.text for axis in axes if axis.title.text]


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_every_figure_asks_a_question_and_can_be_read_aloud(chart, table):
    for palette in (LIGHT, DARK):
        figure = chart(table, palette=palette)
        assert figure.layout.meta["question"].endswith("?")
        assert len(figure.layout.meta["alt"]) > 20
        assert figure.layout.uirevision == "keep"
        assert figure.data
        assert figure.layout.template.layout.paper_bgcolor == palette.background
    drawn = [trace for trace in figure.data if trace.hoverinfo != "skip"]
    assert all(trace.hovertemplate for trace in drawn)


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_an_empty_table_gives_a_figure_with_a_message(chart, table):
    figure = chart(table.iloc[:0])
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


@pytest.mark.parametrize(("chart", "table"), ALL, ids=IDS)
def test_no_figure_changes_its_table(chart, table):
    before = table.copy(deep=True)
    chart(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("chart", "table", "kind", "titles"),
    [
        (*ALL[0], "bar", ["gate (no unit, 0 closed, 1 open)"]),
        (*ALL[1], "scatter", ["gate (no unit, 0 closed, 1 open)"]),
        (*ALL[2], "scatter", ["optimiser steps", "loss (nats per answer token)"]),
        (*ALL[3], "scatter", ["optimiser steps", "optimiser steps", "mean gate (no unit)"]),
        (*ALL[4], "scatter", ["optimiser steps", "gate entropy (nats a gate)"]),
        (*ALL[5], "scatter", ["optimiser steps", "error (no unit)", "overlap (0 to 1)"]),
        (*ALL[6], "scatter", ["optimiser steps", "gradient norm", "learning rate"]),
        (*ALL[7], "bar", ["exact match (share of prompts)"]),
        (*ALL[8], "scatter", ["optimiser steps", "mean loss (nats per answer token)"]),
    ],
    ids=IDS,
)
def test_traces_and_axis_titles(chart, table, kind, titles):
    figure = chart(table)
    assert {trace.type for trace in figure.data} == {kind}
    assert sorted(axis_titles(figure)) == sorted(titles)


def test_gate_bars_are_the_gates_on_a_fixed_scale():
    figure = gates.gate_bars(GATES[GATES["prompt"] == "p"], ["b", "a"], threshold=0.5)
    assert list(figure.data[0].y) == ["b", "a"]
    assert list(figure.data[0].x) == [0.25, 0.875]
    assert figure.layout.xaxis.range[0] == 0
    assert figure.layout.xaxis.range[1] >= 1
    assert figure.layout.shapes[0].x0 == 0.5
    assert not gates.gate_bars(GATES[GATES["prompt"] == "p"]).layout.shapes
    dose = GATES[GATES["prompt"] == "p"].assign(gate=[-0.5, 2.0])
    low, high = gates.gate_bars(dose).layout.xaxis.range
    assert (low, high >= 2.0) == (-0.5, True)


def test_gates_over_prompts_shows_range_and_every_prompt():
    figure = gates.gates_over_prompts(GATES)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [list(line.x) for line in lines] == [[0.5, 0.875], [0.25, 0.75]]
    points = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(points["a"].x) == [0.875, 0.25]
    assert points["b"].customdata.tolist() == [["q", "a"], ["q", "b"]]
    assert points["a"].marker.symbol != points["b"].marker.symbol


def test_loss_curves_keep_every_value_and_name_a_skill_once():
    figure = training.loss_curves(LOSS)
    assert [(list(t.x), list(t.y)) for t in figure.data] == [([1, 2], [3, 2]), ([0], [4])]
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["a"]


def test_gate_curves_have_a_panel_for_each_skill():
    figure = training.gate_curves(CURVES, ["b", "a"])
    assert [a.text for a in figure.layout.annotations] == ["prompts: b", "prompts: a"]
    assert len(figure.data) == 4
    assert list(figure.data[0].y) == [0.8, 0.8]  # prompts of b, subspace b
    assert {trace.line.dash for trace in figure.data} == {"solid", "dash"}
    assert [trace.name for trace in figure.data if trace.showlegend] == ["b", "a"]


def test_an_error_of_zero_can_be_drawn_on_the_logarithmic_scale():
    figure = training.constraint_curves(STEPS)
    assert figure.layout.yaxis.type == "log"
    assert list(figure.data[0].y) == [1e-9, 1e-7]
    assert [t.name for t in figure.data][-1] == "overlap"
    assert list(figure.data[-1].y) == [0.5, 0.125]
    one_subspace = STEPS.assign(overlap=float("nan"))
    assert [t.name for t in training.constraint_curves(one_subspace).data][-1] != "overlap"


def test_optimiser_and_entropy_curves_carry_their_columns():
    drawn = {trace.name: list(trace.y) for trace in training.optimiser_curves(STEPS).data}
    assert drawn["gradient norm"] == [2.0, 1.0]
    assert drawn["learning rate, router"] == [0.03, 0.04]
    assert list(training.entropy_curve(STEPS).data[0].y) == [0.5, 0.25]
    nothing = training.entropy_curve(STEPS.assign(gate_entropy=float("nan")))
    assert not nothing.data


def test_exact_match_of_one_and_of_two_runs():
    one = training.exact_match_bars(SCORES, ["b", "a"])
    assert (list(one.data[0].y), list(one.data[0].x)) == (["b", "a"], [1.0, 0.5])
    assert one.data[0].customdata.tolist() == [[30], [10]]
    both = pd.concat([SCORES.assign(run="r"), SCORES.iloc[:1].assign(run="s")])
    two = training.exact_match_bars(both)
    assert [(t.name, list(t.x)) for t in two.data] == [("r", [0.5, 1.0]), ("s", [0.5])]
    assert two.data[0].marker.pattern.shape != two.data[1].marker.pattern.shape


def test_run_curves_tell_runs_apart_without_colour():
    figure = training.run_curves(RUNS)
    assert [(t.name, list(t.y)) for t in figure.data] == [("r", [4.0, 1.0]), ("s", [3.0])]
    assert figure.data[0].line.dash != figure.data[1].line.dash


def test_long_lines_are_thinned():
    long = pd.DataFrame({"step": range(5000), "gate_entropy": [0.1] * 4999 + [0.6]})
    line = training.entropy_curve(long).data[0]
    assert len(line.x) <= MOST_POINTS
    assert line.y[-1] == 0.6
