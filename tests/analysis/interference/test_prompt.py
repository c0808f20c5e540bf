"""All gate patterns of one prompt, Shapley values and interactions against their definitions."""

import math
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csreft_core.analysis.interference import prompt as p
from csreft_core.analysis.interference import prompt_sentences as sentences
from csreft_core.analysis.statistics.shapley import shapley_interactions, shapley_values
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import request
from csreft_core.config import Provenance, RouterConfig, preset
from csreft_core.errors import ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.skills.skill_set import Row, SkillSet
from tests.tiny import make_adapter, tiny_base

PROMPT = ("w5 w6",)


@pytest.fixture
def engine(tiny_llama):
    # Logits of a fresh model are nearly flat; larger embeddings give an edit something to steer.
    tiny_llama.get_input_embeddings().weight.data *= 20
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def subject(engine, k=3, **settings):
    provenance = Provenance(base_fingerprint="0" * 64, template="{prompt}", versions={})
    config = replace(preset("recommended"), provenance=provenance)
    adapter = make_adapter(engine.base, k=k, positions="l1", **settings)
    row = Row(("skill 1",), "w5 w6", "w7 w8", "test_items")
    return Subject(engine, adapter, config, SkillSet((row,), adapter.names))


def values_of(f, k):
    """f as a function of a set of players."""
    places = {frozenset(np.flatnonzero(s)): i for i, s in enumerate(product((0, 1), repeat=k))}
    return lambda players: f[places[frozenset(players)]]


@given(st.lists(st.floats(-20, 20), min_size=8, max_size=8))
def test_shapley_values_are_the_mean_over_all_orders(values):
    f, v = np.array(values), values_of(values, 3)
    by_order = np.zeros(3)
    for order in permutations(range(3)):
        for place, i in enumerate(order):
            by_order[i] += (v(order[: place + 1]) - v(order[:place])) / math.factorial(3)
    np.testing.assert_allclose(shapley_values(f), by_order, atol=1e-9)
    assert shapley_values(f).sum() == pytest.approx(f[-1] - f[0], abs=1e-9)


def test_interactions_are_those_of_the_definition():
    k, f = 4, np.random.default_rng(0).normal(size=16)
    v, found = values_of(f, k), shapley_interactions(f)
    for i, j in combinations(range(k), 2):
        rest = [m for m in range(k) if m not in (i, j)]
        total = 0.0
        for size in range(k - 1):
            for s in combinations(rest, size):
                weight = math.factorial(size) * math.factorial(k - size - 2) / math.factorial(k - 1)
                total += weight * (v((*s, i, j)) - v((*s, i)) - v((*s, j)) + v(s))
        assert found[i, j] == pytest.approx(total, abs=1e-12)
        assert found[j, i] == found[i, j]


def test_a_sum_has_no_interaction_and_a_product_has_one():
    members = np.array(list(product((0, 1), repeat=3)))
    weights = np.array([2.0, -1.0, 0.5])
    added = members @ weights
    np.testing.assert_allclose(shapley_values(added), weights)
    np.testing.assert_allclose(shapley_interactions(added), 0, atol=1e-12)
    both = members[:, 0] * members[:, 1] * 1.0
    np.testing.assert_allclose(shapley_values(both), [0.5, 0.5, 0])
    assert shapley_interactions(both)[0, 1] == pytest.approx(1.0)


def test_one_and_no_player():
    assert shapley_values(np.array([1.0, 4.0])).tolist() == [3.0]
    assert shapley_interactions(np.array([1.0, 4.0])).tolist() == [[0.0]]


