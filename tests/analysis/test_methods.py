"""The tables of a comparison, from results that are written down by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from csreft_core.analysis.methods import comparison as tables
from csreft_core.comparison.folder import Comparison, Plan, Variant, begin, missing_starts
from csreft_core.config import Config
from csreft_core.errors import RunError

SKILLS = ("a", "b", "c")
CHANGES = [[-2.0, 0.5, -0.3], [0.1, -1.0, 0.2], [0.0, 0.0, -3.0]]
EXACT_CHANGES = [[0.9, -0.5, 0.25], [0.0, 0.75, -0.25], [-1.0, 0.0, 0.6]]
LOSSES = [[1.0, 3.0, 3.0], [1.5, 0.5, 2.0], [2.0, 0.4, 0.1]]
EXACT = [[0.8, 0.0, 0.0], [0.9, 1.0, 0.0], [0.2, 0.25, 1.0]]


def alone(start: str, part: float) -> list[dict[str, Any]]:
    """Rows of training on one skill alone: `part` of the changes above."""
    return [
        {
            "start": start,
            "trained": SKILLS[i],
            "evaluated": SKILLS[j],
            "change": part * CHANGES[i][j],
            "before": 4.0 * part,
            "exact_change": part * EXACT_CHANGES[i][j],
            "exact_before": 0.5,
            "n": 8,
        }
        for i in range(3)
        for j in range(3)
    ]


def result() -> dict[str, Any]:
    return {
        "state": "finished",
        "message": "",
        "steps": 10,
        "train_s": 2.5,
        "peak_bytes": 1000,
        "tokens_per_s": 50.0,
        "base_parameters": 2000,
        "parameters": {"subspaces": 30, "router": 10, "total": 40},
        "scores": [
            {"split": "test_items", "skill": s, "loss": 0.1, "exact_match": 0.5, "n": 8}
            for s in SKILLS
        ],
        "interference": [*alone("untrained", 1.0), *alone("joint", 0.5)],
        "sequential": [
            {"stage": t, "trained": SKILLS[t], "evaluated": j, "loss": loss, "exact_match": exact}
            for t in range(3)
            for j, loss, exact in zip(SKILLS, LOSSES[t], EXACT[t], strict=True)
        ],
        "conflict": [
            {"first": "a", "second": "b", "cosine": -0.5},
            {"first": "a", "second": "c", "cosine": 0.1},
            {"first": "b", "second": "c", "cosine": None},
        ],
    }


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    asked = Plan(
        name="main",
        variants={name: Variant(config=Config()) for name in ("csreft", "red", "bitfit")},
        seeds=(0, 1),
        single_steps=5,
        sequential_steps=5,
        per_skill=None,
        budget=None,
        base_fingerprint="0" * 64,
        command="python -m csreft_core compare",
        machine="a machine",
        date="2026-01-01",
        versions={},
    )
    made = begin(tmp_path / "made", asked)
    made.write_result("csreft", 0, result())
    made.write_result("red", 0, {**result(), "parameters": {"total": 20}, "conflict": []})
    made.write_result("bitfit", 0, {"state": "failed", "message": "no biases"})
    return made


def test_cells_that_failed_or_are_missing_stay_in_the_table(comparison):
    table = tables.cells(comparison)
    assert tuple(table.columns) == tables.CELL_COLUMNS
    assert table[["method", "seed", "state"]].to_numpy().tolist() == [
        ["csreft", 0, "finished"],
        ["red", 0, "finished"],
        ["bitfit", 0, "failed"],
        ["csreft", 1, "missing"],
        ["red", 1, "missing"],
        ["bitfit", 1, "missing"],
    ]
    assert table["message"].tolist() == ["", "", "no biases", "", "", ""]
    assert table.loc[2:, ["total", "share", "train_s", "conflict"]].isna().all().all()


def test_counts_and_share(comparison):
    table = tables.cells(comparison).set_index(["method", "seed"])
    rows: list[Any] = [table.loc[(method, 0)] for method in ("csreft", "red")]
    csreft, red = rows
    assert csreft[["subspaces", "router", "total", "share"]].tolist() == [30, 10, 40, 2.0]
    assert red["total"] == 20
    assert math.isnan(red["subspaces"])
    assert math.isnan(red["router"])


@pytest.mark.fast
def test_harm_and_gain_by_hand_from_both_starts(comparison):
    cell = tables.cells(comparison).iloc[0]
    # Loss, off the diagonal: 0.5, 0, 0.1, 0.2, 0, 0 are worse, 0.8 / 6; on it -2, -1, -3.
    assert cell["harm"] == pytest.approx(0.8 / 6)
    assert cell["gain"] == pytest.approx(2.0)
    assert cell["to_gain"] == 4.0
    # Exact match, off the diagonal: 0.5, 0, 0, 0.25, 1, 0 are lost, 1.75 / 6; on it 0.9, 0.75, 0.6.
    assert cell["harm_exact"] == pytest.approx(1.75 / 6)
    assert cell["gain_exact"] == pytest.approx(0.75)
    # From the joint start the made-up changes are half as large.
    assert cell["joint_harm"] == pytest.approx(0.4 / 6)
    assert cell["joint_harm_exact"] == pytest.approx(0.875 / 6)


def test_help_does_not_hide_harm_and_what_is_not_known_is_not_zero():
    rows = alone("joint", 1.0)
    worst = [{**row, "change": 0.6, "exact_change": -0.3} for row in rows]
    half = [row if i % 2 else rows[i] | {"change": -9.0} for i, row in enumerate(worst)]
    assert tables.harm(worst) == pytest.approx(0.6)
    assert tables.harm(worst, "exact_change") == pytest.approx(0.3)
    # Four of the nine rows, all off the diagonal, keep 0.6; the two others help and count as 0.
    assert tables.harm(half) == pytest.approx(4 * 0.6 / 6)
    assert tables.gain(worst) == pytest.approx(-0.6)
    for unknown in ([], rows[:1], [{**row, "change": None} for row in rows]):
        assert math.isnan(tables.harm(unknown))
    assert math.isnan(tables.gain([]))


def test_a_result_of_before_has_one_start_and_no_exact_match(comparison):
    rows = alone("untrained", 1.0)
    old = [{n: r[n] for n in ("trained", "evaluated", "change", "before", "n")} for r in rows]
    comparison.write_result("csreft", 0, {**result(), "interference": old})
    assert missing_starts({"interference": old}) == ["untrained", "joint"]
    assert missing_starts(result()) == []
    cell = tables.cells(comparison).iloc[0]
    assert cell["harm"] == pytest.approx(0.8 / 6)
    assert cell[["harm_exact", "gain_exact", "joint_harm", "joint_harm_exact"]].isna().all()
    table = tables.interference(comparison)
    assert set(table.loc[table["method"] == "csreft", "start"]) == {"untrained"}
    assert set(table.loc[table["method"] == "red", "start"]) == {"untrained", "joint"}


def test_forgetting_is_the_end_against_the_best_without_the_skill_learned_last(comparison):
    # Loss: a 2.0 - 1.0, b 0.4 - 0.5; c comes last, and nothing follows it.
    cell = tables.cells(comparison).iloc[0]
    assert cell["forgetting"] == pytest.approx((1.0 - 0.1) / 2)
    # Exact match: a 0.9 - 0.2, b 1.0 - 0.25.
    assert cell["forgetting_exact"] == pytest.approx((0.7 + 0.75) / 2)
    shuffled = list(reversed(result()["sequential"]))
    assert tables.forgetting(shuffled) == pytest.approx(0.9 / 2)
    assert tables.forgetting(shuffled, "exact_match") == pytest.approx(1.45 / 2)
    for nothing in ([], result()["sequential"][:3]):
        assert math.isnan(tables.forgetting(nothing))


def test_the_conflict_leaves_out_gradients_of_zero(comparison):
    table = tables.cells(comparison)
    assert table["conflict"].iloc[0] == pytest.approx(-0.2)
    assert math.isnan(table["conflict"].iloc[1])


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("scores", tables.SCORE_COLUMNS, 6),
        ("interference", tables.INTERFERENCE_COLUMNS, 36),
        ("sequential", tables.SEQUENTIAL_COLUMNS, 18),
        ("conflict", tables.CONFLICT_COLUMNS, 3),
    ],
)
def test_long_tables(comparison, name, columns, rows):
    table = getattr(tables, name)(comparison)
    assert tuple(table.columns) == columns
    assert len(table) == rows
    assert set(table["method"]) <= {"csreft", "red"}
    expected = [{"method": "csreft", "seed": 0, **row} for row in result()[name]]
    first = table[table["method"] == "csreft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        first, pd.DataFrame(expected)[list(columns)].replace({None: math.nan}), check_dtype=False
    )


def test_a_comparison_without_a_result_has_empty_tables(comparison):
    for method in ("csreft", "red", "bitfit"):
        (comparison.cell_path(method, 0) / "result.json").unlink()
    assert (tables.cells(comparison)["state"] == "missing").all()
    assert tables.scores(comparison).empty
    assert tables.interference(comparison)["change"].dtype == float


def test_a_broken_result_names_its_file(comparison):
    path = comparison.cell_path("red", 0) / "result.json"
    path.write_text(json.dumps({"state": "half"}))
    with pytest.raises(RunError, match=r"red-0.*delete it"):
        tables.cells(comparison)


def test_numbers_that_are_not_finite_become_null(comparison):
    comparison.write_result("red", 1, {"state": "finished", "train_s": math.inf})
    assert comparison.result("red", 1) == {"state": "finished", "train_s": None}


def test_the_same_comparison_goes_on_and_another_does_not(comparison):
    asked = comparison.plan()
    assert begin(comparison.path, replace(asked, machine="another")).plan() == asked
    with pytest.raises(RunError, match="other seeds"):
        begin(comparison.path, replace(asked, seeds=(0,)))
