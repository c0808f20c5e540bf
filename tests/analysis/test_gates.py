"""Gate tables from an engine, their range, their information on the skill, and sentences."""

import pandas as pd
import pytest

from csreft_core.analysis import gates as g
from csreft_core.engine import Engine
from tests.tiny import make_adapter, tiny_base


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def table(*gates, skills=("a", "b", "a")):
    rows = [
        (f"p{i}", skill, name, value)
        for i, (skill, row) in enumerate(zip(skills, gates, strict=False))
        for name, value in zip(("a", "b"), row, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(g.COLUMNS))


def test_gates_table_is_long_and_in_order(engine):
    adapter, skills = make_adapter(engine.base), ["skill 1", "skill 0+skill 1"]
    found = g.gates_table(engine, adapter, ["w5", "w6 w7"], skills, "oracle", template="{prompt}")
    assert list(found.columns) == list(g.COLUMNS)
    assert found.values.tolist() == [
        ["w5", "skill 1", "skill 0", 0.0],
        ["w5", "skill 1", "skill 1", 1.0],
        ["w6 w7", "skill 0+skill 1", "skill 0", 1.0],
        ["w6 w7", "skill 0+skill 1", "skill 1", 1.0],
    ]


def test_gates_table_is_what_the_engine_says(engine):
    adapter, prompts = make_adapter(engine.base), ["w5", "w6 w7"]
    found = g.gates_table(engine, adapter, prompts, template="w9 {prompt}")
    assert found["skill"].tolist() == [""] * 4
    expected = engine.gates(adapter, prompts, template="w9 {prompt}").flatten().tolist()
    assert found["gate"].tolist() == expected
    assert found["gate"].nunique() == 4
    other = g.gates_table(engine, adapter, prompts, template="w10 {prompt}")
    assert other["gate"].tolist() != expected


def test_gates_table_without_prompts(engine):
    assert g.gates_table(engine, make_adapter(engine.base), []).columns.tolist() == list(g.COLUMNS)


def test_gate_range_is_max_minus_min():
    found = g.gate_range(table((0.25, 1.0), (0.75, 1.0)))
    assert found.values.tolist() == [["a", 0.25, 0.75, 0.5], ["b", 1.0, 1.0, 0.0]]


def test_nmi_is_one_when_the_open_gates_tell_the_skill_and_zero_when_not():
    telling = table((0.9, 0.1), (0.1, 0.9), (0.8, 0.4))
    assert g.gate_skill_nmi(telling) == pytest.approx(1.0)
    assert g.gate_skill_nmi(table((0.9, 0.1), (0.9, 0.1), (0.9, 0.1))) == 0.0
    twice = pd.concat([telling, telling])  # the same prompts again tell the same
    assert g.gate_skill_nmi(twice) == pytest.approx(1.0)
    assert g.gate_skill_nmi(telling, threshold=0.95) == 0.0


@pytest.mark.parametrize(
    ("gates", "sentence"),
    [
        ((0.9, 0.1), "The router opens a (0.900); every other gate is at most 0.100."),
        ((0.9, 1e-5), "The router opens a (0.900); every other gate is below 0.001."),
        ((0.2, 0.4), "No gate is open: the largest, b, is 0.400."),
        ((0.9, 0.7), "All 2 gates are open; the largest is a (0.900)."),
    ],
)
def test_sentence_of_one_prompt(gates, sentence):
    assert g.sentence_prompt_gates(table(gates)) == sentence


def test_sentence_of_two_open_gates_of_three():
    rows = [("p", "", name, gate) for name, gate in (("a", 0.9), ("b", 0.8), ("c", 0.1))]
    found = g.sentence_prompt_gates(pd.DataFrame(rows, columns=list(g.COLUMNS)))
    assert found == "The router opens a and b; the largest gate is a (0.900)."


def test_sentence_of_the_range():
    assert g.sentence_gate_range(table((0.5, 0.5), (0.5, 0.5))).startswith("The gates ignore")
    assert "is exactly 0." in g.sentence_gate_range(table((0.5, 0.5), (0.5, 0.5)))
    nearly = g.sentence_gate_range(table((0.5, 0.5), (0.5 + 1e-7, 0.5)))
    assert "ignore the prompt" in nearly
    assert "at most 1e-07." in nearly
    moving = g.sentence_gate_range(table((0.25, 1.0), (0.75, 1.0)))
    assert moving.startswith("The gates depend on the prompt: over 2 prompts, max - min is 0.500")


def test_sentences_of_empty_tables():
    nothing = pd.DataFrame(columns=list(g.COLUMNS))
    assert g.sentence_prompt_gates(nothing) == "This adapter has no gates."
    assert g.sentence_gate_range(nothing) == "There are no gates to compare."
