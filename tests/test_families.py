"""Bases of many kinds are right: closed gates, edits, caches, states and training.

One class for each way in which a decoder is built; `python -m tests.family_sweep` tries all classes
by the same checks and writes the table that the last tests read.
"""

import pytest
import transformers

from csreft_core.base.load import Base
from tests import family_checks, family_sweep
from tests.causal_classes import model_types, tiny_config, tiny_model
from tests.repository import ROOT
from tests.tiny import tiny_base

TYPES = (
    "openai-gpt",  # a block returns a list
    "gptj",  # attention beside the MLP
    "bloom",  # no positions, only a slope of attention
    "bert",  # an encoder that is a decoder by its config
    "gemma3",  # the decoder of a model of text and images, windows of attention
    "gpt_oss",  # experts, and sinks of attention
    "deepseek_v3",  # keys and values of low rank
    "mamba2",  # no attention: a recurrent state instead of a cache
    "zamba2",  # one block used in several places
    "falcon_h1",  # attention and a recurrent state in one block
    "qwen3_next",  # linear attention
    "lfm2",  # convolutions
)


@pytest.fixture(scope="module", params=TYPES)
def base(request) -> Base:
    return tiny_base(tiny_model(tiny_config(request.param)))


def test_edits_are_those_of_a_plain_hook_on_unpadded_rows(base):
    family_checks.check_forward(base)


def test_cached_answers_have_the_logits_of_full_forwards(base):
    family_checks.check_generation(base)


def test_an_edit_changes_its_layer_and_later_ones(base):
    family_checks.check_states(base)


def test_training_touches_the_adapter_alone(base):
    family_checks.check_training(base)


def test_every_class_of_the_table_is_right_or_refused_or_was_not_built():
    _, found = family_sweep.read_table()
    assert set(TYPES) <= {name for name, one in found.items() if one.kind == family_sweep.RIGHT}
    assert not [name for name, one in found.items() if one.kind == family_sweep.WRONG]
    kinds = (family_sweep.RIGHT, family_sweep.REFUSED, family_sweep.NOT_BUILT)
    assert all(one.kind in kinds for one in found.values())
    assert all(one.why for one in found.values() if one.kind != family_sweep.RIGHT)


def test_the_texts_have_the_numbers_of_the_table():
    _, found = family_sweep.read_table()
    kinds = (family_sweep.RIGHT, family_sweep.REFUSED, family_sweep.NOT_BUILT)
    right, refused, not_built = (sum(one.kind == kind for one in found.values()) for kind in kinds)
    table = family_sweep.TABLE.read_text(encoding="utf-8")
    assert f"{len(found)} model types, {right} right, {refused} refused, {not_built} not" in table
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"{right} of the {len(found)} model types that transformers has are right, {refused} are "
        f"refused on loading and {not_built} could not be tried"
    ) in readme


@pytest.mark.parametrize("model_type", ["reformer", "xlm-roberta"])
def test_the_sweep_finds_what_the_table_says_of_a_refused_class(model_type):
    assert family_sweep.outcome(model_type) == family_sweep.read_table()[1][model_type]


def test_the_sweep_calls_a_silent_difference_wrong(monkeypatch):
    """The positive control: the reference edits another token than the adapter."""
    monkeypatch.setitem(family_checks.RULES, "l1", lambda n: [n - 2])
    found = family_sweep.outcome("llama")
    assert found.kind == family_sweep.WRONG
    assert found.why.startswith("Different: l1, left padding: off by")


def test_every_model_type_that_transformers_has_here_stands_in_the_table_of_its_version():
    version, found = family_sweep.read_table()
    if version == transformers.__version__:
        assert list(found) == list(model_types())
