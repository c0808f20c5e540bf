"""`judge` prints the tables of the pages Methods and Claims; mistakes are one line."""

import json

import pytest

from csreft_core.__main__ import main


def test_a_table_is_printed_as_rows(capsys):
    assert main(["judge", "parameters", "--table", "calculator", "--set", "rank=5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["parameters"] + rows[1]["parameters"] == 9_054_292


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods"], "give the folder of a comparison"),
        (["methods", "nowhere"], "is no comparison"),
        (
            ["claims", "--set", 'comparisons=["nowhere"]', "--set", "examples=none"],
            "is no comparison",
        ),
        (["parameters", "--table", "nothing"], "choose one of published"),
        (["parameters", "--set", "rank=2"], "this table takes no 'rank'"),
        (["parameters", "--table", "calculator", "--set", "rank=two"], "rank: Input should be"),
        (["parameters", "--table", "calculator", "--set", "rank"], "expects name=value"),
    ],
)
def test_a_mistake_is_one_line(capsys, words, message):
    assert main(["judge", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
