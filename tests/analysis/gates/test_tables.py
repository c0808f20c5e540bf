"""Gate tables from an engine, their range, their information on the skill, and sentences."""

from dataclasses import replace

import pandas as pd
import pytest

from csreft_core.analysis.gates import tables as g
from csreft_core.analysis.subject import Subject
from csreft_core.config import Provenance, preset
from csreft_core.errors import ConfigError, SkillSetError
from csreft_core.inference.engine import Engine
from csreft_core.skills.skill_set import Row, SkillSet
from tests.tiny import make_adapter, tiny_base

NAMES = ("skill 0", "skill 1")


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


def subject(engine, template="{prompt}", rows=()):
    provenance = Provenance(base_fingerprint="0" * 64, template=template, versions={})
    config = replace(preset("recommended"), provenance=provenance)
    return Subject(engine, make_adapter(engine.base), config, SkillSet(tuple(rows), NAMES))


def test_gates_table_is_long_and_in_order(engine):
    rows = (
        Row(("skill 1",), "w5", "w6", "test_items"),
        Row(("skill 0", "skill 1"), "w6 w7", "w8", "test_items"),
    )
    found = g.gates_table(subject(engine, rows=rows), gates="oracle")
    assert list(found.columns) == list(g.COLUMNS)
    expected = [
        ["w5", "skill 1", "skill 0", 0.0],
        ["w5", "skill 1", "skill 1", 1.0],
        ["w6 w7", "skill 0+skill 1", "skill 0", 1.0],
        ["w6 w7", "skill 0+skill 1", "skill 1", 1.0],
    ]
    assert found.values.tolist() == expected
    asked = g.gates_table(subject(engine, rows=rows), prompts=("w6 w7",), gates="oracle")
    assert asked.values.tolist() == expected[2:]


def test_oracle_gates_of_an_unknown_prompt_are_refused(engine):
    with pytest.raises(ConfigError, match="has no skill"):
        g.gates_table(subject(engine), prompts=("w5",), gates="oracle")


def test_gates_table_is_what_the_engine_says(engine):
    adapter, prompts = make_adapter(engine.base), ("w5", "w6 w7")
    found = g.gates_table(subject(engine, "w9 {prompt}"), prompts=prompts)
    assert found["skill"].tolist() == [""] * 4
    expected = engine.gates(adapter, prompts, template="w9 {prompt}").flatten().tolist()
    assert found["gate"].tolist() == expected
    assert found["gate"].nunique() == 4
    other = g.gates_table(subject(engine, "w10 {prompt}"), prompts=prompts)
    assert other["gate"].tolist() != expected


def test_gates_table_of_an_empty_split_is_refused(engine):
    with pytest.raises(SkillSetError, match="no row in the split"):
        g.gates_table(subject(engine))


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
