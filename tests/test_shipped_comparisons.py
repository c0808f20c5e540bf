"""The shipped results: whole, with their command, and the same numbers in the README."""

import re

import pytest

from csreft_core.analysis.methods import main_table
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


@pytest.mark.parametrize("row", ROWS)
def test_the_readme_has_the_numbers_of_the_table(row):
    name, method = ROWS[row]
    table = main_table(str(SHIPPED[name].path)).set_index("method").loc[method]
    exact, index, forgetting = (
        f"{table[m]:.{n}f} [{table[f'{m}_low']:.{n}f}, {table[f'{m}_high']:.{n}f}]"
        for m, n in (("exact_match", 3), ("interference_index", 2), ("forgetting", 2))
    )
    lines = [line.replace("**", "") for line in README.splitlines()]
    assert f"| {row} | {exact} | {index} | {forgetting} |" in lines
