"""The tables of a comparison, from results that are written down by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from csreft_core.analysis import comparison as tables
from csreft_core.comparison import Asked, Comparison, Variant, begin
from csreft_core.config import Config
from csreft_core.errors import RunError

SKILLS = ("a", "b", "c")
CHANGES = [[-2.0, 0.5, -0.3], [0.1, -1.0, 0.2], [0.0, 0.0, -3.0]]
LOSSES = [[1.0, 3.0, 3.0], [1.5, 0.5, 2.0], [2.0, 0.4, 0.1]]


def result() -> dict[str, Any]:
    return {
        "state": "finished", "message": "", "steps": 10, "train_s": 2.5, "peak_bytes": 1000,
        "tokens_per_s": 50.0, "base_parameters": 2000,
        "parameters": {"subspaces": 30, "router": 10, "total": 40},
        "scores": [
            {"split": "test_items", "skill": s, "loss": 0.1, "exact_match": 0.5, "n": 8}
            for s in SKILLS
        ],
        "interference": [
            {"trained": i, "evaluated": j, "change": change, "before": 4.0, "n": 8}
            for i, row in zip(SKILLS, CHANGES, strict=True)
            for j, change in zip(SKILLS, row, strict=True)
        ],
        "sequential": [
            {"stage": t, "trained": SKILLS[t], "evaluated": j, "loss": loss, "exact_match": 0.0}
            for t, row in enumerate(LOSSES)
            for j, loss in zip(SKILLS, row, strict=True)
        ],
        "conflict": [
            {"first": "a", "second": "b", "cosine": -0.5},
            {"first": "a", "second": "c", "cosine": 0.1},
            {"first": "b", "second": "c", "cosine": None},
        ],
    }  # fmt: skip


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    asked = Asked(
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
        ["csreft", 0, "finished"], ["red", 0, "finished"], ["bitfit", 0, "failed"],
        ["csreft", 1, "missing"], ["red", 1, "missing"], ["bitfit", 1, "missing"],
    ]  # fmt: skip
    assert table["message"].tolist() == ["", "", "no biases", "", "", ""]
    assert table.loc[2:, ["total", "share", "train_s", "conflict"]].isna().all().all()


def test_counts_and_share(comparison):
    table = tables.cells(comparison).set_index(["method", "seed"])
    csreft, red = table.loc[("csreft", 0)], table.loc[("red", 0)]
    assert csreft[["subspaces", "router", "total", "share"]].tolist() == [30, 10, 40, 2.0]
    assert red["total"] == 20
    assert math.isnan(red["subspaces"])
    assert math.isnan(red["router"])


def test_the_index_is_the_mean_harm_over_the_mean_gain(comparison):
    # Off the diagonal 0.5, 0, 0.1, 0.2, 0, 0: mean 0.8 / 6. On it 2, 1, 3: mean 2.
    index = tables.cells(comparison)["interference_index"].iloc[0]
    assert index == pytest.approx(0.8 / 6 / 2)
    assert math.isnan(tables.interference_index(result()["interference"][:1]))
    assert math.isnan(tables.interference_index([]))


def test_forgetting_is_the_end_above_the_best(comparison):
    # a: 2.0 - 1.0, b: 0.4 - 0.4, c: 0.1 - 0.1.
    assert tables.cells(comparison)["forgetting"].iloc[0] == pytest.approx(1.0 / 3)
    shuffled = list(reversed(result()["sequential"]))
    assert tables.forgetting(shuffled) == pytest.approx(1.0 / 3)
    assert math.isnan(tables.forgetting([]))


def test_the_conflict_leaves_out_gradients_of_zero(comparison):
    table = tables.cells(comparison)
    assert table["conflict"].iloc[0] == pytest.approx(-0.2)
    assert math.isnan(table["conflict"].iloc[1])


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("scores", tables.SCORE_COLUMNS, 6),
        ("interference", tables.INTERFERENCE_COLUMNS, 18),
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
    asked = comparison.asked()
    assert begin(comparison.path, replace(asked, machine="another")).asked() == asked
    with pytest.raises(RunError, match="other seeds"):
        begin(comparison.path, replace(asked, seeds=(0,)))
