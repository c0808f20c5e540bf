"""The shipped results: whole, with their command, and the same numbers in the README."""

import re
from functools import cache

import pandas as pd
import pytest

from csreft_core.analysis.claim_comparison import comparison_measurements
from csreft_core.analysis.methods import main_table, read_tables
from csreft_core.base_models import load_base
from csreft_core.comparison import Comparison, shipped_comparisons
from csreft_core.config import BaseConfig
from csreft_core.identity import differences
from csreft_core.method_presets import METHODS
from tests.repository import ROOT

SHIPPED = {comparison.name: comparison for comparison in shipped_comparisons()}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = {
    "CS-ReFT": ("main", "csreft"),
    "LoReFT, one edit with as many parameters": ("main", "loreft"),
    "IA³ (8,448 parameters)": ("main", "ia3"),
    "O-LoRA": ("main", "olora"),
    "LoRA": ("main", "lora"),
    "Full fine-tuning (1,419,904)": ("main", "full"),
    "At equal total rank 8: CS-ReFT": ("rank", "csreft"),
    "LoReFT": ("rank", "loreft"),
    "CS-ReFT with gates from the labels": ("rank", "oracle"),
}
"""Row of the README's table -> comparison and method."""


def test_the_main_one_comes_first_and_has_every_method():
    assert next(iter(SHIPPED)) == "main"
    assert set(SHIPPED["main"].asked().methods) == set(METHODS)


@pytest.mark.parametrize("comparison", SHIPPED.values(), ids=list(SHIPPED))
def test_every_cell_is_there_with_five_seeds_and_the_command(comparison: Comparison):
    asked = comparison.asked()
    assert len(asked.seeds) >= 5
    assert asked.command.startswith("python -m csreft_core compare")
    assert asked.machine
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", asked.date)
    failed = {m for m, seed in comparison.cells() if comparison.state(m, seed) != "finished"}
    assert failed <= {"bitfit"}  # the base has no biases


def test_they_were_made_on_the_shipped_base():
    fingerprint = load_base(BaseConfig()).fingerprint
    recorded = {c.asked().base_fingerprint for c in SHIPPED.values()}
    assert [differences(record, fingerprint) for record in recorded] == [()] * len(recorded)


MEASURES = (("exact_match", 3), ("joint_harm_exact", 2), ("joint_harm", 2), ("harm", 2),
            ("forgetting_exact", 2), ("forgetting", 2))  # fmt: skip
"""Columns of the README's table, with their digits."""


@cache
def summaries() -> dict[str, pd.DataFrame]:
    return {name: main_table(str(c.path)).set_index("method") for name, c in SHIPPED.items()}


@cache
def measured() -> dict[str, dict]:
    tables = [read_tables(str(comparison.path)) for comparison in SHIPPED.values()]
    return {row["condition"]: row for row in comparison_measurements(tables)}


def written(row: pd.Series, measure: str, digits: int) -> str:
    if pd.isna(row[measure]):
        return "not measured"
    value, low, high = (f"{row[f'{measure}{end}']:.{digits}f}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]" if row[f"{measure}_seeds"] > 1 else f"{value} (one seed)"


@pytest.mark.parametrize("row", ROWS)
def test_the_readme_has_the_numbers_of_the_table(row):
    name, method = ROWS[row]
    found = summaries()[name].loc[method]
    lines = [line.replace("**", "") for line in README.splitlines()]
    assert f"| {row} | {' | '.join(written(found, *m) for m in MEASURES)} |" in lines


def mean(comparison: str, method: str, measure: str, digits: int = 2) -> str:
    return f"{summaries()[comparison].loc[method, measure]:.{digits}f}"


def difference(condition: str, digits: int = 2, sign: int = 1) -> str:
    row = measured()[condition]
    ends = sorted(sign * row[end] for end in ("low", "high"))
    value, low, high = (f"{x:.{digits}f}".replace("-", "−") for x in (sign * row["value"], *ends))
    return f"{value} [{low}, {high}]"


def phrases() -> list[str]:
    """Every statement of the README about methods, with its numbers."""
    lost = "joint_harm_exact"
    fits = sum(summaries()["main"]["seeds"] > 0)
    return [
        f"{fits} methods, five seeds",
        f"cost the others {mean('rank', 'csreft', lost)} of their exact match with CS-ReFT and "
        f"{mean('rank', 'loreft', lost)} with one LoReFT of the same total rank",
        f"{mean('main', 'csreft', lost)} with CS-ReFT, {mean('main', 'olora', lost)} with O-LoRA, "
        f"{mean('main', 'ia3', lost)} with IA³ and {mean('main', 'lora', lost)} with LoRA",
        f"alike ({mean('rank', 'csreft', 'harm')} and {mean('rank', 'loreft', 'harm')} nats a "
        "token)",
        f"less than LoRA, by {difference('C1.lora', sign=-1)}, and than O-LoRA, by "
        f"{difference('C2.olora', sign=-1)} nats",
        f"on all prompt tokens CS-ReFT differs from it by {difference('C2.positions')}",
        f"the gates given, the others lose {mean('rank', 'oracle', lost, 3)}",
        f"without any constraint {mean('constraint_oracle', 'none', 'harm', 3)} nats from the "
        "untrained start, with all subspaces orthonormal "
        f"{mean('constraint_oracle', 'joint', 'harm', 3)}",
        f"more than none ({mean('constraint', 'joint', 'harm')} and "
        f"{mean('constraint', 'none', 'harm')} nats)",
    ]


def test_every_statement_of_the_readme_has_the_numbers_of_the_tables():
    text = " ".join(README.replace("**", "").split())
    assert [phrase for phrase in phrases() if phrase not in text] == []


def test_the_index_is_shipped_only_where_the_gain_is_shown():
    hidden = summaries()["main"].index[~summaries()["main"]["gain_shown"].astype(bool)]
    assert set(hidden) == {"direft", "noreft", "consreft", "lobireft", "bitfit"}
    assert summaries()["main"].loc[hidden, "interference_index"].isna().all()


def test_a_skill_has_answers_to_lose_from_the_joint_start_alone():
    """What the two starts are for: nothing works before training, nearly everything after it."""
    table = read_tables(str(SHIPPED["rank"].path)).interference
    before = table[table["start"] == "joint"].groupby("method")["exact_before"].mean()
    assert (before > 0.95).all()
    assert (table.groupby("start")["before"].mean()["untrained"]) > 0.9
