"""Intervals over crossed items and wordings: they cover the truth, also at the edges."""

import numpy as np
import pytest
from scipy.stats import binomtest

from csreft_core.analysis.gates import metrics as m
from csreft_core.analysis.statistics import intervals as n
from csreft_core.skills.skill_set import Row, read_skills

Z2 = 1.959964**2
SIMULATIONS = 200


def crossed(n_items: int, n_wordings: int, repeats: int, skill: str = "a") -> list[Row]:
    """Each item in `repeats` wordings, as evenly as the shipped sets have them."""
    return [
        Row((skill,), f"w{(i + r) % n_wordings} of x{i}", "y", "test_items", f"x{i}")
        for r in range(repeats)
        for i in range(n_items)
    ]


def plain(n_prompts: int, skill: str = "a") -> list[Row]:
    return [Row((skill,), f"prompt {i}", "y", "test_items") for i in range(n_prompts)]


def mean(values: np.ndarray) -> n.Statistic:
    return n.ratio_statistic(values[None], np.ones(len(values)))


def ends(values, rows, of=n.mean_interval):
    (low,), (high,) = of(n.spread(mean(np.asarray(values, dtype=float)), n.units_of(rows)))
    return float(low), float(high)


# What was drawn -----------------------------------------------------------------------------


def test_the_shipped_prompts_hold_fewer_items_and_wordings_than_prompts():
    rows = [row for row in read_skills("four").split("test") if row.skills == ("plural",)]
    units = n.units_of(rows)
    assert (len(rows), units.over) == (360, "items and wordings")
    assert [factor.n_levels for factor in units.factors] == [160, 11]
    assert units.fewest == 11


def test_rows_without_items_are_counted_by_prompt_and_the_unit_says_so():
    units = n.units_of([*plain(6), *plain(6, "b")])
    assert (units.over, units.fewest) == ("prompts", 12)
    assert n.units_of(crossed(6, 1, 1)).over == "items"  # one wording was not drawn
    same = [Row(("a",), f"w{i} x", "y", "test_items", "x") for i in range(5)]
    assert n.units_of(same).over == "wordings"


def test_a_wording_is_the_prompt_without_its_item():
    assert Row(("a",), "Is ant in want?", "y", "train", "ant").wording == "Is {item} in want?"
    assert Row(("a",), "Is it in want?", "y", "train", "ant").wording == ""
    assert Row(("a",), "Is ant in?", "y", "train").wording == ""


# Coverage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("of_items", "of_wordings"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0.3)])
def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says(of_items, of_wordings):
    rng, rows = np.random.default_rng(0), crossed(40, 12, 3)
    units = n.units_of(rows)
    items, wordings = (factor.level for factor in units.factors)
    by_units = by_prompts = 0
    for _ in range(SIMULATIONS):
        x = rng.normal(size=len(rows)) + of_items * rng.normal(size=40)[items]
        x = x + of_wordings * rng.normal(size=12)[wordings]
        (low,), (high,) = n.mean_interval(n.spread(mean(x), units))
        by_units += low <= 0 <= high
        half = 1.96 * x.std(ddof=1) / np.sqrt(len(x))
        by_prompts += abs(x.mean()) <= half
    # Standard error of the share 0.95: 0.013. Noise alone is covered too often, by the greater of
    # two estimates of the same variance.
    assert 0.92 <= by_units / SIMULATIONS <= 0.995
    assert (by_prompts / SIMULATIONS < 0.90) == (of_items + of_wordings > 0)


