"""The verdict rules on synthetic measurements: on both sides of every bound, and on it."""

import math

import numpy as np
import pandas as pd
import pytest

from csreft_core.analysis.claims import rules as c
from csreft_core.analysis.statistics.seed_intervals import paired_differences, seed_mean
from tests.repository import ROOT

EVERY = pytest.mark.parametrize("condition", c.CONDITIONS, ids=lambda condition: condition.name)


def measured(condition: c.Condition, low: float, high: float, **other) -> dict:
    row = {
        "condition": condition.name,
        "value": (low + high) / 2,
        "low": low,
        "high": high,
        "control_value": math.nan,
        "n": 30,
        "seeds": 5,
        "over": "seeds",
        "source": "synthetic",
    }
    return row | other


def met(condition: c.Condition) -> dict:
    """An interval that lies wholly on the side that the claim needs."""
    sign = 1 if condition.must == "above" else -1
    near, far = condition.bound + 0.01 * sign, condition.bound + 0.02 * sign
    return measured(condition, min(near, far), max(near, far))


def judged(rows: list[dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    conditions = c.judge_conditions(pd.DataFrame(rows, columns=list(c.MEASURE_COLUMNS)))
    return conditions.set_index("condition"), c.judge_claims(conditions).set_index("claim")


def all_but(condition: c.Condition, row: dict | None) -> tuple[str, str]:
    """Finding and verdict where every other condition is met."""
    rows = [met(other) for other in c.CONDITIONS if other is not condition]
    conditions, verdicts = judged(rows if row is None else [*rows, row])
    finding = conditions.loc[condition.name, "finding"]
    return str(finding), str(verdicts.loc[condition.claim, "verdict"])


@EVERY
def test_an_interval_beyond_the_bound_meets_the_condition(condition):
    assert all_but(condition, met(condition)) == (c.SHOWN, best(condition))


def best(condition: c.Condition) -> str:
    """The verdict where all is shown: R1 is true by construction, whatever a model does."""
    return c.IDENTITY if condition.claim == "R1" else c.HOLDS


@EVERY
def test_an_interval_on_the_other_side_shows_the_opposite(condition):
    sign = -1 if condition.must == "above" else 1
    ends = sorted((condition.bound + 0.01 * sign, condition.bound + 0.02 * sign))
    assert all_but(condition, measured(condition, *ends)) == (c.OPPOSITE, c.FAILS)


@EVERY
def test_an_interval_around_the_bound_shows_nothing(condition):
    row = measured(condition, condition.bound - 0.01, condition.bound + 0.01)
    assert all_but(condition, row) == (c.NOT_SHOWN, c.UNDECIDED)


@EVERY
@pytest.mark.parametrize("sign", [-0.01, 0.01])
def test_an_interval_that_touches_the_bound_shows_nothing(condition, sign):
    ends = sorted((condition.bound, condition.bound + sign))
    assert all_but(condition, measured(condition, *ends)) == (c.NOT_SHOWN, c.UNDECIDED)


@EVERY
def test_a_value_on_the_bound_shows_nothing(condition):
    row = measured(condition, condition.bound, condition.bound)
    assert all_but(condition, row) == (c.NOT_SHOWN, c.UNDECIDED)


@EVERY
def test_the_smallest_step_beyond_the_bound_counts(condition):
    towards = math.inf if condition.must == "above" else -math.inf
    end = math.nextafter(condition.bound, towards)
    assert all_but(condition, measured(condition, end, end)) == (c.SHOWN, best(condition))


@EVERY
def test_what_is_missing_is_not_measured(condition):
    assert all_but(condition, None) == ("", c.UNMEASURED)
    nothing = measured(condition, math.nan, math.nan)
    assert all_but(condition, nothing) == ("", c.UNMEASURED)


@EVERY
def test_two_seeds_are_too_few_and_three_are_enough(condition):
    few, enough = ({"seeds": seeds, "over": over} for seeds, over in ((2, "seeds"), (3, "seeds")))
    known = ("", c.UNMEASURED) if best(condition) == c.HOLDS else (c.SHOWN, c.IDENTITY)
    assert all_but(condition, met(condition) | few) == known
    assert all_but(condition, met(condition) | enough) == (c.SHOWN, best(condition))
    # One run with an interval over its prompts is one seed; arithmetic needs none.
    assert all_but(condition, met(condition) | {"seeds": 1, "over": "prompts"}) == known
    exact = {"seeds": 0, "over": "arithmetic"}
    assert all_but(condition, met(condition) | exact) == (c.SHOWN, best(condition))


def test_one_condition_against_it_is_enough_though_another_is_missing():
    first, second, *_others = (x for x in c.CONDITIONS if x.claim == "C1")
    against = measured(first, first.bound + 1, first.bound + 2)
    assert judged([against])[1].loc["C1", "verdict"] == c.FAILS
    assert judged([met(second)])[1].loc["C1", "verdict"] == c.UNMEASURED


def test_only_c6_cannot_be_tested():
    _, nothing = judged([])
    _, everything = judged([met(condition) for condition in c.CONDITIONS])
    for verdicts in (nothing, everything):
        untestable = verdicts[verdicts["verdict"] == c.UNTESTABLE]
        assert list(untestable.index) == ["C6"]
        assert (untestable["why_not"] != "").all()
    assert set(nothing["verdict"].drop("C6")) == {c.UNMEASURED}
    assert set(everything["verdict"].drop(["C6", "R1"])) == {c.HOLDS}
    assert everything.loc["R1", "verdict"] == c.IDENTITY
    assert "checks the code" in everything.loc["R1", "why_not"]


def test_every_testable_claim_has_conditions_and_every_condition_a_claim():
    names = {claim.name for claim in c.CLAIMS if not claim.why_not}
    assert names == {condition.claim for condition in c.CONDITIONS}
    assert len({condition.name for condition in c.CONDITIONS}) == len(c.CONDITIONS)


def test_the_documentation_states_every_rule():
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    for condition in c.CONDITIONS:
        line = f"| {condition.name} | {condition.quantity} | {condition.control} |"
        assert f"{line} {condition.rule} |" in text
    assert text.count("\n| C") + text.count("\n| R") == len(c.CONDITIONS) + 1  # with the heading


def test_the_seed_interval_by_hand():
    # 1, 2, 3, 4, 5: mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445; half = 2.776445 sqrt(2.5 / 5).
    found = seed_mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3
    assert found.high - 3 == pytest.approx(1.963243, abs=1e-6)
    assert 3 - found.low == pytest.approx(1.963243, abs=1e-6)
    alike = seed_mean([0.25] * 4)
    assert (alike.low, alike.high) == (0.25, 0.25)
    one = seed_mean([2.0])
    assert one.value == 2
    assert math.isnan(one.low)
    assert math.isnan(seed_mean([]).value)


def test_the_seed_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    found = [seed_mean(list(row)) for row in draws]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in found])
    # Standard error of the share: sqrt(0.95 * 0.05 / 2000) = 0.005.
    assert covered == pytest.approx(0.95, abs=0.015)


def test_differences_are_taken_seed_by_seed():
    table = pd.DataFrame(
        [
            ("a", 0, 1.0),
            ("a", 1, 2.0),
            ("a", 2, 9.0),
            ("b", 0, 0.5),
            ("b", 1, 1.0),
            ("b", 3, 7.0),
            ("b", 2, math.nan),
        ],
        columns=["method", "seed", "x"],
    )
    assert paired_differences(table, "x", "a", "b") == [0.5, 1.0]
    assert paired_differences(table, "x", "a", "c") == []
