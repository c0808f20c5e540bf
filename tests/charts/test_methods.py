"""Figures of the Judge pages: the numbers of the table, its order, its bounds."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from csreft_core.analysis.claims import parameters
from csreft_core.analysis.claims import rules as claim_rules
from csreft_core.analysis.claims.comparison import comparison_measurements
from csreft_core.analysis.claims.conditions import LITTLE, LITTLE_EXACT
from csreft_core.analysis.methods import sentences, tables
from csreft_core.charts import methods
from csreft_core.charts.claims import figures as claims
from csreft_core.charts.claims import parameters as parameter_charts
from csreft_core.errors import ConfigError
from tests.compared import FORGETTING, INDEX, METHODS, SKILLS, TOTAL, made_up_tables


@pytest.fixture(scope="module")
def made_up():
    return made_up_tables()


def test_the_main_table_by_hand(made_up):
    table = tables.summary(made_up).set_index("method")
    assert list(table.index) == list(METHODS)
    row = table.loc["lora"]
    assert row["name"] == "LoRA"
    assert row["exact_match"] == pytest.approx(0.95 - 0.25 + 0.002)
    assert row["loss"] == pytest.approx(0.2 + 0.5 + 0.002)
    assert row["harm"] == pytest.approx(0.498)
    assert row["joint_harm_exact"] == pytest.approx(0.398)
    assert row["gain"] == 1
    # 1 of 1.25 nats are gained, 0.8 of the loss, and 70 % of the tests are right.
    assert row["gain_shown"]
    assert row["interference_index"] == pytest.approx(0.498)
    # s of 0 to 4 thousandths is sqrt(2.5) thousandths; t(0.975, 4) = 2.776445.
    half = 2.776445 * math.sqrt(2.5 / 5) / 1000
    assert row["exact_match_high"] - row["exact_match"] == pytest.approx(half, rel=1e-5)
    assert (row["seeds"], row["failed"], row["n"]) == (5, 0, 3 * 4 * 30)
    assert row["total"] == TOTAL["lora"]
    assert row["two_skills"] == 0


def with_cells(made_up, **changes):
    """The made-up tables with other numbers of LoRA in `cells`."""
    cells = made_up.cells.copy()
    for name, value in changes.items():
        cells.loc[cells["method"] == "lora", name] = value
    return replace(made_up, cells=cells)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, True),
        ({"gain": [0.94, 0.95, 0.96, 0.97, 0.98]}, True),  # (0.96 - 0.0196) / 1.25 = 0.752
        ({"gain": [0.91, 0.95, 0.96, 0.97, 1.01]}, False),  # (0.96 - 0.0446) / 1.25 = 0.732
        ({"gain": 0.56}, False),
        ({"to_gain": 3.4}, False),  # a start that is broken leaves much to gain
        ({"gain": -1.0}, False),
    ],
)
def test_the_index_is_given_only_where_the_gain_is_shown(made_up, changes, shown):
    """The lower end over the seeds decides: 0.75 of the loss of 1.25 nats must be gained."""
    row = tables.summary(with_cells(made_up, **changes)).set_index("method").loc["lora"]
    assert row["gain_shown"] == shown
    assert math.isnan(row["interference_index"]) != shown
    assert row["harm"] == pytest.approx(0.498)  # which is given in any case


def test_nor_where_the_skills_are_not_learned(made_up):
    weak = made_up.scores.copy()
    weak.loc[weak["method"] == "lora", "exact_match"] = [0.49, 0.51] * 30 + [0.0] * 5
    table = tables.summary(replace(made_up, scores=weak)).set_index("method")
    assert table["gain_shown"].to_dict() == {
        "csreft": True,
        "loreft": True,
        "lora": False,
        "olora": True,
    }
    text = sentences.sentence_place(table.reset_index(), "interference_index")
    assert "above 75% of the loss or the exact match above 50%: LoRA. CS-ReFT is" in text
    one = made_up_tables(failed=tuple(("lora", seed) for seed in range(1, 5)))
    assert not tables.summary(one).set_index("method").loc["lora", "gain_shown"]


def test_the_interval_of_a_share_ends_where_the_share_can(made_up):
    """0, 1, 1, 1, 1: mean 0.8, half 2.776445 sqrt(0.2 / 5) = 0.555, so 0.245 to 1.355."""
    row = tables.summary(
        with_cells(made_up, joint_harm_exact=[0, 1, 1, 1, 1], harm=[0, 1, 1, 1, 1])
    )
    lora = row.set_index("method").loc["lora"]
    assert lora["joint_harm_exact_low"] == pytest.approx(0.2447, abs=1e-4)
    assert lora["joint_harm_exact_high"] == 1
    assert lora["harm_high"] == pytest.approx(1.3553, abs=1e-4)  # nats have no such end


def test_failed_cells_are_counted_and_left_out():
    table = tables.summary(made_up_tables(failed=(("lora", 4), ("lora", 3)))).set_index("method")
    assert [*table.loc["lora", ["seeds", "failed"]]] == [3, 2]
    assert table.loc["lora", "exact_match"] == pytest.approx(0.95 - 0.25 + 0.001)
    nothing = made_up_tables(failed=tuple(("lora", seed) for seed in range(5)))
    row = tables.summary(nothing).set_index("method").loc["lora"]
    assert row["failed"] == 5
    assert math.isnan(row["exact_match"])
    assert "lora" not in tables.quality(nothing)["method"].tolist()


def test_interference_and_forgetting_tables_by_hand(made_up):
    found = tables.interference(made_up).set_index(["method", "trained", "evaluated"])
    assert found.loc[("lora", "french", "plural"), "change"] == pytest.approx(0.498)
    assert found.loc[("lora", "french", "french"), "change"] == -1
    assert found.loc[("lora", "french", "french"), "own"]
    assert found.loc[("lora", "french", "plural"), "lost"] == pytest.approx(0.048)
    joint = tables.interference(made_up, "joint").set_index(["method", "trained", "evaluated"])
    assert joint.loc[("lora", "french", "plural"), "lost"] == pytest.approx(0.398)
    assert joint.loc[("lora", "french", "plural"), "change"] == pytest.approx(0.796)
    curve = tables.sequential(made_up).set_index(["method", "stage", "evaluated"])["loss"]
    first = SKILLS[0]
    assert curve["lora", 3, first] - curve["lora", 0, first] == pytest.approx(
        3 * FORGETTING["lora"]
    )
    assert curve["lora", 3, SKILLS[3]] == pytest.approx(0.102)


def test_an_unknown_split_is_refused(made_up):
    with pytest.raises(ConfigError, match="this comparison has test, test_items"):
        tables.quality(made_up, "training")


@pytest.mark.parametrize("measure", methods.MEASURES)
def test_dots_are_sorted_with_the_best_on_top(made_up, measure):
    table = tables.summary(made_up)
    figure = methods.method_dots(table, measure)
    order = list(figure.layout.yaxis.categoryarray)
    values = table.set_index("name")[measure].loc[order].tolist()
    assert values == sorted(values, reverse=sentences.MORE_IS_BETTER[measure] is True)
    drawn = {y: x for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    factor = methods.MEASURES[measure].factor
    expected = dict(zip(table["name"], table[measure] * factor, strict=True))
    assert drawn == pytest.approx(expected)


def test_charts_and_sentences_agree_on_which_end_is_good():
    assert set(methods.MEASURES) == set(sentences.MORE_IS_BETTER)


def test_the_scatter_has_a_point_a_method_with_its_interval(made_up):
    table = tables.quality(made_up)
    figure = methods.quality_scatter(table)
    assert [trace.name for trace in figure.data] == table["name"].tolist()
    assert [trace.x[0] for trace in figure.data] == [TOTAL[m] for m in METHODS]
    assert all(trace.error_y.array[0] > 0 for trace in figure.data)
    assert len({(t.marker.color, t.marker.symbol) for t in figure.data}) == len(METHODS)


def test_matrices_share_one_scale_and_follow_the_choice(made_up):
    table = tables.interference(made_up)
    figure = methods.interference_matrices(table, SKILLS, methods=("csreft", "lora"))
    assert [a.text for a in figure.layout.annotations[:2]] == ["CS-ReFT", "LoRA"]
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert figure.layout.coloraxis.cmax == 1
    own = [trace.z[0][1] for trace in figure.data]
    assert own == pytest.approx([INDEX["csreft"] - 0.002, INDEX["lora"] - 0.002])
    joint = tables.interference(made_up, "joint")
    lost = methods.interference_matrices(joint, SKILLS, methods=("lora",), unit="exact")
    assert lost.data[0].z[0][1] == pytest.approx(0.398)
    assert "exact match lost (share of the prompts)" in lost.to_json()
    unknown = table.assign(lost=math.nan)
    nothing = [
        methods.interference_matrices(table, methods=("red",)),
        methods.interference_matrices(unknown, unit="exact"),
    ]
    assert all("None of these" in figure.layout.meta["alt"] for figure in nothing)


def test_curves_have_a_line_for_each_skill_and_method(made_up):
    table = tables.sequential(made_up)
    figure = methods.sequential_curves(table, SKILLS, methods=("csreft", "lora", "olora"))
    assert len(figure.data) == 3 * len(SKILLS)
    assert sum(trace.showlegend for trace in figure.data) == len(SKILLS)
    rising = next(t for t in figure.data if t.xaxis == "x2" and t.name == SKILLS[0])
    assert list(rising.y) == pytest.approx([0.102 + i * FORGETTING["lora"] for i in range(4)])


def test_nothing_measured_gives_a_figure_that_says_so():
    empty = pd.DataFrame(columns=["method", "name", "exact_match", "total", "loss"])
    for figure in (
        methods.method_dots(empty),
        methods.quality_scatter(empty),
        claims.condition_intervals(pd.DataFrame()),
    ):
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text


def test_the_bars_of_the_calculator_are_its_parts():
    table = parameters.calculator_table()
    figure = parameter_charts.parameter_bars(table)
    bars = {(y, t.name): x for t in figure.data[:3] for x, y in zip(t.x, t.y, strict=True)}
    assert bars["CS-ReFT", "router"] == 8_398_852
    assert bars["CS-ReFT", "subspaces"] == 524_352
    assert "0.1324 %" in figure.data[3].text[0]


def test_the_dots_of_the_inversion_say_what_is_printed():
    figure = parameter_charts.share_dots(parameters.inversion_table())
    inside, outside = figure.data
    assert [text.strip() for text in inside.text] == ["0.0098 %", "0.0098 %"]
    assert [text.strip() for text in outside.text] == ["0.0097 %", "0.1246 %", "0.1344 %"]


def test_intervals_of_a_claim_stand_beside_their_bound(made_up):
    rows = comparison_measurements([made_up])
    conditions = claim_rules.judge_conditions(pd.DataFrame(rows))
    figure = claims.condition_intervals(conditions, "C7")
    kept, kept_exact, against, against_exact = figure.data
    assert kept.x[0] == pytest.approx(0.012)
    bounds = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert bounds == [LITTLE, LITTLE_EXACT, 0.0, 0.0]
    shaded = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    # All must lie below: the shaded side ends at the bound and holds the interval.
    assert [shape.x1 for shape in shaded] == bounds
    assert shaded[0].x0 < kept.x[0] < shaded[0].x1
    assert shaded[1].x0 < kept_exact.x[0] < shaded[1].x1
    assert shaded[2].x0 < against.x[0] < shaded[2].x1
    assert shaded[3].x0 < against_exact.x[0] < shaded[3].x1


def test_the_sentences_give_the_place_and_the_largest_harm(made_up):
    text = sentences.sentence_place(tables.summary(made_up), "exact_match")
    assert "CS-ReFT is number 1 of 4 with 90.2%" in text
    assert "no other interval overlaps its own (5 seeds each" in text
    made = tables.summary(made_up)
    harm = "Best: CS-ReFT with 0.098"
    assert sentences.sentence_place(made, "harm").startswith(f"{harm} [")
    assert "right on the tests" not in sentences.sentence_place(made, "harm")
    lost = sentences.sentence_place(made, "joint_harm_exact")
    assert lost.startswith("Best: LoReFT (shared) with 9.8% [")
    assert "CS-ReFT is number 4 of 4 with 59.8%" in lost
    older = made.assign(joint_harm_exact=made["joint_harm_exact"].where(made["method"] != "lora"))
    older["joint_harm_exact_seeds"] = [3, 5, 0, 5]
    text = sentences.sentence_place(older, "joint_harm_exact")
    assert "(3 to 5 seeds each" in text
    assert "Not measured yet: LoRA. CS-ReFT is number 3 of 3" in text
    weak = made.assign(exact_match=made["exact_match"].where(made["method"] != "olora", 0.2))
    assert "little to harm by: O-LoRA. CS-ReFT is number 1" in sentences.sentence_place(
        weak, "harm"
    )
    assert "right on the tests" not in sentences.sentence_place(weak, "loss")
    others = made[made["method"] != "csreft"]
    assert "CS-ReFT" not in sentences.sentence_place(others, "loss")
    lost = made.assign(loss=made["loss"].where(made["method"] != "csreft"))
    assert "CS-ReFT has no finished cell" in sentences.sentence_place(lost, "loss")
    worst = sentences.sentence_place(tables.summary(made_up), "loss")
    assert worst.startswith("Best: CS-ReFT with 0.302")
    assert "LoRA +0.498 (12 of 12 surely harmed)" in sentences.sentence_interference(
        tables.interference(made_up)
    )
    assert "LoReFT (shared) +9.8% (12 of 12 surely harmed)" in sentences.sentence_interference(
        tables.interference(made_up, "joint"), unit="exact"
    )
    assert "LoRA 2.700" in sentences.sentence_sequential(tables.sequential(made_up))
    assert "O-LoRA most (12,000, 85.2%)" in sentences.sentence_quality(
        tables.quality(made_up), "exact_match"
    )
