"""The papers' printed tables: complete, adding up, and each number with its origin."""

import pytest

from csreft_core.analysis.claims import paper_tables as t
from csreft_core.analysis.claims import parameter_formulas as f
from csreft_core.errors import ConfigError

pytestmark = pytest.mark.fast


def test_every_number_says_where_it_is_printed_and_who_measured_it():
    for name in t.table_names():
        table = t.results_table(name=name)
        assert table["value"].notna().all()
        assert (table[["printed_in", "origin", "unit", "method"]] != "").all(axis=None)


@pytest.mark.parametrize("name", ["commonsense", "arithmetic", "glue"])
def test_printed_averages_are_the_means_of_their_row(name):
    table = t.results_table(name=name)
    keys = ["base", "method"]
    average = table[table["task"] == t.AVERAGE].set_index(keys)["value"]
    means = table[table["task"] != t.AVERAGE].groupby(keys, sort=False)["value"].mean()
    assert len(average) == len(means) > 10
    # Printed with one digit, so half a unit of it.
    assert (average - means).abs().max() <= 0.0501


def test_the_rows_that_cs_reft_copied_equal_those_of_reft():
    copied = t.results_table(name="csreft").set_index("method")
    original = t.results_table(name="instructions").set_index("method")
    names = copied.index.drop("CS-ReFT")
    assert len(names) == 8
    assert (copied.loc[names, "value"] == original.loc[names, "value"]).all()
    assert copied.loc[names, "origin"].str.contains("copied").all()
    assert copied.loc["CS-ReFT", "value"] == 93.94
    assert "copied" not in copied.loc["CS-ReFT", "origin"]


def test_printed_shares_are_those_of_the_calculator():
    llama = f.shape_of("Llama-2 7B")
    printed = t.results_table(name="instructions").set_index("method")["share"]
    lora = f.share(f.lora_parameters(llama, 16, ("q", "v")), llama.parameters)
    assert printed["LoRA"] == pytest.approx(lora, abs=5e-5)
    assert printed["RED"] == pytest.approx(
        f.share(f.red_parameters(llama), llama.parameters), abs=5e-5
    )


def test_no_win_rate_of_801_to_805_answers_prints_93_94_but_800_does():
    def prints(n):
        return any(f"{100 * half / (2 * n):.2f}" == "93.94" for half in range(2 * n + 1))

    assert not any(prints(n) for n in range(801, 806))
    assert prints(800)


def test_the_wide_form_has_a_column_for_each_task_and_loses_no_row():
    for name, rows in t.contents_table().set_index("table")["rows"].items():
        table = t.results_table(name=name)
        wide = t.wide(table)
        assert len(wide) == rows
        assert list(wide)[3:-1] == list(dict.fromkeys(table["task"]))
    first = t.wide(t.results_table(name="csreft"))
    assert first["AlpacaEval 1.0"].tolist()[-1] == 93.94


def test_an_unknown_table_is_refused():
    with pytest.raises(ConfigError, match="choose one of commonsense"):
        t.results_table(name="table 9")


def test_the_release_differs_where_it_says_so():
    table = t.release_table()
    assert list(table) == ["topic", "paper", "paper_at", "release", "release_at"]
    assert table["topic"].is_unique
    stated = table[table["release"] != "not stated"]
    assert (stated["release_at"] != "").all()
    router = f"{f.paper_router_parameters(4096, 4):,}"
    assert router in table.set_index("topic").loc["what is trained", "release"]
