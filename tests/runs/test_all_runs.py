"""Run folders: made whole, read strictly, never overwritten."""

import io
import json
import math
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from platformdirs import user_data_path

from csreft_core.config import SCHEMA_VERSION, Config, TrainConfig
from csreft_core.errors import RunError, StorageError
from csreft_core.files import write_atomic
from csreft_core.runs import all_runs as runs
from csreft_core.runs.all_runs import (
    Run,
    broken_runs,
    check_new_run,
    create_run,
    delete_run,
    export_zip,
    find_run,
    list_runs,
    open_run,
    restore_run,
    run_name,
    runs_root,
    trashed_runs,
)
from csreft_core.skills.skill_set import Row, SkillSet

pytestmark = pytest.mark.fast

CONFIG = Config(train=TrainConfig(steps=7))
SKILLS = SkillSet((Row(("a",), "p q", "r", "train"), Row(("a",), "s", "t", "test_both")), ("a",))


def make(path: Path) -> Run:
    return create_run(path, CONFIG, SKILLS)


def test_a_new_run_gives_back_what_it_was_made_of(tmp_path):
    run = make(tmp_path / "deep" / "one")
    opened = open_run(run.path)
    assert opened.name == "one"
    assert opened.config() == CONFIG
    assert opened.skill_set() == SKILLS
    assert opened.status().state == "queued"
    assert opened.status().total_steps == 7
    assert opened.metrics() == []
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["one"]


def test_an_empty_folder_may_become_a_run(tmp_path):
    check_new_run(tmp_path)
    assert make(tmp_path).config() == CONFIG


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    run = make(tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for name, words in [("file", "is a file"), ("folder", "other files"), ("run", "--resume")]:
        with pytest.raises(RunError, match=words):
            make(tmp_path / name)
    with pytest.raises(StorageError, match="cannot be written"):
        make(tmp_path / "file" / "below")
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert open_run(run.path) == run


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not JSON"),
        ("config.json", json.dumps({"schema_version": SCHEMA_VERSION + 1}), "update the program"),
        ("config.json", '{"train": {"lr": -1}}', "train.lr"),
        ("status.json", None, "missing"),
        ("status.json", "", "broken"),
        ("status.json", "\x00\x01", "broken"),
        ("status.json", '{"state": "flying"}', "broken"),
    ],
)
def test_a_broken_run_names_itself_and_the_remedy(tmp_path, file, content, words):
    good, bad = make(tmp_path / "good"), make(tmp_path / "bad")
    (bad.path / file).unlink()
    if content is not None:
        (bad.path / file).write_text(content)
    with pytest.raises(RunError, match=words) as caught:
        open_run(bad.path)
    assert "bad" in str(caught.value)
    assert list_runs(tmp_path) == [good]
    assert [path for path, _ in broken_runs(tmp_path)] == [bad.path]


def test_what_is_no_run_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        open_run(tmp_path / "file")
    with pytest.raises(RunError, match="no such run"):
        open_run(tmp_path / "none")
    run = make(tmp_path / "run")
    (run.path / "skills.jsonl").write_text("{}")
    with pytest.raises(RunError, match=r"run 'run'.*skills.jsonl:1"):
        run.skill_set()


def test_newest_run_comes_first_and_dot_folders_are_no_runs(tmp_path):
    for i, name in enumerate(("b", "a", "c")):
        run = make(tmp_path / name)
        run.write_status(replace(run.status(), created=float(i)))
    make(tmp_path / ".hidden")
    assert [run.name for run in list_runs(tmp_path)] == ["c", "a", "b"]
    assert broken_runs(tmp_path) == []
    assert list_runs(tmp_path / "none") == []


