"""The commands: what they print, what they write, and that the figures are the library's."""

import csv
import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from csreft_core.analysis.gates.tables import gates_table
from csreft_core.analysis.interference.composition import best_patterns, pattern_table
from csreft_core.analysis.subject import open_subject
from csreft_core.attachment.attach import attach
from csreft_core.base.load import load_base
from csreft_core.cli import main
from csreft_core.config import (
    PRESETS,
    BaseConfig,
    config_from_dict,
    config_to_dict,
    with_overrides,
)
from csreft_core.inference.engine import Engine
from csreft_core.inference.scoring import encode_rows, evaluate
from csreft_core.reft.adapter import load_adapter
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import create_run, open_run
from csreft_core.shipped.examples import EXAMPLES, build_examples, example_config
from csreft_core.shipped.pocket.build import build
from csreft_core.skills.skill_set import read_skills
from tests import tiny_runs
from tests.repository import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a skill set with labels and a run that learned something."""
    folder = tmp_path_factory.mktemp("made")
    tiny_runs.save_base(folder / "base")
    tiny_runs.write_rows(folder / "skills.jsonl", tiny_runs.rows())
    chosen = command(
        folder,
        router__supervision=1,
        adapter__positions="all",
        train__steps=60,
        train__lr=0.05,
        train__router_lr=0.05,
    )
    assert main([*chosen, "--out", str(folder / "run")]) == 0
    return folder


def command(made: Path, **changes: object) -> list[str]:
    return ["train", *tiny_runs.settings(made / "base", made / "skills.jsonl", **changes)]


@pytest.fixture
def ask(capsys):
    """Run a command that must succeed, and give what it printed."""

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert main([str(part) for part in argv]) == 0
        return capsys.readouterr().out

    return run


def test_help_and_mistakes_need_no_torch(tmp_path):
    """They answer in a moment."""
    lines = [
        "import sys; from importlib.util import find_spec; from csreft_core.cli import main",
        "assert main(['--help']) == 0 and main(['train', '--help']) == 0",
        "assert main(['train', '--preset', 'no', '--out', 'x']) == 2",
        "assert main(['train', '--set', 'train.steps=0', '--out', 'x']) == 2",
        "assert main(['evaluate']) == main(['evaluate', 'no-run']) == 2",
        "assert main(['generate', 'no-run', '--prompt', 'x']) == 2",
        "assert main(['inspect', 'no-run', 'gates', '--prompt', 'x']) == 2",
        "assert main(['train', '--out', 'no-run', '--resume']) == 2",
        "assert 'torch' not in sys.modules and find_spec('torch')",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert done.stderr.count("\n") == done.stderr.count("error: ") == 7


# train ---------------------------------------------------------------------------------------


def test_train_says_what_it_trains_and_ends_with_one_line(made, tmp_path, capsys):
    assert main([*command(made), "--out", str(tmp_path / "run")]) == 0
    out, progress = capsys.readouterr()
    first, last = out.strip().splitlines()
    n_base = 96 * 32 + 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32
    counts = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    total = counts["parameters"]["total"]
    assert first == (
        f"parameters: 260 subspaces + {counts['parameters']['router']:,} router = {total:,}, "
        f"{total / n_base:.4%} of the base's {n_base:,}"
    )
    assert last.startswith("finished at step 12 of 12; ")
    assert last.endswith(f"adapter in {tmp_path / 'run' / 'adapter.safetensors'}")
    assert "12/12" in progress
    assert "loss=" in progress


@pytest.mark.fast
def test_train_json_is_the_last_record(made, tmp_path, capsys):
    assert main([*command(made), "--out", str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    run = open_run(tmp_path / "run")
    last = run.metrics()[-1]
    assert last["kind"] == "eval"
    assert printed.items() >= last.items()
    assert printed["state"] == "finished"
    assert printed["parameters"] == run.metrics()[0]["parameters"]


def test_train_without_config_and_preset_is_the_recommended_one(made, tmp_path):
    base, skills = str(made / "base"), str(made / "skills.jsonl")
    changes = [f"base.path={base}", f"data.path={skills}", "adapter.layers=[1]", "train.steps=2"]
    sets = [part for change in changes for part in ("--set", change)]
    assert main(["train", *sets, "--out", str(tmp_path / "run")]) == 0
    used = open_run(tmp_path / "run").config()
    expected = with_overrides(PRESETS["recommended"], changes)
    for group in ("base", "data", "adapter", "router"):
        assert getattr(used, group) == getattr(expected, group)


def test_train_takes_the_config_of_another_run(made, tmp_path, ask):
    config = made / "run" / "config.json"
    ask("train", config, "--set", "train.steps=5", "--out", tmp_path / "run")
    was, used = open_run(made / "run").config(), open_run(tmp_path / "run").config()
    assert used.train.steps == 5
    assert config_to_dict(used) | {"train": {}} == config_to_dict(was) | {"train": {}}


def test_train_sets_its_threads_before_it_computes(made, tmp_path, ask):
    torch.set_num_threads(2)
    ask(*command(made, train__threads=1), "--out", tmp_path / "run")
    assert torch.get_num_threads() == 1  # in this process; conftest puts it back


def test_a_queued_run_waits_and_trains(made, tmp_runs, ask):
    config = config_from_dict(json.loads((made / "run" / "config.json").read_text()))
    config = with_overrides(config, ["train.steps=3"])
    run = create_run(tmp_runs / "mine", config, open_run(made / "run").skill_set())
    assert run.status().state == "queued"
    out = ask("train", "--out", run.path, "--resume", "--queue")
    assert "finished at step 3 of 3" in out
    assert run.status().state == "finished"


def test_a_run_that_is_stopped_in_the_queue_does_not_train(made, tmp_runs, ask):
    run = create_run(
        tmp_runs / "mine", open_run(made / "run").config(), open_run(made / "run").skill_set()
    )
    run.request_stop()
    out = ask("train", "--out", run.path, "--resume", "--queue")
    assert out.startswith("stopped at step 0 of 60; go on with: ")
    assert run.metrics() == []


# evaluate ------------------------------------------------------------------------------------


def test_evaluate_json_has_the_documented_form(made, ask):
    result = json.loads(ask("evaluate", made / "run", "--json"))
    assert set(result) == {"run", "gates", "split", "skills", "mean", "nmi"}
    assert (result["run"], result["gates"], result["split"]) == (
        str(made / "run"),
        "learned",
        "test",
    )
    assert set(result["skills"]) == set(tiny_runs.SKILLS)
    for scores in result["skills"].values():
        assert set(scores) == {"loss", "exact_match", "contains", "n"}
        assert scores["n"] == 6
    for key in ("loss", "exact_match", "contains"):
        values = [scores[key] for scores in result["skills"].values()]
        assert result["mean"][key] == pytest.approx(sum(values) / 2)


@pytest.mark.fast
def test_evaluate_follows_the_gates(made, ask):
    def loss(*more: str) -> dict[str, float]:
        result = json.loads(ask("evaluate", made / "run", "--json", *more))
        return {name: scores["loss"] for name, scores in result["skills"].items()}

    off, learned, oracle = loss("--gates", "off"), loss(), loss("--gates", "oracle")
    red = loss("--gates", "only:red")
    assert all(learned[name] < off[name] - 1 for name in off)
    assert oracle["red"] == pytest.approx(red["red"], abs=1e-5)
    assert red["blue"] > oracle["blue"] + 0.1
    assert loss("--gates", "1,0") == pytest.approx(red, abs=1e-5)
    assert loss("--gates=-1,0")["red"] > red["red"]


def test_off_is_the_bare_base(made, ask):
    result = json.loads(ask("evaluate", made / "run", "--gates", "off", "--json"))
    base = load_base(BaseConfig(path=str(made / "base")))
    rows = open_run(made / "run").skill_set().split("test")
    with attach(base) as attachment:
        encoded = encode_rows(rows, base, "Q: {prompt}\nA:", 512)
        bare = evaluate(attachment, None, encoded, contains=True)
    assert (result["skills"], result["mean"]) == (bare["skills"], bare["mean"])


def test_evaluate_takes_other_skills_and_splits(made, tmp_path, ask):
    lines = [line | {"split": "train"} for line in tiny_runs.rows(2, ("blue", "green"))[:-1]]
    path = tiny_runs.write_rows(tmp_path / "mine.jsonl", lines)
    result = json.loads(
        ask("evaluate", made / "run", "--skills", path, "--split", "train", "--json")
    )
    assert {name: scores["n"] for name, scores in result["skills"].items()} == {
        "blue": 14,
        "green": 14,
    }
    pair = json.loads(ask("evaluate", made / "run", "--split", "test_two_skills", "--json"))
    assert set(pair["skills"]) == {"red+blue"}


def test_best_is_the_lowest_loss_of_all_patterns(made, ask):
    argv = ["evaluate", made / "run", "--split", "test", "--json", "--gates"]
    best = json.loads(ask(*argv, "best"))
    for pattern in ("0,0", "0,1", "1,0", "1,1"):
        fixed = json.loads(ask(*argv, pattern))
        for skill, scores in best["skills"].items():
            assert scores["loss"] <= fixed["skills"][skill]["loss"] + 1e-6
    base, run = load_base(BaseConfig(path=str(made / "base"))), open_run(made / "run")
    encoded = encode_rows(run.skill_set().split("test"), base, "Q: {prompt}\nA:", 512)
    with attach(base) as attachment:
        table = pattern_table(attachment, load_adapter(run.adapter_path), encoded)
    assert len(table) == 4 * len(encoded.rows)
    assert len(best_patterns(table)) == len(encoded.rows)
    assert set(table["pattern"]) == {"00", "01", "10", "11"}
    assert best_patterns(table).set_index("row")["nll"].equals(table.groupby("row")["nll"].min())


def test_nmi_tells_a_router_that_knows_from_one_that_does_not(made, tmp_path, ask):
    assert json.loads(ask("evaluate", made / "run", "--json"))["nmi"] == pytest.approx(1)
    ask(*command(made, router__input="first_token", train__steps=2), "--out", tmp_path / "run")
    # The first token is the template's, the same for every prompt.
    assert json.loads(ask("evaluate", tmp_path / "run", "--json"))["nmi"] == 0
    oracle = json.loads(ask("evaluate", made / "run", "--gates", "oracle", "--json"))
    assert "nmi" not in oracle


def test_evaluate_prints_a_table(made, ask):
    lines = ask("evaluate", made / "run").splitlines()
    assert lines[0] == "gates learned, split test"
    assert lines[1].split() == ["skill", "loss", "(nats)", "exact", "match", "contains", "n"]
    assert [line.split()[0] for line in lines[2:5]] == ["red", "blue", "mean"]
    assert lines[5].startswith("nmi of gates and skill: 1.000")


# generate and inspect ------------------------------------------------------------------------


def test_generate_is_the_engines_answer(made, ask):
    run = open_run(made / "run")
    engine = Engine(load_base(BaseConfig(path=str(made / "base"))))
    adapter = load_adapter(run.adapter_path)
    for gates in ("learned", "hard", "off", "only:blue", "0.5,2"):
        expected = engine.generate(adapter, "w3 w12 w20", gates)
        argv = ["generate", made / "run", "--prompt", "w3 w12 w20", "--gates", gates]
        assert json.loads(ask(*argv, "--json")) == {
            "prompt": "w3 w12 w20",
            "text": expected.text,
            "gates": expected.gates,
            "decoding": "ours",
            "base_settings": {},
        }
    text, shown = ask(*argv).splitlines()
    assert text == expected.text
    assert shown.startswith("gates: red ")


def test_generate_draws_as_the_engine_does(made, ask):
    run = open_run(made / "run")
    engine = Engine(load_base(BaseConfig(path=str(made / "base"))))
    adapter = load_adapter(run.adapter_path)
    greedy = ["generate", made / "run", "--prompt", "w3 w12 w20", "--json"]
    drawn = [*greedy, "--temperature", 1.5, "--top-p", 0.9, "--max-new-tokens", 6]
    texts = [json.loads(ask(*drawn, "--seed", seed))["text"] for seed in range(4)]
    assert texts == [
        engine.generate(
            adapter, "w3 w12 w20", temperature=1.5, top_p=0.9, seed=seed, max_new_tokens=6
        ).text
        for seed in range(4)
    ]
    assert len(set(texts)) > 1
    short = json.loads(ask(*greedy, "--max-new-tokens", 1))["text"]
    assert short == json.loads(ask(*greedy))["text"].split()[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--temperature", "-1"], "temperature is -1.0; it must be 0"),
        (["--temperature", "warm"], "invalid float value: 'warm'"),
        (["--top-p", "0"], "top-p is 0.0"),
        (["--seed", "-3"], "seed is -3"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
    ],
)
def test_generate_refuses_settings_out_of_their_range(made, capsys, option, message):
    assert main(["generate", str(made / "run"), "--prompt", "w3", *option]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.fast
def test_inspect_gates_is_the_table_of_the_page(made, ask):
    prompts = ["w3 w12 w20", "w4 w5"]
    subject = open_subject(str(made / "run"))
    expected = gates_table(subject, prompts=prompts).to_dict("records")
    argv = ["inspect", made / "run", "gates", "--prompt", *prompts]
    rows = json.loads(ask(*argv, "--json"))
    assert [row | {"gate": 0} for row in rows] == [row | {"gate": 0} for row in expected]
    assert [row["gate"] for row in rows] == pytest.approx([row["gate"] for row in expected])
    as_csv = [*csv.DictReader(io.StringIO(ask(*argv, "--csv")))]
    assert [float(row["gate"]) for row in as_csv] == [row["gate"] for row in expected]
    assert len(ask(*argv).splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("view", "table", "message"),
    [
        ("gates", "tokens", "this table needs 'prompts'; give --prompt"),
        ("interference", "examples", "this table needs 'skill'; give --set skill=…"),
    ],
)
def test_inspect_says_what_a_table_needs(made, capsys, view, table, message):
    assert main(["inspect", str(made / "run"), view, "--table", table]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_inspect_gates_of_a_split(made, ask):
    rows = json.loads(ask("inspect", made / "run", "gates", "--split", "validation", "--json"))
    assert len(rows) == 2 * 12
    oracle = json.loads(
        ask("inspect", made / "run", "gates", "--split", "all", "--gates", "oracle", "--json")
    )
    assert all(row["gate"] == (row["subspace"] in row["skill"].split("+")) for row in oracle)


# pocket and the shipped runs -----------------------------------------------------------------


def test_teacher_forced_and_decoded_exact_match_agree_on_pocket():
    """Where some answers are right and some are wrong."""
    run = open_run(ROOT / "assets" / "examples" / "recommended-0")
    base, skill_set = load_base(BaseConfig()), run.skill_set()
    adapter = load_adapter(run.adapter_path)
    rows = skill_set.split("test_items")[::48] + skill_set.split("test_two_skills")[::12]
    encoded = encode_rows(rows, base, "Q: {prompt}\nA:", 512)
    with attach(base) as attachment:
        for gates in ("learned", "oracle", "off"):
            forced = evaluate(attachment, adapter, encoded, gates=gates, decode=False)
            decoded = evaluate(attachment, adapter, encoded, gates=gates)
            assert forced == decoded
        learned = evaluate(attachment, adapter, encoded)["mean"]["exact_match"]
        off = evaluate(attachment, adapter, encoded, gates="off")["mean"]["exact_match"]
        bare = evaluate(attachment, None, encoded)["mean"]["exact_match"]
    assert off == bare
    assert off < learned < 1


def test_example_configs_are_the_presets():
    assert set(EXAMPLES) >= {"recommended-0", "paper-0", "loreft-0", "oracle-0"}
    for name, (preset, _) in EXAMPLES.items():
        config = example_config(name)
        assert config.adapter == PRESETS[preset].adapter
        assert config.router == PRESETS[preset].router
        assert config.train.seed == int(name[-1])


def test_build_examples_makes_finished_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("csreft_core.shipped.examples.THREADS", 1)
    (run,) = build_examples(tmp_path, ["paper-0"], steps=2)
    assert run.status().state == "finished"
    assert {path.name for path in run.path.iterdir()} == {
        "adapter.safetensors",
        "config.json",
        "metrics.jsonl",
        "skills.jsonl",
        "snapshots",
        "status.json",
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_runs_are_finished_and_fit_the_shipped_base(name):
    run = open_run(ROOT / "assets" / "examples" / name)
    assert run.status().state == "finished"
    config, expected = run.config(), example_config(name)
    # They were trained without kept states, which change the last bits and nothing else.
    assert (config.train.keep_states, expected.train.keep_states) == (False, True)
    expected = with_overrides(expected, ["train.keep_states=false"])
    for group in ("base", "data", "adapter", "router", "train"):
        assert getattr(config, group) == getattr(expected, group)
    assert run.skill_set() == read_skills(config.data.path)
    base, adapter = load_base(config.base), load_adapter(run.adapter_path)
    assert differences(adapter.spec.base_fingerprint, base.fingerprint) == ()
    assert sum(path.stat().st_size for path in run.path.rglob("*")) < 1_500_000


def test_build_pocket_builds_a_base(tmp_path, ask, monkeypatch):
    monkeypatch.setattr("csreft_core.shipped.pocket.build.build", partial(build, threads=1))
    monkeypatch.setattr("csreft_core.shipped.pocket.build._BATCH_SIZE", 4)
    out = ask("build-pocket", "--out", tmp_path / "pocket", "--steps", "1")
    assert out.startswith(f"{tmp_path / 'pocket'}: 1,")
    assert "sha256" in out
    assert load_base(BaseConfig(path=str(tmp_path / "pocket"))).n_layers == 6
