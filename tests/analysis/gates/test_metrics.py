"""Metrics of gates against cases worked out by hand, scikit-learn and brute force."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from csreft_core.analysis.gates import metrics as m
from csreft_core.skills.skill_set import Row

pytestmark = pytest.mark.fast

SKILLS = ("a", "b", "c", "d")


def prompts(skills):
    """Prompts of these skills that name no item, so each stands for itself."""
    return [Row((skill,), f"prompt {i}", "y", "test_items") for i, skill in enumerate(skills)]


def rows_of(gates, skills, threshold=0.5):
    names = SKILLS[: gates.shape[1]]
    found = m.metric_rows(gates, prompts(skills), names, threshold)
    return found.set_index(["metric", "subspace"])


def value(rows, metric, subspace="") -> Any:
    return rows.loc[(metric, subspace), "value"]


def test_gates_that_open_the_true_skill_alone_tell_everything():
    rows = rows_of(np.tile(np.eye(4), (5, 1)), SKILLS * 5)
    assert value(rows, "nmi") == pytest.approx(1.0)
    assert value(rows, "matched_accuracy") == 1.0
    assert value(rows, "usage_balance") == pytest.approx(1.0)
    assert value(rows, "mean_entropy") == 0.0
    assert value(rows, "sharpness") == 0.0
    assert value(rows, "active_count") == 1.0
    assert value(rows, "dead_gates") == value(rows, "always_open_gates") == 0.0
    assert value(rows, "probe_accuracy") == 1.0
    low, high = rows.loc[("nmi", ""), ["low", "high"]]
    assert low < 0.8 < 1.0 == high  # 20 prompts do not rule out a twenty-first


def test_swapped_names_lose_no_information():
    rows = rows_of(np.tile(np.eye(4)[[2, 0, 3, 1]], (5, 1)), SKILLS * 5)
    assert value(rows, "nmi") == pytest.approx(1.0)
    assert value(rows, "matched_accuracy") == 1.0


def test_constant_gates_tell_nothing():
    rows = rows_of(np.tile([0.9, 0.5, 0.1, 0.3], (20, 1)), SKILLS * 5)
    assert value(rows, "nmi") == 0.0
    assert rows.loc[("nmi", ""), "high"] > 0.1
    assert value(rows, "probe_accuracy") <= 0.25
    assert value(rows, "matched_accuracy") == 0.25
    assert value(rows, "range", "a") == 0.0
    assert value(rows, "variance", "a") == pytest.approx(0.0, abs=1e-15)
    assert value(rows, "entropy", "b") == pytest.approx(np.log(2))
    assert value(rows, "dead_gates") == 3.0  # 0.5 is not above the threshold
    assert value(rows, "always_open_gates") == 1.0


def test_shuffled_gates_tell_next_to_nothing():
    rng = np.random.default_rng(0)
    gates = np.eye(4)[rng.permutation(np.repeat(np.arange(4), 500))]
    rows = rows_of(gates, [skill for skill in SKILLS for _ in range(500)])
    # Of 2,000 prompts chance leaves about (4 - 1)^2 / (2 * 2000 * ln 4) = 0.0016.
    assert 0 < value(rows, "nmi") < 0.006
    assert value(rows, "matched_accuracy") == pytest.approx(0.25, abs=0.04)


def test_one_skill_has_no_information_to_tell():
    rows = rows_of(np.array([[0.9, 0.1], [0.1, 0.9]]), ["a", "a"])
    assert np.isnan(value(rows, "nmi"))


def test_numbers_by_hand():
    gates = np.array([[0.5, 0.0], [0.7, 1.0]])
    rows = rows_of(gates, ["a", "b"])
    assert value(rows, "variance", "a") == pytest.approx(0.01)  # (0.1^2 + 0.1^2) / 2
    assert value(rows, "range", "a") == pytest.approx(0.2)
    assert value(rows, "sharpness") == pytest.approx((0.5 + 0 + 0.3 + 0) / 4)
    assert value(rows, "open_share", "a") == 0.5
    assert value(rows, "active_count") == 1.0  # none, then both
    h = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    assert value(rows, "mean_entropy") == pytest.approx((np.log(2) + h) / 4)
    share = np.array([0.6, 0.5]) / 1.1
    assert value(rows, "usage_balance") == pytest.approx(-(share * np.log(share)).sum() / np.log(2))


def test_usage_balance_of_one_subspace_and_of_none():
    assert np.isnan(m.usage_balance(np.array([0.4])))
    assert np.isnan(m.usage_balance(np.zeros(3)))
    assert m.usage_balance(np.array([0.4, 0.0])) == 0.0
    assert m.usage_balance(np.array([0.2, 0.2])) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_information_is_scikit_learns_and_matching_is_the_best_permutation(seed):
    rng = np.random.default_rng(seed)
    skill, pattern = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    skill[:4] = pattern[:4] = range(4)
    counts = m.contingency(skill, pattern)
    expected = normalized_mutual_info_score(skill, pattern)
    assert m.normalised_information(counts) == pytest.approx(expected)
    best = max(sum(counts[i, p[i]] for i in range(4)) for p in permutations(range(4)))
    assert m.matched_accuracy(counts) == pytest.approx(best / 60)
    twice = m.contingency(skill, pattern, np.stack([np.ones(60), 2 * np.ones(60)]))
    assert m.normalised_information(twice) == pytest.approx([expected, expected])


def test_the_interval_is_that_of_a_mean():
    gates = np.random.default_rng(1).uniform(size=(400, 1))
    table = m.mean_rows(gates, prompts(["a"] * 400), ["x"])
    row, half = table.iloc[0], 1.966 * gates.std(ddof=1) / 20  # t of 399 degrees of freedom
    assert row["low"] == pytest.approx(gates.mean() - half, abs=1e-3 * half)
    assert row["high"] == pytest.approx(gates.mean() + half, abs=1e-3 * half)
    assert row["n"] == 400


def test_soft_gates_can_carry_a_skill_that_no_open_gate_tells():
    """All gates are open, a little more for the own skill: NMI 0, and a probe reads every one."""
    rows = rows_of(np.tile(0.8 + 0.1 * np.eye(4), (5, 1)), SKILLS * 5)
    assert value(rows, "nmi") == 0.0
    assert value(rows, "probe_accuracy") == 1.0


def test_a_single_prompt_has_no_interval():
    rows = rows_of(np.array([[0.9, 0.1], [0.1, 0.9]]), ["a", "b"])
    assert rows["low"].isna().all()
    assert rows["high"].isna().all()
    assert rows["value"].notna().all()


def test_patterns_are_named():
    opened = np.array([[True, False], [True, True], [False, False]])
    assert m.patterns(opened, ["x", "y"]) == ["x", "x+y", "none"]
