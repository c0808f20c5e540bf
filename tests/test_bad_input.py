"""A user's mistake: exit code 2, one line that names the thing and the remedy, nothing touched."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from csreft_core.cli import main
from csreft_core.runs.all_runs import open_run
from csreft_core.runs.run import Run
from csreft_core.training.loop import train
from tests import tiny_runs
from tests.repository import ROOT
from tests.tiny import tiny_tokenizer


@dataclass(frozen=True)
class Place:
    """A fresh folder with what a command needs; a mistake is built into a copy of it."""

    root: Path
    made: Path

    @property
    def base(self) -> Path:
        return self.made / "base"

    @property
    def out(self) -> Path:
        return self.root / "new"

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.root / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.made / name, self.root / name))

    def train(self, *more: str, skills: Path | None = None, **changes: object) -> list[str]:
        chosen = tiny_runs.settings(self.base, skills or self.made / "skills.jsonl", **changes)
        return ["train", *chosen, "--out", str(self.out), *more]

    def skills(self, content: bytes | str, name: str = "mine.jsonl") -> list[str]:
        return self.train(skills=self.file(name, content))


Case = Callable[[Place], list[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a skill set, a finished run and one that was left at step 9 of 12."""
    folder = tmp_path_factory.mktemp("made")
    tiny_runs.save_base(folder / "base")
    skills = tiny_runs.write_rows(folder / "skills.jsonl", tiny_runs.rows())
    chosen = tiny_runs.settings(folder / "base", skills)
    assert main(["train", *chosen, "--out", str(folder / "run"), "--json"]) == 0
    begun = Path(shutil.copytree(folder / "run", folder / "begun"))
    (begun / "adapter.safetensors").unlink()
    for _ in islice(train(Run(begun)), 12):
        pass
    assert open_run(begun).status().state == "interrupted"
    assert open_run(begun).checkpoints()
    return folder


def row(**changes: object) -> str:
    """A valid row of a skill file, but for the changes; None takes a field out."""
    valid = {"skill": "red", "prompt": "w3", "response": "w40", "split": "train"}
    return json.dumps({k: v for k, v in {**valid, **changes}.items() if v is not None}) + "\n"


# Skill sets ----------------------------------------------------------------------------------


def leak(place: Place) -> list[str]:
    return place.skills(row() + row(split="test_items"))


def unlabelled_and_supervised(place: Place) -> list[str]:
    lines = row() + row(skill=None, prompt="w9") + row(skill="blue", prompt="w8")
    return place.train(skills=place.file("mine.jsonl", lines), router__supervision=1)


def empty_folder(place: Place) -> list[str]:
    (place.root / "mine").mkdir()
    return place.train(skills=place.root / "mine")


SKILL_SETS: dict[str, tuple[Case, str]] = {
    "missing": (lambda p: p.train(skills=p.root / "no.jsonl"), r"no\.jsonl.*no such.*give"),
    "empty": (lambda p: p.skills(""), r"mine\.jsonl.*empty"),
    "wrong columns": (lambda p: p.skills('{"q": "a", "a": "b"}\n'), r"mine\.jsonl.*prompt"),
    "broken json": (lambda p: p.skills(row() + '{"skill": "red", \n'), r"mine\.jsonl:2"),
    "utf-16": (lambda p: p.skills(row().encode("utf-16")), r"mine\.jsonl.*UTF-8"),
    "10 MB line": (lambda p: p.skills(row() + row(prompt="w3 " * 3_500_000)), r"jsonl:2.*1 MB"),
    "nan": (lambda p: p.skills('{"skill": "red", "prompt": NaN, "response": "a"}\n'), r":1.*NaN"),
    "nul": (lambda p: p.skills(row(prompt="w3\0")), r"mine\.jsonl:1.*prompt.*NUL"),
    "empty response": (lambda p: p.skills(row() + row(response=" ")), r":2.*response"),
    "object as skill": (lambda p: p.skills(row(skill={"n": 3})), r":1.*skill"),
    "unknown split": (lambda p: p.skills(row(split="holdout")), r":1.*split.*holdout"),
    "no train row": (lambda p: p.skills(row(split="validation")), r"mine\.jsonl.*train"),
    "leak": (leak, r":2.*test_items.*:1.*drop"),
    "csv columns": (lambda p: p.skills("a,b\n1,2\n", "mine.csv"), r"mine\.csv.*prompt"),
    "unknown ending": (lambda p: p.skills(row(), "mine.xls"), r"mine\.xls.*jsonl"),
    "empty folder": (empty_folder, r"mine.*(no|empty)"),
    "no labels": (lambda p: p.skills(row(skill=None)), r"no skill.*adapter\.n_subspaces"),
    "labels missing": (unlabelled_and_supervised, r"'w9' has no skill.*label"),
}