@pytest.mark.parametrize(
    ("kind", "truth"), [("wordings", 0.98), ("wordings", 0.9), ("items", 0.97), ("prompts", 0.995)]
)
def test_the_interval_of_a_share_covers_the_truth_near_the_edge(kind, truth):
    """Wrong answers that come by wording, by item or one by one; most draws have few or none."""
    rng, rows = np.random.default_rng(1), crossed(40, 12, 3)
    units = n.units_of(rows)
    levels = {f.name: f.level for f in (*units.factors, units.cells)}[kind]
    covered = 0
    for _ in range(SIMULATIONS):
        right = (rng.random(levels.max() + 1) < truth).astype(float)[levels]
        (low,), (high,) = n.share_interval(n.spread(mean(right), units))
        covered += low <= truth <= high
    assert covered / SIMULATIONS >= 0.93


def test_the_interval_of_nmi_covers_the_truth_at_its_edges():
    rng = np.random.default_rng(2)
    rows = [row for skill in "abcd" for row in crossed(20, 6, 1, skill)]
    skill, names = n.units_of(rows).skill, "abcd"
    for blind, truth in ((1.0, 0.0), (0.0, 1.0)):
        found = metric(np.eye(4)[np.zeros(80, int) if blind else skill], rows, names)
        assert found["low"] <= truth <= found["high"]
        assert found["high"] - found["low"] > 0.05
    mixed = m.normalised_information(0.98 * np.eye(4) / 4 + 0.02 / 16)
    covered = 0
    for _ in range(60):
        pattern = np.where(rng.random(80) < 0.02, rng.integers(0, 4, 80), skill)
        (low,), (high,) = information(skill, pattern, rows)
        covered += low <= mixed <= high
    assert covered / 60 >= 0.93


def information(skill, pattern, rows):
    def statistic(weights: np.ndarray) -> np.ndarray:
        return m.normalised_information(m.contingency(skill, pattern, weights))[None]

    found = n.spread(statistic, n.units_of(rows))
    return m.information_interval(found, m.contingency(skill, pattern))


def metric(gates, rows, names, which="nmi"):
    table = m.metric_rows(gates, rows, names, 0.5)
    return table[table["metric"] == which].iloc[0]


# Edges by hand ------------------------------------------------------------------------------


def test_all_right_in_twelve_wordings_is_twelve_draws():
    rows = crossed(40, 12, 3)
    low, high = ends(np.ones(len(rows)), rows, n.share_interval)
    assert high == 1
    assert low == pytest.approx(12 / (12 + Z2), abs=1e-6)
    assert ends(np.zeros(len(rows)), rows, n.share_interval) == pytest.approx((0, 1 - low))


def test_without_items_the_interval_is_wilsons():
    for right in (20, 17, 0):
        values = np.arange(20) < right
        expected = binomtest(right, 20).proportion_ci(method="wilson")
        found = ends(values, plain(20), n.share_interval)
        # t of 19 degrees of freedom for z, and the variance of a sample: a little wider.
        assert found == pytest.approx((expected.low, expected.high), abs=0.03)


def test_one_wrong_answer_does_not_make_the_interval_narrower():
    rows = crossed(40, 12, 3)
    right = np.ones(len(rows))
    widths = []
    for wrong in range(4):
        right[:wrong] = 0
        low, high = ends(right, rows, n.share_interval)
        widths.append(high - low)
    assert 0.10 < widths[1] < widths[0] < 0.25


def test_more_levels_than_groups_are_left_out_in_groups(monkeypatch):
    values, rows = np.random.default_rng(3).normal(size=60), plain(60)
    one_by_one = ends(values, rows)
    monkeypatch.setattr(n, "MOST_GROUPS", 20)
    assert ends(values, rows) == pytest.approx(one_by_one, abs=0.15)


def test_each_skill_keeps_its_weight():
    rows = [*plain(10), *plain(10, "b")]
    low, high = ends([1.0] * 10 + [0.0] * 10, rows)
    assert (low, high) == (0.5, 0.5)
    low, high = ends([1.0, 0.0] * 10, rows)
    assert low < 0.4
    assert high > 0.6


def test_a_single_prompt_has_no_interval():
    assert np.isnan(ends([1.0, 0.0], [*plain(1), *plain(1, "b")])).all()
