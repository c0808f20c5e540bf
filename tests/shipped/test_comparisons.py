"""The shipped comparisons: whole, and with their command. The README: see `architecture`."""

import re

import pytest

from csreft_core.analysis.methods.tables import main_table, read_tables
from csreft_core.base.load import load_base
from csreft_core.comparison.folder import Comparison, shipped_comparisons
from csreft_core.config import BaseConfig
from csreft_core.methods.presets import METHODS
from csreft_core.reft.base_record import differences

SHIPPED = {comparison.name: comparison for comparison in shipped_comparisons()}


@pytest.mark.fast
def test_the_main_one_comes_first_and_has_every_method():
    assert next(iter(SHIPPED)) == "main"
    assert set(SHIPPED["main"].plan().methods) == set(METHODS)


@pytest.mark.parametrize("comparison", SHIPPED.values(), ids=list(SHIPPED))
def test_every_cell_is_there_with_five_seeds_and_the_command(comparison: Comparison):
    asked = comparison.plan()
    assert len(asked.seeds) >= 5
    assert asked.command.startswith("python -m csreft_core compare")
    assert asked.machine
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", asked.date)
    failed = {m for m, seed in comparison.cells() if comparison.state(m, seed) != "finished"}
    assert failed <= {"bitfit"}  # the base has no biases


def test_they_were_made_on_the_shipped_base():
    fingerprint = load_base(BaseConfig()).fingerprint
    recorded = {c.plan().base_fingerprint for c in SHIPPED.values()}
    assert [differences(record, fingerprint) for record in recorded] == [()] * len(recorded)


def test_the_index_is_shipped_only_where_the_gain_is_shown():
    table = main_table(str(SHIPPED["main"].path)).set_index("method")
    hidden = table.index[~table["gain_shown"].astype(bool)]
    assert set(hidden) == {"direft", "noreft", "consreft", "lobireft", "bitfit"}
    assert table.loc[hidden, "interference_index"].isna().all()


def test_a_skill_has_answers_to_lose_from_the_joint_start_alone():
    """What the two starts are for: nothing works before training, nearly everything after it."""
    table = read_tables(str(SHIPPED["rank"].path)).interference
    before = table[table["start"] == "joint"].groupby("method")["exact_before"].mean()
    assert (before > 0.95).all()
    assert (table.groupby("start")["before"].mean()["untrained"]) > 0.9