def test_runs_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_RUNS", str(tmp_path))
    assert runs_root() == tmp_path
    monkeypatch.delenv("CSREFT_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"
    monkeypatch.setattr(runs, "INSTALLED", True)
    assert runs_root() == user_data_path("csreft", appauthor=False) / "runs"


def test_metrics_read_only_what_is_new_and_leave_a_torn_line(tmp_path):
    run = make(tmp_path / "run")
    run.append_metric({"step": 1, "loss": math.nan})
    records, place = run.read_metrics_since(0)
    assert records == [{"step": 1, "loss": None}]
    assert run.read_metrics_since(place) == ([], place)
    with run.metrics_path.open("ab") as file:
        file.write(b'{"step": 2')
    assert run.read_metrics_since(place) == ([], place)
    with run.metrics_path.open("ab") as file:
        file.write(b', "loss": 0.5}\n')
    records, place = run.read_metrics_since(place)
    assert records == [{"step": 2, "loss": 0.5}]
    assert place == run.metrics_path.stat().st_size


def test_a_cut_metrics_file_comes_again_from_its_start(tmp_path):
    run = make(tmp_path / "run")
    for step in range(1, 6):
        run.append_metric({"step": step})
    _, place = run.read_metrics_since(0)
    with run.metrics_path.open("ab") as file:
        file.write(b'{"torn')
    run.truncate_metrics(3)
    assert [r["step"] for r in run.metrics()] == [1, 2, 3]
    assert [r["step"] for r in run.read_metrics_since(place)[0]] == [1, 2, 3]
    run.append_metric({"step": 4})
    assert [r["step"] for r in run.metrics()] == [1, 2, 3, 4]
    run.truncate_metrics(0)
    assert run.metrics() == []


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    run = make(tmp_path / "run")
    run.metrics_path.write_text('{"step": 1}\n[2]\n{"step": 3}\n')
    with pytest.raises(RunError, match="broken line"):
        run.metrics()


def test_two_checkpoints_are_kept_and_half_made_ones_never_count(tmp_path):
    run = make(tmp_path / "run")
    for step in (5, 10, 9, 100):
        run.save_checkpoint(step, lambda folder, s=step: _write(folder / "state", str(s)))
    assert [p.name for p in run.checkpoints()] == ["step-00000010", "step-00000100"]

    def fail(folder: Path) -> None:
        _write(folder / "state", "half")
        raise OSError("disk full")

    with pytest.raises(StorageError, match="disk full"):
        run.save_checkpoint(200, fail)
    assert [p.name for p in run.checkpoints()] == ["step-00000010", "step-00000100"]
    again = run.save_checkpoint(100, lambda folder: _write(folder / "state", "again"))
    assert (again / "state").read_text() == "again"
    assert [p.name for p in (run.path / "checkpoints").iterdir() if p.name[0] == "."] == []
    run.remove_checkpoints()
    assert run.checkpoints() == []


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_snapshots_sort_by_step(tmp_path):
    run = make(tmp_path / "run")
    run.snapshot_path(0).parent.mkdir()
    for step in (100, 20, 3):
        run.snapshot_path(step).touch()
    assert run.snapshots() == [run.snapshot_path(step) for step in (3, 20, 100)]


def test_stop_is_asked_for_and_taken_back(tmp_path):
    run = make(tmp_path / "run")
    assert not run.stop_requested()
    run.request_stop()
    assert run.stop_requested()
    run.clear_stop()
    run.clear_stop()
    assert not run.stop_requested()


def test_the_lock_has_one_holder_and_looking_leaves_it_free(tmp_path, monkeypatch):
    monkeypatch.setattr("csreft_core.runs.run.LOCK_PATIENCE_S", 0.1)
    run = make(tmp_path / "run")
    assert not run.is_locked()
    with run.training_lock():
        assert run.is_locked()
        with pytest.raises(RunError, match="already"), run.training_lock():
            pass
    assert not run.is_locked()
    with run.training_lock():
        pass


def test_the_lock_ends_with_a_killed_process(tmp_path):
    run = make(tmp_path / "run")
    code = (
        "import sys, time; from pathlib import Path; from csreft_core.runs.run import Run\n"
        "with Run(Path(sys.argv[1])).training_lock(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            assert run.is_locked()
        finally:
            process.kill()
    assert not run.is_locked()


def test_a_reader_never_sees_half_a_status(tmp_path):
    """A writer is killed in the middle of many writes; every read in between is whole."""
    run = make(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from csreft_core.runs.run import Run\n"
        "run = Run(Path(sys.argv[1])); status = run.status()\n"
        "print('ready', flush=True)\n"
        "for i in range(10**9): run.write_status(replace(status, message='x' * (i % 5000)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            until = time.time() + 1
            seen = set()
            while time.time() < until:
                seen.add(run.status().message)
        finally:
            process.kill()
    assert len(seen) > 1
    assert open_run(run.path).status().total_steps == 7


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="disk full"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, "ü\n")
    assert path.read_bytes() == b"\xc3\xbc\n"


def test_delete_and_restore(tmp_path):
    run = make(tmp_path / "a-b")
    trashed = delete_run(run)
    assert list_runs(tmp_path) == broken_runs(tmp_path) == []
    assert trashed_runs(tmp_path) == [trashed]
    assert restore_run("a-b", tmp_path).config() == CONFIG
    assert [r.name for r in list_runs(tmp_path)] == ["a-b"]
    trashed = delete_run(run)
    make(tmp_path / "a-b")
    with pytest.raises(RunError, match="is there again"):
        restore_run(trashed, tmp_path)
    with pytest.raises(RunError, match="no deleted run 'other'"):
        restore_run("other", tmp_path)


def test_a_run_in_training_is_not_deleted(tmp_path):
    run = make(tmp_path / "run")
    with run.training_lock(), pytest.raises(RunError, match="stop it"):
        delete_run(run)
    assert run.path.is_dir()


def test_shipped_runs_are_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SHIPPED_RUNS", tmp_path)
    with pytest.raises(RunError, match="comes with the program"):
        delete_run(make(tmp_path / "run"))


def test_the_trash_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "KEPT_IN_TRASH", 3)
    names = [delete_run(make(tmp_path / f"run{i}")) for i in range(5)]
    assert trashed_runs(tmp_path) == names[:1:-1]
    assert len(list((tmp_path / ".trash").iterdir())) == 3


def test_export_is_a_zip_with_one_folder(tmp_path):
    run = make(tmp_path / "run")
    run.append_metric({"step": 1})
    run.adapter_path.write_bytes(b"weights")
    run.save_checkpoint(1, lambda folder: _write(folder / "state", "large"))
    with zipfile.ZipFile(io.BytesIO(export_zip(run))) as archive:
        assert sorted(archive.namelist()) == [
            f"run/{name}.{end}"
            for name, end in [
                ("adapter", "safetensors"),
                ("config", "json"),
                ("metrics", "jsonl"),
                ("skills", "jsonl"),
                ("status", "json"),
            ]
        ]
        assert archive.read("run/adapter.safetensors") == b"weights"


@pytest.mark.parametrize("name", ["..", "../a", "a/b", "a\\b", "", ".a", "a b", "ä", "a.", "-a"])
def test_names_play_no_tricks(tmp_path, name):
    make(tmp_path / "a")
    assert find_run("a", tmp_path).name == "a"
    with pytest.raises(RunError, match="cannot name a run"):
        find_run(name, tmp_path)


def test_run_name_is_fresh(tmp_path):
    assert run_name("recommended", tmp_path / "none") == "recommended"
    make(tmp_path / "recommended")
    make(tmp_path / "recommended-2")
    assert run_name("recommended", tmp_path) == "recommended-3"
    assert run_name("../My run!", tmp_path) == "My-run"
    assert run_name("...", tmp_path) == "run"