def test_patterns_are_all_of_them_and_each_is_what_a_pass_of_its_own_gives(engine):
    found = p.patterns_table(subject(engine), prompts=PROMPT)
    assert list(found.columns) == list(p.PATTERN_COLUMNS)
    codes = ["".join(bits) for bits in product("01", repeat=3)]
    assert found["setting"].tolist() == [*codes, "learned"]
    assert found["kind"].tolist() == ["base", *["pattern"] * 7, "in use"]
    assert [*found.loc[5, ["n_open", "open"]]] == [2, "skill 0 + skill 2"]
    adapter = subject(engine).adapter
    whole = torch.tensor([[5, 6, 7, 8, 2]])  # prompt, answer, end
    for row in found.itertuples():
        gates = [float(bit) for bit in row.setting] if row.kind != "in use" else "learned"
        alone = engine.trace(adapter, ["w5 w6"], gates, template="{prompt}").logits[0]
        base = engine.trace(None, ["w5 w6"], template="{prompt}").logits[0]
        log_p, log_q = alone.double().log_softmax(-1), base.double().log_softmax(-1)
        divergence = (log_p.exp() * (log_p - log_q)).sum().item()
        # float32 logits of another batch shape
        assert row.kl == pytest.approx(divergence, rel=1e-5, abs=1e-6)
        setting = gates if isinstance(gates, str) else torch.tensor([gates])
        output, _ = engine.attachment.forward(
            request(adapter, setting),
            input_ids=whole,
            attention_mask=torch.ones_like(whole),
            prompt_mask=torch.tensor([[1, 1, 0, 0, 0]]),
        )
        steps = output.logits[0].double().log_softmax(-1)
        expected = sum(steps[i, whole[0, i + 1]].item() for i in (1, 2, 3))
        assert row.log_probability == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_exactly_zero_for_closed_gates_and_positive_for_open_ones(engine):
    found = p.patterns_table(subject(engine), prompts=PROMPT)
    assert found.loc[found["kind"] == "base", "kl"].tolist() == [0.0]
    assert (found.loc[found["kind"] == "pattern", "kl"] > 1e-4).all()
    still = p.patterns_table(subject(engine, moved=0.0), prompts=PROMPT)
    assert (still["kl"].abs() < 1e-8).all()
    assert (still["kl"] >= 0).all()


def test_shapley_table_sums_to_all_open_minus_all_closed(engine):
    found = p.shapley_table(subject(engine), prompts=PROMPT)
    patterns = p.patterns_table(subject(engine), prompts=PROMPT).set_index("setting")
    f = patterns["log_probability"]
    assert found["shapley"].sum() == pytest.approx(f["111"] - f["000"], abs=1e-6)
    assert found["shapley"].abs().max() > 1e-3
    assert found["alone"].tolist() == pytest.approx(
        [f["100"] - f["000"], f["010"] - f["000"], f["001"] - f["000"]]
    )
    assert found[["closed", "all"]].drop_duplicates().values.tolist() == [[f["000"], f["111"]]]


def test_interactions_table_has_each_pair_once(engine):
    found = p.interactions_table(subject(engine), prompts=PROMPT)
    pairs = list(zip(found["first"], found["second"], strict=True))
    assert pairs == [("skill 0", "skill 1"), ("skill 0", "skill 2"), ("skill 1", "skill 2")]
    patterns = p.patterns_table(subject(engine), prompts=PROMPT)["log_probability"]
    expected = shapley_interactions(patterns[:8].to_numpy())
    assert found["interaction"].tolist() == [expected[0, 1], expected[0, 2], expected[1, 2]]
    assert p.interactions_table(subject(engine, k=1), prompts=PROMPT).empty


def test_the_answer_is_the_given_one_else_the_known_one_else_the_models(engine):
    def answers(prompts, answer=""):
        return p.patterns_table(subject(engine), prompts=prompts, answer=answer)["answer"].unique()

    assert answers(PROMPT) == ["w7 w8"]
    assert answers(PROMPT, "w9") == ["w9"]
    own = engine.generate(subject(engine).adapter, "w9 w9", template="{prompt}").text
    assert own
    assert answers(("w9 w9",)) == [own]
    assert answers(()) == ["w7 w8"]  # without a prompt, the first of the test split