# Settings ------------------------------------------------------------------------------------


def config_file(content: str | bytes, *more: str) -> Case:
    """`train` with a config file of this content."""

    def case(place: Place) -> list[str]:
        path = place.file("config.json", content)
        return ["train", str(path), *more, "--out", str(place.out)]

    return case


def setting(assignment: str) -> Case:
    """`train` with one more `--set`."""
    return lambda place: place.train("--set", assignment)


SETTINGS: dict[str, tuple[Case, str]] = {
    "preset": (lambda p: ["train", "--preset", "best", "--out", str(p.out)], "best.*recommended"),
    "path": (setting("adapter.ranks=2"), r"adapter\.ranks.*docs/configuration\.md"),
    "deep path": (setting("train.adam.lr=2"), r"train\.steps=200.*train\.adam\.lr"),
    "no value": (setting("train.steps"), r"train\.steps=200"),
    "type": (setting("train.steps=many"), r"train\.steps.*integer.*many"),
    "provenance": (setting("provenance.template=a"), "provenance"),
    "k r > d": (setting("adapter.rank=17"), r"(34|17).*32.*(lower|smaller|reduce|at most)"),
    "layer": (setting("adapter.layers=[3]"), r"adapter\.layers.*3.*0 to 2"),
    "negative layer": (setting("adapter.layers=[-1]"), r"adapter\.layers.*-1.*0 to 2"),
    "rank 0": (setting("adapter.rank=0"), r"adapter\.rank.*1"),
    "negative lr": (setting("train.lr=-1"), r"train\.lr.*greater than 0"),
    "nan lr": (setting("train.lr=NaN"), r"train\.lr"),
    "infinite lr": (setting("train.lr=1e999"), r"train\.lr"),
    "router above": (setting("router.layer=2"), r"router\.layer.*2.*choose -1"),
    "untied": (lambda p: p.train(adapter__tied=False), r"untied.*f2\+l2"),
    "noreft": (setting("adapter.form=noreft"), r"noreft.*joint.*use"),
    "positions": (setting("adapter.positions=l0"), r"adapter\.positions.*l1.*l0"),
    "k and oracle": (
        lambda p: p.train(adapter__n_subspaces=3, router__gates="oracle"),
        r"adapter\.n_subspaces is 3.*2 skills",
    ),
    "template": (setting("data.template=Answer:"), r"data\.template.*\{prompt\}"),
    "chat": (setting("data.template=chat"), r"data\.template.*auto"),
    "file and preset": (config_file("{}", "--preset", "paper"), "config.json.*choose one"),
    "no file": (lambda p: ["train", str(p.root / "no.json"), "--out", str(p.out)], r"no\.json"),
    "broken file": (config_file("{"), r"config\.json.*JSON"),
    "utf-16 file": (config_file("{}".encode("utf-16")), r"config\.json.*UTF-8"),
    "list": (config_file("[]"), r"config\.json.*object"),
    "newer file": (config_file('{"schema_version": 99}'), r"99.*update"),
    "folder": (lambda p: ["train", str(p.root), "--out", str(p.out)], "folder.*file"),
    "command": (lambda _: ["trian"], "trian.*train.*--help"),
    "option": (lambda p: p.train("--fast"), "--fast.*--help"),
    "no out": (lambda _: ["train"], "--out.*--help"),
    "view": (lambda p: ["inspect", str(p.root), "gate"], "gate.*gates"),
}


