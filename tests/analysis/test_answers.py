"""Next tokens and dose curves against plain forwards, token changes, and sentences."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csreft_core.analysis.answers import tables as a
from csreft_core.analysis.answers.sentences import sentence_dose, sentence_next_token
from csreft_core.analysis.answers.token_changes import token_changes, token_texts
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import request
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig, Provenance, preset
from csreft_core.errors import ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.skills.skill_set import Row, SkillSet
from tests.tiny import make_adapter, tiny_base, tiny_tokenizer

NAMES = ("skill 0", "skill 1", "skill 2")
KNOWN = Row(("skill 1",), "w5 w6", "w7 w8", "test_items")
PROMPT = "w5 w6"


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def subject(engine, rows=(KNOWN,), **settings):
    provenance = Provenance(base_fingerprint="0" * 64, template="{prompt}", versions={})
    config = replace(preset("recommended"), provenance=provenance)
    adapter = make_adapter(engine.base, k=3, **settings)
    return Subject(engine, adapter, config, SkillSet(tuple(rows), NAMES))


@torch.no_grad()
def log_p(subject, gates, words):
    """ln p of each word after those before it, by one forward of the whole text; float64."""
    tokenizer = subject.engine.base.tokenizer
    ids = tokenizer(words, return_tensors="pt").input_ids
    n = len(tokenizer(PROMPT).input_ids)
    mask = (torch.arange(ids.shape[1]) < n).long()[None]
    output, _ = subject.engine.attachment.forward(
        request(subject.adapter, [float(g) for g in gates]), input_ids=ids, prompt_mask=mask
    )
    logits = output.logits[0].double().numpy()
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return [logits[i - 1, ids[0, i]] for i in range(n, ids.shape[1])]


# next token ----------------------------------------------------------------------------------


def test_next_tokens_are_those_of_a_plain_softmax(engine):
    found = a.next_token_table(subject(engine), prompts=(PROMPT,), manual="1,0,-1", top=5)
    assert list(found["column"].unique()) == ["base", "this run", "manual gates"]
    adapter = subject(engine).adapter
    base, here = (
        engine.trace(which, [PROMPT], gates, template="{prompt}").logits[0].double().numpy()
        for which, gates in ((None, "learned"), (adapter, "1,0,-1"))
    )
    for logits, name in ((base, "base"), (here, "manual gates")):
        part = found[found["column"] == name]
        p = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-logits)
        assert list(part["token_id"][:5]) == list(order[:5])
        assert part["probability"].to_numpy() == pytest.approx(p[part["token_id"]], abs=1e-9)
        ranks = [int(np.where(order == t)[0][0]) + 1 for t in part["token_id"]]
        assert list(part["rank"]) == ranks
        assert set(np.argsort(-base)[:5]) <= set(part["token_id"])
        p0 = np.exp(base) / np.exp(base).sum()
        assert part["base_probability"].to_numpy() == pytest.approx(p0[part["token_id"]], abs=1e-9)
    assert found["token"][0] == engine.base.tokenizer.decode([found["token_id"][0]])


def test_change_of_rank_is_up_down_same_or_new(engine):
    met = set()
    for top in (1, 4, 20, 60):
        found = a.next_token_table(subject(engine, positions="all"), prompts=(PROMPT,), top=top)
        for row in found[found["column"] == "this run"].itertuples():
            moved = (row.rank > row.base_rank) - (row.rank < row.base_rank)
            known = {-1: "up", 0: "same", 1: "down"}[moved]
            assert row.change == ("new" if row.base_rank > top else known)
            met |= {(row.change, row.base_rank > 2 * top)}
    assert {("new", True), ("new", False), ("up", False), ("down", False)} <= met
    assert set(found[found["column"] == "base"]["change"]) == {"same"}
    off = a.next_token_table(subject(engine), prompts=(PROMPT,), gates="off", top=4)
    assert set(off["change"]) == {"same"}


@pytest.mark.fast
def test_next_tokens_of_a_split_take_one_row_of_each_skill(engine):
    rows = [KNOWN._replace(skills=(s,), prompt=f"w{9 + i}") for i, s in enumerate(NAMES * 2)]
    found = a.next_token_table(subject(engine, rows), gates="oracle", top=2)
    assert found["prompt"].nunique() == 3
    with pytest.raises(ConfigError, match="top is 0"):
        a.next_token_table(subject(engine), prompts=(PROMPT,), top=0)
    with pytest.raises(ConfigError, match="has no skill"):
        a.next_token_table(subject(engine), prompts=("w9",), gates="oracle")


def test_another_run_is_asked_under_its_own_gates(engine, monkeypatch):
    here, other = subject(engine), subject(engine, seed=7)
    oracle = replace(other.config, router=replace(other.config.router, gates="oracle"))
    monkeypatch.setattr(a, "other_subject", lambda _subject, _path: replace(other, config=oracle))
    found = a.next_token_table(here, prompts=(PROMPT, "w9"), others=("runs/theirs",), top=3)
    theirs = found[found["column"] == "theirs"]
    for prompt, gates in ((PROMPT, "0,1,0"), ("w9", "uniform")):
        traced = engine.trace(other.adapter, [prompt], gates, template="{prompt}")
        part = theirs[theirs["prompt"] == prompt]
        expected = traced.logits[0].softmax(-1)[part["token_id"].tolist()].numpy()
        assert part["probability"].to_numpy() == pytest.approx(expected, abs=1e-6)


# dose ----------------------------------------------------------------------------------------


def test_dose_is_the_log_probability_of_a_forward_for_each_gate(engine):
    here = subject(engine, positions="all_prompt")
    found = a.dose_table(here, prompts=(PROMPT,), gates="0.5,0.25,-1", subspace="skill 1", points=4)
    main = found[found["kind"] == "known answer"].reset_index()
    assert list(main["gate"]) == [-1, 0, 0.25, 1, 2]
    assert list(main["mark"]) == ["", "", "router", "", ""]
    for row in main.itertuples():
        expected = log_p(here, (0.5, row.gate, -1), f"{PROMPT} w7 w8 <eos>")
        assert row.log_probability == pytest.approx(sum(expected), abs=1e-4)
        assert row.first_probability == pytest.approx(np.exp(expected[0]), rel=1e-4)
    assert main["log_probability"].std() > 0.1  # the gate matters, or nothing was tested
    assert (main["n_tokens"][0], main["first_token"][0]) == (3, "w7")
    assert set(found["held"]) == {"run"}


def test_other_gates_are_held_by_hand(engine):
    here = subject(engine)
    found = a.dose_table(
        here, prompts=(PROMPT,), gates="0.5,0.25,-1", manual="2,0.5,0.5", subspace="skill 0"
    )
    main = found[found["kind"] == "known answer"]
    assert set(found["held"]) == {"manual"}
    marked = main[main["mark"] != ""].set_index("mark")["gate"]
    assert dict(marked) == {"router": 0.5, "now": 2.0}
    row = main[main["gate"] == -1].iloc[0]
    expected = sum(log_p(here, (-1, 0.5, 0.5), f"{PROMPT} w7 w8 <eos>"))
    assert row["log_probability"] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - sum(log_p(here, (-1, 0.25, -1), f"{PROMPT} w7 w8 <eos>"))) > 0.01


def test_the_control_is_the_bases_own_answer(engine):
    found = a.dose_table(subject(engine), prompts=(PROMPT,), points=3)
    control = found[found["kind"] == "base's answer"]
    assert set(control["answer"]) == {engine.generate(None, PROMPT, template="{prompt}").text}
    same = KNOWN._replace(response=control["answer"].iloc[0])
    alone = a.dose_table(subject(engine, [same]), prompts=(PROMPT,), points=3)
    assert set(alone["kind"]) == {"known answer"}


def test_without_a_known_answer_this_runs_answer_is_scored(engine):
    here = subject(engine, positions="all")
    found = a.dose_table(here, prompts=("w9 w10",), points=3)
    mine = engine.generate(here.adapter, "w9 w10", template="{prompt}").text
    assert found["kind"].iloc[0] == "this run's answer"
    assert found["answer"].iloc[0] == mine


def test_a_single_gate_has_no_others_to_hold(engine):
    one = replace(subject(engine), adapter=make_adapter(engine.base, k=1))
    found = a.dose_table(one, prompts=(PROMPT,), manual="2", points=3)
    assert set(found["held"]) == {"run"}
    assert "by hand" not in sentence_dose(found)
    assert set(found["mark"]) >= {"router", "now"}


def test_the_swept_gate_is_the_largest_unless_named(engine):
    found = a.dose_table(subject(engine), prompts=(PROMPT,), gates="0.2,0.1,0.7", points=3)
    assert set(found["subspace"]) == {"skill 2"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subspace": "french"}, "no subspace 'french'"),
        ({"lowest": 1.0, "highest": 1.0}, "lowest below highest"),
        ({"points": 1}, "at least 2 points"),
    ],
)
def test_a_dose_that_cannot_be_drawn_is_refused(engine, wrong, message):
    with pytest.raises(ConfigError, match=message):
        a.dose_table(subject(engine), prompts=(PROMPT,), **wrong)


# token changes -------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["w3", "w4", "w5"]), max_size=8)


@given(WORDS, WORDS)
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_text_and_what_is_missing_gives_the_other(one, other):
    tokens, others = [f" {w}" for w in one], [f" {w}" for w in other]
    pieces = token_changes(tokens, others)
    assert "".join(p.text for p in pieces) == "".join(tokens)
    back = [part for p in pieces for part in ([*p.missing] if p.missing or p.added else [p.text])]
    assert "".join(back) == "".join(others)
    assert any(p.added or p.missing for p in pieces) == (one != other)


def test_tokens_are_compared_without_their_white_space():
    pieces = token_changes(("le", " chat"), ("un", " le", " chat", " noir"))
    assert [(p.text, p.added, p.missing) for p in pieces] == [
        ("", False, ("un",)),
        ("le chat", False, ()),
        ("", False, (" noir",)),
    ]


@pytest.mark.parametrize("text", ["", "w3", "w3  w4\nw5 ", " unknown w3"])
def test_token_texts_are_the_text(text):
    assert "".join(token_texts(tiny_tokenizer(), text)) == text


def test_token_texts_follow_the_tokeniser():
    tokenizer = load_base(BaseConfig()).tokenizer
    assert token_texts(tokenizer, "le hautbois") == ("le", " hautbois")


# sentences -----------------------------------------------------------------------------------


def next_rows(*rows):
    columns = [
        "column",
        "token",
        "token_id",
        "probability",
        "rank",
        "base_probability",
        "base_rank",
    ]
    return pd.DataFrame(rows, columns=columns).assign(prompt="p", change="up")


def test_sentence_of_a_promoted_token():
    table = next_rows(
        ("base", "a", 1, 0.5, 1, 0.5, 1),
        ("this run", "b\n", 2, 0.9, 1, 0.0002, 7),
        ("this run", "a", 1, 1e-9, 50, 0.5, 1),
        ("manual gates", "a", 1, 0.6, 1, 0.5, 1),
    )
    assert sentence_next_token(table) == (
        "this run promotes “b⏎” from rank 7 (0.02%) to rank 1 (90.0%); the base's first choice "
        "“a” falls to rank 50 (below 0.001%). manual gates: the first token stays “a” (50.0% → "
        "60.0%)."
    )
    assert sentence_next_token(table[:1]) == "Only the base was asked."
    assert sentence_next_token(table[:0]) == "There is no prompt to ask about."


def curve(values, gates=(-1, 0, 0.5, 1, 2), kind="known answer", mark=3):
    marks = ["router" if i == mark else "" for i in range(len(gates))]
    return pd.DataFrame(
        {
            "prompt": "p",
            "subspace": "s",
            "held": "run",
            "gate": gates,
            "mark": marks,
            "kind": kind,
            "answer": "x",
            "log_probability": values,
            "undefined": "",
        }
    )


@pytest.mark.parametrize(
    ("values", "course"),
    [
        ((-9, -4, -2, -1, -3), "rises all the way, from -4 to -1 nats"),
        ((-1, -2, -3, -4, -5), "falls all the way, from -2 to -4 nats"),
        ((-9, -4, -1, -2, -3), "is not monotone: -4 nats at 0, largest at 0.5 (-1), -2 at 1"),
        ((-9, -1, -4, -2, -3), "is not monotone: -1 nats at 0, smallest at 0.5 (-4), -2 at 1"),
        ((-9, -1, -1.0001, -1, -3), "stays as it is (-1 nats)"),
    ],
)
def test_sentence_of_a_dose(values, course):
    said = sentence_dose(curve(values))
    assert f"From gate 0 to 1 of s, the log-probability of the known answer “x” {course}" in said
    best = max(values)
    gate = (-1, 0, 0.5, 1, 2)[values.index(best)]
    assert f"largest at {gate:.3g} ({best:.3g} nats)" in said
    assert f"at the run's own gate, 1.000, it is {values[3]:.3g} nats" in said
    assert said.endswith("The base gives the same answer.")


def test_sentence_of_a_dose_names_the_control_and_what_is_held():
    control = curve((-1, -2, -3, -4, -5), kind="base's answer").assign(answer="y")
    both = pd.concat([curve((-9, -4, -2, -1, -3), mark=None), control]).assign(held="manual")
    said = sentence_dose(both)
    assert "of s, the others held by hand, the log" in said
    assert said.endswith("The base's own answer “y” falls all the way, from -2 to -4 nats.")
    assert "own gate" not in said
    assert sentence_dose(both[:0]) == "There is no prompt to ask about."