def test_tokens_are_ranked_without_and_with_the_adapter(engine):
    found = p.tokens_table(subject(engine), prompts=PROMPT, most=4)
    assert list(found.columns) == list(p.TOKEN_COLUMNS)
    assert found["rank_adapter"].is_monotonic_increasing
    assert (found["rise"] == found["rank_base"] - found["rank_adapter"]).all()
    assert {1, 2, 3, 4} <= set(found["rank_base"])
    assert {1, 2, 3, 4} <= set(found["rank_adapter"])
    logits = engine.trace(None, PROMPT, template="{prompt}").logits[0].double()
    top = found.loc[found["rank_base"] == 1].iloc[0]
    assert top["token"] == engine.base.tokenizer.decode([int(logits.argmax())])
    assert top["p_base"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-9)
    assert (found["rise"] != 0).any()
    same = p.tokens_table(subject(engine, moved=0.0), prompts=PROMPT)
    assert (same["rise"] == 0).all()


@pytest.mark.parametrize(
    ("prompts", "k", "gates", "message"),
    [
        ((" ",), 2, "learned", "prompt is empty"),
        (("w5", "w6"), 2, "learned", "one prompt"),
        (PROMPT, 9, "learned", "9 subspaces"),
        (("w9",), 2, "oracle", "has no skill"),
        (("w9 " * 600,), 2, "learned", "shorten"),
    ],
)
def test_what_cannot_be_asked_is_refused(engine, prompts, k, gates, message):
    of = subject(engine, k=k, rank=1)
    with pytest.raises(ConfigError, match=message):
        p.patterns_table(of, prompts=prompts, answer="w7", gates=gates)


def test_a_router_per_token_has_patterns_too(engine):
    router = RouterConfig(granularity="per_token")
    found = p.patterns_table(subject(engine, k=2, router=router), prompts=PROMPT)
    assert len(found) == 5
    assert found["kl"].iloc[-1] > 0


def test_sentences_say_the_numbers_of_their_tables(engine):
    of = subject(engine)
    patterns = p.patterns_table(of, prompts=PROMPT)
    text = sentences.sentence_patterns(patterns)
    best = patterns[patterns["kind"] != "in use"]["log_probability"].max()
    assert "Of 8 patterns, " in text
    assert f"{best:.3f} nats" in text
    assert f"{patterns['kl'][1:8].max():.3f}" in sentences.sentence_divergence(patterns)
    shapley = p.shapley_table(of, prompts=PROMPT)
    assert f"sum to {shapley['shapley'].sum():+.3f}" in sentences.sentence_shapley(shapley)
    one = p.shapley_table(subject(engine, k=1), prompts=PROMPT)
    assert "the whole difference" in sentences.sentence_shapley(one)
    pairs = p.interactions_table(of, prompts=PROMPT)
    strongest = max(pairs["interaction"], key=abs)
    assert f"{strongest:+.3f}" in sentences.sentence_interactions(pairs)
    tokens = p.tokens_table(of, prompts=PROMPT)
    assert "likeliest token" in sentences.sentence_tokens(tokens)


def test_sentence_of_tokens_that_change_places():
    rows = [("q", "b", 3, 1, 2, 0.1, 0.9), ("q", "a", 1, 2, -1, 0.5, 0.05)]
    table = pd.DataFrame(rows, columns=list(p.TOKEN_COLUMNS))
    assert sentences.sentence_tokens(table) == (
        "The likeliest token changes from 'a' to 'b', which rises from rank 3 (0.100) to 1 "
        "(0.900); 'a' falls to rank 2."
    )
    assert "stays 'b'" in sentences.sentence_tokens(table.iloc[:1])


@pytest.mark.parametrize(
    "sentence",
    ["patterns", "divergence", "shapley", "interactions", "tokens"],
)
def test_sentences_of_empty_tables(sentence):
    columns = [*p.PATTERN_COLUMNS, *p.SHAPLEY_COLUMNS, "interaction", *p.TOKEN_COLUMNS]
    nothing = pd.DataFrame(columns=list(dict.fromkeys(columns)))
    assert getattr(sentences, f"sentence_{sentence}")(nothing).startswith("There")
