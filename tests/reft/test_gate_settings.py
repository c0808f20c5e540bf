"""Gate settings: every form is read, everything else is refused with the remedy."""

import pytest
import torch

from csreft_core.errors import ConfigError
from csreft_core.reft.gate_settings import parse_gate_setting, setting_as_trained
from csreft_core.reft.given_gates import given_gates

pytestmark = pytest.mark.fast

NAMES = ("french", "plural", "first letter")


@pytest.mark.parametrize(
    ("setting", "vector"),
    [
        ("uniform", (1 / 3, 1 / 3, 1 / 3)),
        ("off", (0.0, 0.0, 0.0)),
        ("only:plural", (0.0, 1.0, 0.0)),
        ("only:first letter", (0.0, 0.0, 1.0)),
        ("1,0,0.5", (1.0, 0.0, 0.5)),
        (" [1, 0, 0.5] ", (1.0, 0.0, 0.5)),
        ([1.0, 0.0, 0.5], (1.0, 0.0, 0.5)),
        ((1.0, 0.0, 0.5), (1.0, 0.0, 0.5)),
        ("-2,0,7.5", (-2.0, 0.0, 7.5)),
        ("1e-3,0,0", (0.001, 0.0, 0.0)),
    ],
)
def test_settings_that_give_the_gates(setting, vector):
    parsed = parse_gate_setting(setting, NAMES)
    assert parsed.vector == vector
    assert not parsed.needs_router
    torch.testing.assert_close(given_gates(parsed, 4), torch.tensor(vector).expand(4, 3))


@pytest.mark.parametrize("setting", ["learned", "hard", " learned "])
def test_settings_that_ask_the_router(setting):
    parsed = parse_gate_setting(setting, NAMES)
    assert parsed.needs_router
    assert given_gates(parsed, 4) is None


def test_oracle_gives_the_labels():
    labels = torch.eye(3)
    assert torch.equal(given_gates(parse_gate_setting("oracle", NAMES), 3, labels), labels)


def test_oracle_without_labels_is_an_error():
    with pytest.raises(ConfigError, match="needs the skill of each prompt"):
        given_gates(parse_gate_setting("oracle", NAMES), 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("oracel", "unknown gate setting 'oracel'; expected learned"),
        ("", "expected 3 finite gates"),
        ("only:german", "no subspace 'german'; choose one of french"),
        ("only:", "no subspace ''"),
        ("1,0", "expected 3 finite gates, one for each of french, plural, first letter, got"),
        ("1,0,0,0", "expected 3 finite gates"),
        ("1,0,NaN", "expected 3 finite gates"),
        ("1,0,Infinity", "expected 3 finite gates"),
        ("1,0,true", "expected 3 finite gates"),
        ('1,0,"1"', "expected 3 finite gates"),
        ("[1,0,[1]]", "expected 3 finite gates"),
        ("1;0;0", "unknown gate setting"),
        ("[1,0,0", "unknown gate setting"),
        ("[" * 100_000, "unknown gate setting"),
        ([1.0], "expected 3 finite gates"),
        ([1.0, float("nan"), 0.0], "expected 3 finite gates"),
    ],
)
def test_malformed_settings(setting, message):
    with pytest.raises(ConfigError, match=message):
        parse_gate_setting(setting, NAMES)


def test_a_skill_may_have_a_number_for_a_name():
    assert parse_gate_setting("only:2", ("1", "2")).vector == (0.0, 1.0)


@pytest.mark.parametrize(
    ("trained", "skills", "expected"),
    [
        ("learned", ("a",), "learned"),
        ("uniform", ("a",), "uniform"),
        ("oracle", ("a",), "oracle"),
        ("oracle", ("a", "b"), "oracle"),
        ("oracle", ("a", "martian"), "uniform"),
        ("oracle", (), "uniform"),
    ],
)
def test_a_prompt_is_asked_as_in_training(trained, skills, expected):
    assert setting_as_trained(trained, ("a", "b"), skills) == expected
