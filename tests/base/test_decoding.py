"""Decoding settings are ours: none that a base brings changes an answer, a score or an end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csreft_core.__main__ import main
from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import Request, request
from csreft_core.base import decoding
from csreft_core.base.load import freeze, load_base
from csreft_core.config import ASSETS, PLAIN_TEMPLATE, BaseConfig
from csreft_core.errors import ConfigError, UnsupportedModelError
from csreft_core.inference.engine import Engine
from csreft_core.inference.scoring import Encoded, encode_rows, evaluate
from csreft_core.reft.adapter import load_adapter
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row, read_skills
from tests.families import build
from tests.tiny import make_adapter, tiny_base, tokens

END = 2
N_NEW = 4
# Each is followed by transformers in every `generate`, and changes an answer or breaks the call.
HOSTILE = {
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[i] for i in range(3, 90)],
    "suppress_tokens": list(range(3, 90)),
    "begin_suppress_tokens": list(range(3, 90)),
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 7,
    "sequence_bias": [[[7], 99.0]],
    "min_length": 60,
    "min_new_tokens": 60,
    "max_new_tokens": 1,
    "max_length": 1,
    "max_time": 0.0,
    "stop_strings": ["w"],
    "do_sample": True,
    "num_beams": 3,
    "num_return_sequences": 2,
    "guidance_scale": 9.0,
    "encoder_repetition_penalty": 9.0,
    "exponential_decay_length_penalty": [1, 99.0],
    "watermarking_config": {"bias": 99.0},
    "cache_implementation": "static",
    "prompt_lookup_num_tokens": 3,
    "token_healing": True,
    "return_dict_in_generate": True,
    "prefill_chunk_size": 1,
    "assistant_early_exit": 1,
    "eos_token_id": 7,
    "pad_token_id": 7,
}


def bringing(folder, **settings):
    """The base of a folder that brings these settings."""
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return load_base(BaseConfig(path=str(folder)))


@torch.no_grad()
def continuation(base, req, prompt, n=N_NEW):
    """The most likely tokens after a prompt, one whole forward for each, without `generate`."""
    ids = list(prompt)
    with attach(base) as attachment:
        for _ in range(n):
            is_prompt = (torch.arange(len(ids)) < len(prompt)).long()[None]
            output, _ = attachment.forward(
                req, input_ids=torch.tensor([ids]), prompt_mask=is_prompt, use_cache=False
            )
            ids.append(int(output.logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def asked(base, req):
    """Prompts of several lengths; each with its right answer and with one wrong token in it."""
    examples = []
    for seed, n in enumerate((2, 5, 3, 7)):
        prompt = tuple(tokens(n, seed=seed)[0].tolist())
        right = continuation(base, req, prompt)
        wrong = list(right)
        wrong[seed] = 3 + (wrong[seed] + 1) % 90
        examples += [Example(prompt, right), Example(prompt, tuple(wrong))]
    rows = [Row((["wrong", "right"][i % 2 == 0],), "?", "?", "train") for i in range(len(examples))]
    return Encoded(tuple(rows), tuple(examples))


def exact(scores):
    return {name: skill["exact_match"] for name, skill in scores["skills"].items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_setting_of_a_base_changes_an_answer(folder, tiny_llama, name):
    plain = tiny_base(tiny_llama)
    adapter = make_adapter(plain)
    base = bringing(folder, **{name: HOSTILE[name]})
    engine = Engine(base)
    answer = engine.generate(adapter, "w9 w10", max_new_tokens=N_NEW, template="{prompt}")
    engine.close()
    expected = continuation(plain, request(adapter), (9, 10))
    assert answer.text == base.tokenizer.decode(expected, skip_special_tokens=True)
    model: Any = base.model
    found = model.generate(torch.tensor([[9, 10, 11]]), max_new_tokens=N_NEW)[0, 3:]
    assert tuple(found.tolist()) == continuation(plain, Request(None), (9, 10, 11))


@pytest.mark.parametrize("name", ["repetition_penalty", "min_length", "do_sample", "eos_token_id"])
def test_nor_a_score(folder, tiny_llama, name):
    """Scores are decoded by the settings of the answers above."""
    plain = tiny_base(tiny_llama)
    adapter = make_adapter(plain)
    encoded = asked(plain, request(adapter))
    base = bringing(folder, **{name: HOSTILE[name]})
    with attach(base) as attachment:
        scores = evaluate(attachment, adapter, encoded)
        assert exact(scores) == {"right": 1.0, "wrong": 0.0}
        assert scores == evaluate(attachment, adapter, encoded, decode=False)


@pytest.mark.parametrize("name", ["repetition_penalty", "suppress_tokens", "do_sample"])
@pytest.mark.parametrize("where", ["in its files", "in memory"])
def test_a_plain_generate_of_a_base_follows_none_of_its_settings(folder, tiny_llama, name, where):
    prompt = tokens(5)[0][None]
    setattr(tiny_llama.generation_config, name, HOSTILE[name])
    in_memory = where == "in memory"
    base = tiny_base(tiny_llama) if in_memory else bringing(folder, **{name: HOSTILE[name]})
    torch.manual_seed(0)
    model: Any = base.model
    found = model.generate(prompt, max_new_tokens=N_NEW)[0, 5:].tolist()
    assert found == list(continuation(base, Request(None), prompt[0].tolist()))


def test_without_an_end_the_longest_answer_is_decoded(tiny_llama):
    base, prompt = tiny_base(tiny_llama), tokens(5)[0][None]
    first = continuation(base, Request(None), prompt[0].tolist(), n=1)
    decoding.take_over(base.model, first, 0)
    for ends, n in (((), N_NEW), (first, 1)):
        model: Any = base.model
        found = model.generate(prompt, generation_config=decoding.greedy(N_NEW, ends, 0))
        assert found.shape[1] == 5 + n


def test_old_settings_in_the_description_change_nothing_either(folder, tiny_llama):
    plain = tiny_base(tiny_llama)
    (folder / "generation_config.json").unlink()
    tree = json.loads((folder / "config.json").read_text())
    old = {"repetition_penalty": 9.0, "do_sample": True, "num_beams": 3, "eos_token_id": [2, 1]}
    (folder / "config.json").write_text(json.dumps(tree | old))
    base = load_base(BaseConfig(path=str(folder)))
    assert base.own_decoding["repetition_penalty"] == 9.0
    assert base.ends == (END, 1)
    encoded = asked(plain, Request(None))
    with attach(base) as attachment:
        assert exact(evaluate(attachment, None, encoded)) == {"right": 1.0, "wrong": 0.0}


@pytest.mark.parametrize("family", ["llama", "gemma3", "opt", "gpt2"])
def test_greedy_exact_match_is_that_of_teacher_forcing(family):
    """Each token that greedy decoding gives is the most likely one after those before it."""
    base = tiny_base(build(family))
    adapter = make_adapter(base, moved=0.5)
    encoded = asked(base, request(adapter))
    for gates in ("learned", "off"):
        with attach(base) as attachment:
            decoded = evaluate(attachment, adapter, encoded, gates=gates)
            forced = evaluate(attachment, adapter, encoded, gates=gates, decode=False)
        assert decoded == forced
        if gates == "learned":
            assert exact(decoded) == {"right": 1.0, "wrong": 0.0}


@pytest.fixture(scope="module")
def shipped():
    """A trained adapter of the shipped base, rows of its test split, and its scores."""
    adapter = load_adapter(ASSETS / "examples" / "recommended-0" / "adapter.safetensors")
    rows = read_skills("four", "skill").split("test_items")[::40]
    base = load_base(BaseConfig())
    encoded = encode_rows(rows, base, PLAIN_TEMPLATE, 512)
    with attach(base) as attachment:
        scores = evaluate(attachment, adapter, encoded)
    assert scores["mean"]["exact_match"] > 0.9
    return adapter, encoded, scores


@pytest.fixture
def pocket(tmp_path):
    """A copy of the shipped base."""
    return Path(shutil.copytree(ASSETS / "pocket", tmp_path / "pocket"))


@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": 1.5, "eos_token_id": 2},
        {"eos_token_id": 5},  # an ordinary word: answers hold it, and ran on without the other end
        {"eos_token_id": [5, 2, 9]},
        {"eos_token_id": None},
        {"eos_token_id": "two"},
        {},
    ],
    ids=str,
)
def test_scores_of_a_trained_adapter_are_the_same_whatever_the_base_brings(shipped, pocket, own):
    adapter, encoded, expected = shipped
    tree = json.loads((pocket / "config.json").read_text())
    changed = {"eos_token_id": own["eos_token_id"]} if "eos_token_id" in own else {}
    if not isinstance(changed.get("eos_token_id"), str):  # transformers refuses that one
        (pocket / "config.json").write_text(json.dumps(tree | changed))
    base = bringing(pocket, **own)
    assert base.ends == (END,)
    with attach(base) as attachment:
        assert evaluate(attachment, adapter, encoded) == expected


def test_padding_with_the_end_token_changes_nothing(shipped, pocket):
    adapter, encoded, expected = shipped
    base = bringing(pocket, eos_token_id=2, pad_token_id=2)
    base.tokenizer.pad_token = base.tokenizer.eos_token
    assert base.pad_id == END
    with attach(base) as attachment:
        assert evaluate(attachment, adapter, encoded) == expected


def test_an_end_of_the_base_s_own_ends_an_answer_too(shipped):
    """A chat model that says <bos> where its training said <eos>, and knows so by its settings."""
    adapter, encoded, expected = shipped

    def says_another_end(_module, _args, logits):
        return logits[..., [0, 2, 1, *range(3, logits.shape[-1])]]

    found = []
    for own in ({"eos_token_id": [1]}, {}):
        base = load_base(BaseConfig())
        base = freeze(base.model, base.tokenizer, base_id="chat", own_decoding=own)
        head = base.model.get_output_embeddings()
        head.register_forward_hook(says_another_end)
        with attach(base) as attachment:
            decoded = evaluate(attachment, adapter, encoded)
            forced = evaluate(attachment, adapter, encoded, decode=False)
        assert exact(decoded) == exact(forced)
        found.append(exact(decoded))
        engine = Engine(base)
        answer = engine.generate(adapter, encoded.rows[0].prompt, template=PLAIN_TEMPLATE)
        assert (answer.text == encoded.rows[0].response) == bool(own)
    assert found == [exact(expected), dict.fromkeys(exact(expected), 0.0)]


def test_an_answer_that_ends_too_early_or_too_late_is_wrong(shipped):
    adapter, encoded, _ = shipped
    base = load_base(BaseConfig())
    longer = [Example(e.prompt, (*e.answer[:-1], 9, END)) for e in encoded.examples]
    shorter = [Example(e.prompt, (*e.answer[:-2], END)) for e in encoded.examples]
    with attach(base) as attachment:
        for examples in (longer, shorter):
            scores = evaluate(attachment, adapter, replace(encoded, examples=tuple(examples)))
            assert scores["mean"]["exact_match"] == 0.0


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "3", "[" * 100_000])
def test_settings_that_cannot_be_read_are_named(folder, text):
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(
        UnsupportedModelError, match=r"generation_config\.json cannot be read.*delete"
    ):
        load_base(BaseConfig(path=str(folder)))


OWN = {
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[i] for i in range(3, 60)],
    "suppress_tokens": list(range(3, 60)),
    "begin_suppress_tokens": list(range(3, 60)),
    "forced_eos_token_id": 7,
    "sequence_bias": [[[7], 99.0]],
}


@pytest.mark.parametrize("name", OWN)
def test_the_base_s_own_settings_are_followed_where_they_are_asked_for(folder, name):
    base = bringing(folder, **{name: OWN[name]})
    assert decoding.settings_that_differ(base.own_decoding) == {name: OWN[name]}
    engine = Engine(base)
    settings = {"max_new_tokens": 6, "template": "{prompt}"}
    own = engine.generate(None, "w9 w10 w9", decoding="base", **settings)
    assert own != engine.generate(None, "w9 w10 w9", **settings)
    engine.close()
    ids = torch.tensor([[9, 10, 9]])
    model: Any = base.model
    theirs = model.generate(ids, max_new_tokens=6, **{name: OWN[name]})[0, 3:]
    assert own.text == base.tokenizer.decode(theirs, skip_special_tokens=True)


def test_the_base_s_own_draws_have_a_seed_of_the_call(folder):
    base = bringing(folder, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=1)
    found = decoding.settings_that_differ(base.own_decoding)
    assert found == {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 50}
    engine, settings = Engine(base), {"max_new_tokens": 6, "decoding": "base"}
    state = torch.get_rng_state()
    answers = [engine.generate(None, "w9 w10", seed=seed, **settings) for seed in (0, 0, 1, 2)]
    assert answers[0] == answers[1]
    assert len({answer.text for answer in answers}) == 3
    assert torch.equal(torch.get_rng_state(), state)
    engine.close()
    narrow = Engine(bringing(folder, do_sample=True, top_k=1))
    greedy = narrow.generate(None, "w9 w10", max_new_tokens=6)
    assert narrow.generate(None, "w9 w10", seed=3, **settings) == greedy


@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": "much"},
        {"repetition_penalty": 0},
        {"no_repeat_ngram_size": -1},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": [[500]]},
        {"suppress_tokens": 3},
        {"sequence_bias": [[[500], 1.0]]},
        {"forced_eos_token_id": [2, 96]},
        {"do_sample": True, "top_p": 2},
        {"do_sample": True, "temperature": 0},
    ],
    ids=str,
)
def test_settings_of_a_base_that_make_no_sense_are_named(folder, own):
    engine = Engine(bringing(folder, **own))
    with pytest.raises(
        ConfigError, match=r"the base's own decoding setting.*choose decoding 'ours'"
    ):
        engine.generate(None, "w9", decoding="base", max_new_tokens=2)
    assert engine.generate(None, "w9", max_new_tokens=2).n_tokens > 0


def test_a_way_to_decode_that_is_none_or_is_said_twice(folder):
    engine = Engine(bringing(folder))
    with pytest.raises(ConfigError, match="decoding is 'theirs'; it must be 'ours' or 'base'"):
        engine.generate(None, "w9", decoding="theirs")
    with pytest.raises(ConfigError, match="leave them at 0 and 1"):
        engine.generate(None, "w9", decoding="base", temperature=1.0)


def test_the_command_says_which_settings_it_followed(capsys):
    run = str(ASSETS / "examples" / "recommended-0")
    asked = ["generate", run, "--prompt", "What is the plural of dog?", "--decoding", "base"]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["decoding"], found["base_settings"]) == ("dogs", "base", {})
    assert main([*asked, "--temperature", "1"]) == 2
    assert "leave them at 0 and 1" in capsys.readouterr().err
