"""`generate --file`: what alpaca_eval reads, ReFT's decoding, and going on after a stop."""

import json

import pytest
import torch

from csreft_core.__main__ import main
from csreft_core.analysis.claims.shipped_runs import EXAMPLES
from csreft_core.cli import model_outputs as m
from csreft_core.config import PLAIN_TEMPLATE, BaseConfig
from csreft_core.errors import ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import load_adapter
from csreft_core.skills.encoding import prompt_ids

RUN = f"{EXAMPLES}/recommended-0"
ASKED = [
    {"instruction": "What is the plural of dog?", "dataset": "helpful_base", "datasplit": "eval"},
    {"instruction": "What is the plural of cat?"},
]


@pytest.fixture(scope="module")
def engine():
    return Engine.load(BaseConfig())


@pytest.fixture(scope="module")
def adapter():
    from pathlib import Path

    return load_adapter(Path(RUN) / "adapter.safetensors")


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(ASKED), encoding="utf-8")
    return path


def command(asked, out, *more):
    return [
        "generate",
        RUN,
        "--file",
        str(asked),
        "--format",
        "alpaca_eval",
        "--out",
        str(out),
        *more,
    ]


def test_the_file_has_the_fields_that_alpaca_eval_reads(asked, tmp_path, capsys):
    out = tmp_path / "outputs.json"
    assert main(command(asked, out, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "answers": 2}
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [list(row) for row in found] == [
        ["instruction", "output", "generator", "dataset", "datasplit"],
        ["instruction", "output", "generator"],
    ]
    assert [row["output"] for row in found] == ["dogs", "cats"]
    assert {row["generator"] for row in found} == {"recommended-0"}


def test_decoding_is_that_of_reft(engine, adapter, monkeypatch):
    asked = {}

    def generate(request, **settings):
        asked.update(settings)
        return real(request, **settings)

    real = engine.attachment.generate
    monkeypatch.setattr(engine.attachment, "generate", generate)
    m._answer(engine, adapter, ASKED[0]["instruction"], "learned", PLAIN_TEMPLATE, 2048)
    n = len(prompt_ids(ASKED[0]["instruction"], engine.base.tokenizer, PLAIN_TEMPLATE))
    settings = asked["generation_config"]
    assert (settings.do_sample, settings.repetition_penalty) == (False, 1.1)
    assert settings.no_repeat_ngram_size == 5
    # 2048 new tokens are more than this base can read.
    assert settings.max_new_tokens == engine.base.context - n < 2048


@pytest.mark.parametrize("setting", ["repetition_penalty", "no_repeat_ngram_size"])
def test_each_decoding_setting_changes_what_is_answered(engine, adapter, monkeypatch, setting):
    # Without the end token the answer goes on and repeats itself.
    head = engine.base.model.get_output_embeddings()
    end = engine.base.tokenizer.eos_token_id
    kept = head.weight[end].clone()
    plain = m.REFT_DECODING | {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    answers = []
    try:
        with torch.no_grad():
            head.weight[end] = 0
        for settings in (plain, plain | {setting: m.REFT_DECODING[setting]}):
            monkeypatch.setattr(m, "REFT_DECODING", settings)
            asked = (ASKED[0]["instruction"], "learned", PLAIN_TEMPLATE, 40)
            answers.append(m._answer(engine, adapter, *asked))
    finally:
        with torch.no_grad():
            head.weight[end] = kept
    assert answers[0] != answers[1]


def test_a_stopped_command_goes_on_and_asks_nothing_twice(engine, adapter, tmp_path, monkeypatch):
    out = tmp_path / "outputs.json"
    settings = {"gates": "learned", "template": PLAIN_TEMPLATE, "generator": "mine"}
    progress = m.write_outputs(engine, adapter, ASKED, out, **settings, max_new_tokens=4)
    assert [next(progress), next(progress)] == [0, 1]
    progress.close()
    prompts = []
    answer = m._answer
    monkeypatch.setattr(
        m,
        "_answer",
        lambda e, a, prompt, *rest: prompts.append(prompt) or answer(e, a, prompt, *rest),
    )
    counts = list(m.write_outputs(engine, adapter, ASKED, out, **settings, max_new_tokens=4))
    assert counts == [1, 2]
    assert prompts == ["What is the plural of cat?"]
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 2


def test_a_file_with_other_answers_is_not_touched(asked, tmp_path, capsys):
    out = tmp_path / "outputs.json"
    assert main(command(asked, out)) == 0
    before = out.read_bytes()
    assert main(command(asked, out, "--generator", "another")) == 2
    assert "holds other answers" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "expected a list of objects with 'instruction', got a dict"),
        ("[]", "the list is empty"),
        ('[{"prompt": "x"}]', "entry 0: expected a text in 'instruction'"),
        ('["x"]', "entry 0: expected a text in 'instruction'"),
        ('[{"instruction": "x", "input": 3}]', "entry 0: expected a text in 'input'"),
    ],
)
def test_broken_instructions_are_refused(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        m.read_instructions(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--file", "a.json"], "--file needs --format alpaca_eval and --out"),
        (["--prompt", "x", "--out", "y"], "belong to --file"),
        ([], "one of the arguments --prompt --file is required"),
        (
            ["--file", "a.json", "--format", "alpaca_eval", "--out", "b", "--temperature", "1"],
            "decodes greedily",
        ),
        (["--file", "nowhere.json", "--format", "alpaca_eval", "--out", "b"], "cannot be read"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, more, message):
    assert main(["generate", RUN, *more]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
