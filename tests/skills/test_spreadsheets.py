"""CSV that a spreadsheet opens without running anything."""

import csv
import io

import pandas as pd
import pytest

from csreft_core.skills.skill_set import Row, as_csv
from csreft_core.skills.spreadsheets import csv_text, harmless

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", " =1", "-1+2", "- a list", "=", "-", "+-1"],
)
def test_a_formula_becomes_a_text(text):
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "dog", "-1", "+2.5", "-.5e-3", "1=1", "a-b", "'=1", "<unk>"])
def test_other_texts_and_numbers_stay(text):
    assert harmless(text) == text


def test_a_table_keeps_its_numbers():
    table = pd.DataFrame(
        {"=name": ["=1", "-", None], "value": [-1.5, 2.0, 3.0], "n": [-1, 0, 1], "on": [True] * 3}
    )
    read = pd.read_csv(io.StringIO(csv_text(table)))
    assert list(read) == ["'=name", "value", "n", "on"]
    assert read["'=name"].tolist()[:2] == ["'=1", "'-"]
    assert read["'=name"].isna().tolist() == [False, False, True]
    assert read["value"].tolist() == [-1.5, 2.0, 3.0]
    assert read["n"].tolist() == [-1, 0, 1]
    assert csv_text(table).count("\r") == 0
    assert table["=name"][0] == "=1"  # the table itself is left alone


def test_so_is_a_skill_set():
    rows = [Row(("=a",), "-2 + 2 is?", "@x", "train"), Row(("b",), "dog", "-3", "train")]
    cells = list(csv.reader(io.StringIO(as_csv(rows))))
    assert cells[1:] == [
        ["'=a", "'-2 + 2 is?", "'@x", "train", ""],
        ["b", "dog", "-3", "train", ""],
    ]