# Bases ---------------------------------------------------------------------------------------


def encoder_decoder(place: Place) -> list[str]:
    config = T5Config(
        vocab_size=96,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
    )
    config.decoder_start_token_id = 0
    T5ForConditionalGeneration(config).save_pretrained(place.root / "t5")
    tiny_tokenizer().save_pretrained(place.root / "t5")
    return place.train(base__path=str(place.root / "t5"))


def pickled(place: Place) -> list[str]:
    base = place.copy("base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    return place.train(base__path=str(base))


def truncated(name: str, path: str = "model.safetensors") -> Callable[[Place], Path]:
    """A copy with a file that was cut in half."""

    def cut(place: Place) -> Path:
        copy = place.copy(name)
        whole = (copy / path).read_bytes()
        (copy / path).write_bytes(whole[: len(whole) // 2])
        return copy

    return cut


def no_end_token(place: Place) -> list[str]:
    base = place.copy("base")
    path = base / "tokenizer_config.json"
    tree = json.loads(path.read_text())
    del tree["eos_token"]
    path.write_text(json.dumps(tree))
    return place.train(base__path=str(base))


def no_tokenizer(place: Place) -> list[str]:
    base = place.copy("base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    return place.train(base__path=str(base))


BASES: dict[str, tuple[Case, str]] = {
    "missing": (lambda p: p.train(base__path=str(p.root / "llm")), "llm.*pocket"),
    "encoder-decoder": (encoder_decoder, "t5.*encoder-decoder.*decoder-only"),
    "pickle": (pickled, "base.*safetensors"),
    "truncated": (lambda p: p.train(base__path=str(truncated("base")(p))), "copy or fetch.*again"),
    "no tokeniser": (no_tokenizer, "tokeniser cannot be loaded.*put the files"),
    "no end token": (no_end_token, "end-of-text.*set eos_token"),
    "device": (setting("base.device=cuda:7"), "cuda:7.*cpu"),
    "device name": (setting("base.device=gpu"), "base.device.*gpu"),
}


# Run folders ---------------------------------------------------------------------------------


def out_is_file(place: Place) -> list[str]:
    place.out.write_text("mine")
    return place.train()


def out_has_files(place: Place) -> list[str]:
    place.out.mkdir()
    (place.out / "notes.txt").write_text("mine")
    return place.train()


def parent_is_file(place: Place) -> list[str]:
    parent = place.file("notes", "mine")
    return [*place.train()[:-1], str(parent / "run")]


def existing(place: Place) -> list[str]:
    return [*place.train()[:-1], str(place.copy("run"))]


def changed_run(name: str, content: str, *command: str) -> Case:
    """A command on a run whose file has this content."""

    def case(place: Place) -> list[str]:
        run = place.copy("run")
        (run / name).write_text(content)
        return [part.replace("RUN", str(run)) for part in command]

    return case


def resume(run: Path) -> list[str]:
    return ["train", "--out", str(run), "--resume"]


def half_checkpoint(place: Place) -> list[str]:
    run = place.copy("begun")
    state = open_run(run).checkpoints()[-1] / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    return resume(run)


def checkpoint_without_state(place: Place) -> list[str]:
    run = place.copy("begun")
    (open_run(run).checkpoints()[-1] / "state.pt").unlink()
    return resume(run)


def other_base(place: Place) -> list[str]:
    run, base = place.copy("begun"), tiny_runs.save_base(place.root / "other", seed=1)
    tree = json.loads((run / "config.json").read_text())
    tree["base"]["path"] = str(base)
    (run / "config.json").write_text(json.dumps(tree))
    return resume(run)


EVALUATE = ("evaluate", "RUN")
RUNS: dict[str, tuple[Case, str]] = {
    "file": (out_is_file, "new.*file.*another"),
    "other files": (out_has_files, "new.*other files.*another"),
    "parent is file": (parent_is_file, "notes.*another"),
    "existing": (existing, "run.*--resume"),
    "missing": (lambda p: resume(p.root / "no"), "no.*train"),
    "no run": (lambda p: ["evaluate", str(p.made)], "config.json.*give"),
    "finished": (lambda p: resume(p.copy("run")), "finished.*new"),
    "resume with set": (lambda p: [*resume(p.copy("begun")), "--set", "a.b=1"], "--set.*leave"),
    "half checkpoint": (half_checkpoint, r"step-\d+.*cannot be read.*delete"),
    "empty checkpoint": (checkpoint_without_state, r"step-\d+.*cannot be read.*delete"),
    "other base": (other_base, "begun.*restore"),
    "status": (changed_run("status.json", "{", *EVALUATE), "status.json.*restore"),
    "config": (changed_run("config.json", "{", *EVALUATE), "config.json.*restore"),
    "newer": (changed_run("config.json", '{"schema_version": 99}', *EVALUATE), "99.*update"),
    "status state": (changed_run("status.json", '{"state": "happy"}', *EVALUATE), "status.json"),
    "skills": (changed_run("skills.jsonl", "", *EVALUATE), "skills.jsonl.*restore"),
}


# Adapters, gates, prompts --------------------------------------------------------------------


def without_adapter(place: Place) -> list[str]:
    return ["evaluate", str(place.copy("begun"))]


def rewritten_adapter(change: Callable[[dict], None]) -> Case:
    """`evaluate` of a run whose adapter's description was changed."""

    def case(place: Place) -> list[str]:
        path = place.copy("run") / "adapter.safetensors"
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["csreft"])
        tensors = load_file(path)
        change(tree)
        save_file(tensors, path, metadata={"csreft": json.dumps(tree)})
        return ["evaluate", str(path.parent)]

    return case


def foreign_tensors(place: Place) -> list[str]:
    run = place.copy("run")
    save_file({"a": torch.zeros(2)}, run / "adapter.safetensors")
    return ["evaluate", str(run)]


def pickled_adapter(place: Place) -> list[str]:
    run = place.copy("run")
    torch.save({"a": torch.zeros(2)}, run / "adapter.safetensors")
    return ["generate", str(run), "--prompt", "w3"]


def on_run(*command: str) -> Case:
    """A command on the finished run."""
    return lambda place: [part.replace("RUN", str(place.made / "run")) for part in command]


def other_skills(place: Place) -> list[str]:
    path = place.file("mine.jsonl", row() + row(skill="green", prompt="w9", split="test_items"))
    return ["evaluate", str(place.made / "run"), "--skills", str(path), "--gates", "oracle"]


GENERATE = ("generate", "RUN", "--prompt")
USE: dict[str, tuple[Case, str]] = {
    "no adapter": (without_adapter, r"adapter\.safetensors.*train"),
    "truncated": (
        lambda p: ["evaluate", str(truncated("run", "adapter.safetensors")(p))],
        r"adapter\.safetensors.*damaged.*again",
    ),
    "foreign": (foreign_tensors, r"adapter\.safetensors.*not a CS-ReFT adapter.*give"),
    "pickle": (pickled_adapter, r"adapter\.safetensors.*safetensors file.*again"),
    "newer": (rewritten_adapter(lambda tree: tree.update(schema_version=99)), "99.*update"),
    "shape": (rewritten_adapter(lambda tree: tree["adapter"].update(rank=3)), "shapes.*again"),
    "other base": (
        rewritten_adapter(lambda tree: tree.update(base_fingerprint="0" * 64)),
        "another base|trained on a base.*load",
    ),
    "no such split": (on_run(*EVALUATE, "--split", "dev"), "dev.*validation"),
    "empty split": (on_run(*EVALUATE, "--split", "test_both"), "test_both.*test_items"),
    "no such skills": (on_run(*EVALUATE, "--skills", "no.csv"), r"no\.csv.*give"),
    "gates": (on_run(*EVALUATE, "--gates", "open"), "open.*only:<skill>"),
    "gate count": (on_run(*EVALUATE, "--gates", "1,0,0"), "2 finite gates.*red, blue"),
    "gate nan": (on_run(*EVALUATE, "--gates", "NaN,1"), "2 finite gates"),
    "gate text": (on_run(*EVALUATE, "--gates", '["a", "b"]'), "2 finite gates"),
    "only": (on_run(*EVALUATE, "--gates", "only:green"), "green.*red, blue"),
    "oracle of others": (other_skills, "'green'.*red, blue.*use"),
    "oracle unlabelled": (on_run(*GENERATE, "w3", "--gates", "oracle"), "oracle.*learned"),
    "inspect oracle": (
        on_run("inspect", "RUN", "gates", "--prompt", "w3", "--gates", "oracle"),
        "oracle.*learned",
    ),
    "best elsewhere": (on_run(*GENERATE, "w3", "--gates", "best"), "best.*expected"),
    "empty prompt": (on_run(*GENERATE, " "), "empty.*write"),
    "long prompt": (on_run(*GENERATE, "w3 " * 80), "tokens.*64.*shorten"),
    "no prompt": (on_run("generate", "RUN"), "--prompt.*--help"),
    "prompt and skills": (
        on_run("inspect", "RUN", "gates", "--prompt", "w3", "--skills", "four"),
        "choose one",
    ),
    "json and csv": (on_run("inspect", "RUN", "gates", "--json", "--csv"), "--csv.*--help"),
    "pocket folder": (lambda p: ["build-pocket", "--out", str(p.made)], "empty folder.*--out"),
    "pocket steps": (lambda p: ["build-pocket", "--out", str(p.out), "--steps", "0"], "steps.*0"),
    "pocket text": (lambda p: ["build-pocket", "--out", str(p.out), "--steps", "x"], "--steps.*x"),
}

ALL = {
    f"{group}: {name}": case
    for group, cases in (
        ("skills", SKILL_SETS),
        ("settings", SETTINGS),
        ("base", BASES),
        ("run", RUNS),
        ("use", USE),
    )
    for name, case in cases.items()
}
# What the trainer writes when a run that was begun cannot go on.
_TOLD = {"status.json", "lock"}


@pytest.mark.parametrize(("case", "expected"), ALL.values(), ids=ALL.keys())
def test_mistake(case, expected, tmp_path, made, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = case(Place(tmp_path, made))
    capsys.readouterr()
    before = {**tiny_runs.digest(tmp_path), **tiny_runs.digest(made)}

    code = main(argv)

    out, error = capsys.readouterr()
    assert (code, out) == (2, ""), error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert len(error) < 700
    assert re.search(expected, error), error
    after = {**tiny_runs.digest(tmp_path), **tiny_runs.digest(made)}
    changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
    assert {Path(name).name for name in changed} <= (_TOLD if "--resume" in argv else set())


def test_the_same_commands_work_without_the_mistakes(tmp_path, made, capsys):
    place = Place(tmp_path, made)
    before = tiny_runs.digest(made)
    assert main(place.train()) == 0
    assert main(["train", "--out", str(place.copy("begun")), "--resume"]) == 0
    assert main(["evaluate", str(place.out), "--gates", "oracle"]) == 0
    assert main(["generate", str(place.out), "--prompt", "w3"]) == 0
    assert capsys.readouterr().out
    assert tiny_runs.digest(made) == before


def test_a_second_trainer_is_refused(tmp_path, made, capsys, monkeypatch):
    monkeypatch.setattr("csreft_core.runs.run.LOCK_PATIENCE_S", 0.1)
    run = open_run(Place(tmp_path, made).copy("begun"))
    with run.training_lock():
        before = tiny_runs.digest(run.path)
        assert main(["train", "--out", str(run.path), "--resume"]) == 2
        assert "in training" in capsys.readouterr().err
        assert tiny_runs.digest(run.path) == before


def test_mistake_in_a_process_of_its_own(tmp_path):
    """One that is seen before torch is loaded; the test of the wheel makes one after that."""
    done = subprocess.run(
        [sys.executable, "-m", "csreft_core", "train", "--preset", "best", "--out", "new"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
