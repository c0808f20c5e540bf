"""`memorise`: which texts are learned, what comes back of them, and the tables of it."""

import json
from typing import Any

import pandas as pd
import pytest
import torch

from csreft_core.analysis.claims import memorisation
from csreft_core.attachment.attach import attach
from csreft_core.base.load import Base, load_base
from csreft_core.cli import main
from csreft_core.comparison import memorising
from csreft_core.comparison.memorising import KINDS, Trial, default_source, memorise, words_to_learn
from csreft_core.config import BaseConfig
from csreft_core.errors import ConfigError, RunError
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import open_run
from tests import tiny_runs

SOURCE = " ".join(f"w{3 + i * 7 % 90}" for i in range(60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_runs.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def base(folder) -> Base:
    return load_base(BaseConfig(path=str(folder), device="cpu"))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(memorising, "STEPS", 3)


# --- the texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_the_text_is_a_piece_and_the_scrambled_one_has_its_words(base, seed):
    text, scrambled, random = (
        words_to_learn(Trial(kind, 1, 12, seed), SOURCE, base).split() for kind in KINDS
    )
    assert f" {' '.join(text)} " in f" {SOURCE} "
    assert len(text) == len(scrambled) == len(random) == 12
    assert sorted(scrambled) == sorted(text)
    assert scrambled != text
    assert sorted(random) != sorted(text)
    assert not set(random) & {"<pad>", "<bos>", "<eos>"}


def test_seeds_begin_at_other_words_and_reach_both_ends(base):
    words = SOURCE.split()
    firsts = {
        words.index(words_to_learn(Trial("text", 1, 58, seed), SOURCE, base).split()[0])
        for seed in range(20)
    }
    assert firsts == {0, 1, 2}


def test_a_source_that_is_too_short_is_an_error(base):
    assert len(words_to_learn(Trial("text", 1, 60, 0), SOURCE, base).split()) == 60
    with pytest.raises(ConfigError, match="has 60 tokens, a text of 61 is asked for"):
        words_to_learn(Trial("text", 1, 61, 0), SOURCE, base)
    with pytest.raises(ConfigError, match="has 0 tokens"):
        words_to_learn(Trial("text", 1, 1, 0), "", base)


def test_pocket_knows_every_word_of_the_default_source():
    pocket, source = load_base(BaseConfig(device="cpu")), default_source()
    words = " ".join(sorted(set(source.split())))
    assert pocket.tokenizer.unk_token_id not in pocket.tokenizer(words)["input_ids"]
    assert pocket.tokenizer.unk_token_id in pocket.tokenizer("gnu")["input_ids"]
    text = words_to_learn(Trial("text", 1, 96, 0), source[:4000], pocket)
    assert len(pocket.tokenizer(text, add_special_tokens=False)["input_ids"]) >= 96
    assert source != default_source(1)


# --- learning ----------------------------------------------------------------------------------


def greedy(base, run, n):
    """The first n tokens after the prompt, one at a time and without a cache."""
    adapter = load_adapter(run.adapter_path).eval()
    ids = base.tokenizer("Q: text\nA:", return_tensors="pt")["input_ids"]
    n_prompt = ids.shape[1]
    with torch.no_grad(), attach(base) as attachment:
        for _ in range(n):
            mask = torch.arange(ids.shape[1]).unsqueeze(0) < n_prompt
            request = memorising.request(adapter, "uniform")
            output, _ = attachment.forward(request, input_ids=ids, prompt_mask=mask)
            ids = torch.cat([ids, output.logits[:, -1:].argmax(-1)], 1)
    return ids[0, n_prompt:].tolist()


def test_what_comes_back_is_the_beginning_that_greedy_decoding_gives(base, tmp_path, monkeypatch):
    monkeypatch.setattr(memorising, "STEPS", 40)
    trials = [Trial("text", 1, n, 0) for n in (1, 4)]
    rows = list(memorise(tmp_path, trials, base, SOURCE))
    for trial, row in zip(trials, rows, strict=True):
        run = open_run(tmp_path / trial.name)
        learned = base.tokenizer(run.skill_set().rows[0].response)["input_ids"]
        found = greedy(base, run, len(learned))
        same = [a == b for a, b in zip(found, learned, strict=True)]
        expected = same.index(False) if False in same else len(same)
        assert (row["n"], row["given_back"]) == (trial.tokens, expected)
        assert row["parameters"] == 32 + 1
    assert rows[0]["given_back"] == 1, "a positive control: one token can be learned"


def test_the_edit_is_one_vector_on_the_last_prompt_token(base, tmp_path):
    list(memorise(tmp_path, [Trial("text", 2, 4, 0)], base, SOURCE))
    config = open_run(tmp_path / "text-layer2-4-0").config()
    a = config.adapter
    assert (a.layers, a.rank, a.form, a.positions, a.n_subspaces) == ((2,), 1, "consreft", "l1", 1)
    assert config.base.path == base.id


def test_a_finished_text_is_not_learned_again(base, tmp_path, monkeypatch):
    trials = [Trial(kind, 1, 4, 0) for kind in KINDS]
    first = list(memorise(tmp_path, trials[:2], base, SOURCE))
    trained = []
    train = memorising.train
    monkeypatch.setattr(
        memorising, "train", lambda run, *a, **k: trained.append(run.name) or train(run, *a, **k)
    )
    again = list(memorise(tmp_path, trials, base, SOURCE))
    assert again[:2] == first
    assert trained == ["random-layer1-4-0"]


def test_a_text_that_the_base_cannot_read_at_once_is_an_error(base, tmp_path):
    with pytest.raises(ConfigError, match="the base reads 64 tokens at once"):
        list(memorise(tmp_path, [Trial("text", 1, 61, 0)], base, f"{SOURCE} {SOURCE}"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "n"), [([5, 6, 7, 8], 4), ([5, 6, 9, 8], 2), ([9, 6, 7, 8], 0), ([5, 9, 9, 9], 1)]
)
def test_what_comes_back_ends_at_the_first_wrong_token(found, n):
    assert memorising.beginning(torch.tensor(found), torch.tensor([5, 6, 7, 8])) == n


# --- the command -------------------------------------------------------------------------------


def arguments(folder, tmp_path):
    (tmp_path / "source.txt").write_text(SOURCE)
    return [
        "memorise",
        "--base",
        str(folder),
        "--file",
        str(tmp_path / "source.txt"),
        "--layers",
        "1",
        "--lengths",
        "2",
        "--seeds",
        "0,1",
    ]


def test_the_command_writes_a_file_that_judge_reads(folder, tmp_path, capsys):
    out = tmp_path / "made"
    assert main([*arguments(folder, tmp_path), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["tokens"], row["seeds"]) for row in printed] == [
        (kind, 2, 2) for kind in KINDS
    ]
    made = out / "memorisation.json"
    assert json.loads(made.read_text())["command"].startswith("python -m csreft_core memorise")
    words = ["judge", "memorisation", "--table", "trials", "--set", f"memorised={made}", "--json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * 3
    assert all(row["share"] == row["given_back"] / row["n"] for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lengths", "0"], "--lengths expects numbers of at least 1"),
        (["--lengths", "two"], "--lengths expects numbers"),
        (["--seeds", "-1"], "--seeds expects numbers of at least 0"),
        (["--layers", "3"], "--layers has 3, but the base has layers 0 to 2"),
        (["--file", "nowhere.txt"], "nowhere.txt: cannot be read as text"),
    ],
)
def test_a_mistake_is_one_line(folder, tmp_path, capsys, change, message):
    words = [*arguments(folder, tmp_path), "--out", str(tmp_path / "made"), *change]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "made").exists()


# --- the tables --------------------------------------------------------------------------------


def made_up(path, layers=(2,)):
    """Text comes back whole up to 16 tokens and to 12 + seed of 32; scrambled half of that."""
    rows = [
        {
            "kind": kind,
            "layer": layer,
            "tokens": n,
            "seed": seed,
            "n": n,
            "loss": 0.1,
            "parameters": 129,
            "given_back": (n if n == 16 else 12 + seed) // divisor,
        }
        for layer in layers
        for n in (16, 32)
        for seed in range(4)
        for kind, divisor in (("text", 1), ("scrambled", 2), ("random", 4))
    ]
    path.write_text(json.dumps({"rows": rows, "command": "memorise"}))
    return str(path)


def test_the_shares_by_hand(tmp_path):
    table = memorisation.shares_table(memorised=made_up(tmp_path / "m.json"))
    found = table.set_index(["kind", "tokens"])
    assert [*found.loc[("text", 16), ["share", "low", "high"]]] == [1, 1, 1]
    row: Any = found.loc[("text", 32)]
    assert row["share"] == pytest.approx(13.5 / 32)
    # s of 12 to 15 is sqrt(5/3); t(0.975, 3) = 3.182446.
    assert row["high"] - row["share"] == pytest.approx(3.182446 * (5 / 3 / 4) ** 0.5 / 32, rel=1e-5)
    assert (row["seeds"], row["parameters"], row["layer"]) == (4, 129, 2)
    assert found.loc[("random", 16), "share"] == 0.25


def test_the_claim_is_measured_on_the_longest_text_of_the_first_layer(tmp_path):
    path = made_up(tmp_path / "m.json", layers=(2, 4))
    text, scrambled = memorisation.memory_measurements(path)
    assert text["condition"] == "R3.text"
    assert text["value"] == pytest.approx(13.5 / 32)
    assert text["control_value"] == pytest.approx((6 + 6 + 7 + 7) / 4 / 32)
    assert (text["n"], text["seeds"], text["over"]) == (1, 4, "seeds")
    assert text["source"] == "texts of 32 tokens"
    assert scrambled["value"] == pytest.approx(text["value"] - text["control_value"])
    assert scrambled["low"] < scrambled["value"] < scrambled["high"]
    assert memorisation.memory_measurements(str(tmp_path / "nothing.json")) == []


@pytest.mark.parametrize("content", ["", "[]", '{"rows": []}'])
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(RunError, match="is broken; make it again with: memorise --out"):
        memorisation.trials_table(memorised=str(path))
    with pytest.raises(RunError, match="no such file; make it with: memorise --out"):
        memorisation.trials_table(memorised=str(tmp_path / "none.json"))


def test_the_columns_are_those_of_the_docstring(tmp_path):
    table = memorisation.trials_table(memorised=made_up(tmp_path / "m.json"))
    assert isinstance(table, pd.DataFrame)
    assert list(table) == [
        "kind",
        "layer",
        "tokens",
        "seed",
        "n",
        "given_back",
        "loss",
        "parameters",
        "share",
    ]
