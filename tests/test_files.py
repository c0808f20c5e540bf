"""A disk that refuses is said in one line; nothing is lost and nothing crashes."""

import errno
import os
import time
from dataclasses import replace

import pytest
from safetensors import SafetensorError

from csreft_core import files
from csreft_core.app.skills import uploads
from csreft_core.base.load import load_base
from csreft_core.config import BaseConfig
from csreft_core.errors import StorageError
from csreft_core.files import clear_left_over, replacing, storage_errors, write_atomic
from csreft_core.reft.adapter import save_adapter
from csreft_core.runs import queue, turns
from csreft_core.runs.all_runs import Run, create_run, delete_run, list_runs, restore_run
from csreft_core.skills.skill_set import Row, SkillSet, read_skills
from csreft_core.training import loop as training
from csreft_core.training import reporting
from csreft_core.training.loop import train
from tests import tiny_runs
from tests.full_disk import refusing
from tests.runs.test_queue import CONFIG, SKILLS
from tests.tiny import make_adapter
from tests.training.steps import quick

REASONS = [
    (errno.ENOSPC, "the disk is full; free some space"),
    (errno.EDQUOT, "your share of the disk is used up"),
    (errno.EROFS, "the disk is read-only; choose a place"),
    (errno.EACCES, "may not write there; change the permissions"),
    (errno.EIO, "Input/output error"),
]


@pytest.fixture
def run(tmp_runs) -> Run:
    return create_run(tmp_runs / "mine", CONFIG, SKILLS)


def as_running(run: Run) -> Run:
    run.write_status(replace(run.status(), state="running"))
    return run


@pytest.mark.parametrize(("number", "words"), REASONS)
def test_a_file_stays_as_it_was(tmp_path, number, words):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with refusing(number), pytest.raises(StorageError, match=words) as caught:
        write_atomic(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "hidden",
    [
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing"),
    ],
)
def test_what_libraries_make_of_a_full_disk_is_recognised(tmp_path, hidden):
    with pytest.raises(StorageError, match="the disk is full"), replacing(tmp_path / "a"):
        raise hidden
    with pytest.raises(RuntimeError, match="another matter"), storage_errors(tmp_path):
        raise RuntimeError("another matter")


def test_whatever_writes_it_the_file_reaches_the_disk_before_it_takes_its_place(
    tmp_path, monkeypatch
):
    path, order = tmp_path / "file", []
    whole = b"x" * 100_000
    monkeypatch.setattr(files.os, "fsync", lambda number: order.append(os.fstat(number).st_size))
    monkeypatch.setattr(files, "replace_file", lambda *_: order.append("replaced"))
    with replacing(path) as temporary:
        temporary.write_bytes(whole)
    save_adapter(make_adapter(), path)
    assert order[0] == len(whole)
    assert order[2] > 0
    assert order[1::2] == ["replaced", "replaced"]


def test_every_way_to_write_a_run_says_so(run, tmp_runs):
    as_running(run)
    gone = delete_run(create_run(tmp_runs / "gone", CONFIG, SKILLS))
    ways = {
        "make": lambda: create_run(tmp_runs / "new", CONFIG, SKILLS),
        "submit": lambda: queue.submit(CONFIG, SKILLS, "new"),
        "resume": lambda: queue.resume(run),
        "stop": lambda: queue.stop(run),
        "delete": lambda: delete_run(run),
        "restore": lambda: restore_run(gone, tmp_runs),
        "record": lambda: run.append_metric({"kind": "step", "step": 1}),
        "status": lambda: run.write_status(run.status()),
        "config": lambda: run.write_config(CONFIG),
        "checkpoint": lambda: run.save_checkpoint(1, lambda _: None),
        "upload": lambda: uploads.keep(SkillSet((Row(("b",), "q", "s", "train"),), ("b",))),
        "queue": lambda: turns.wait_for_turn(run),
    }
    for name, write in ways.items():
        with refusing(), pytest.raises(StorageError, match="the disk is full"):
            pytest.fail(f"{name}: {write()}")
    assert [r.name for r in list_runs(tmp_runs)] == ["mine"]
    assert not [path for path in tmp_runs.iterdir() if path.name.startswith(".new-")]


def test_a_dead_run_is_told_from_a_living_one_on_a_full_disk(run, tmp_runs):
    other = create_run(tmp_runs / "other", CONFIG, SKILLS)
    for each in (run, other):
        as_running(each)
    with refusing():
        with pytest.raises(StorageError, match="the disk is full"):
            queue.mark_interrupted(tmp_runs)
        assert run.status().state == "running"  # what is written
        assert queue.standing(run).state == "interrupted"  # what is true
        with other.training_lock():
            assert queue.standing(other).state == "running"
    assert len(queue.mark_interrupted(tmp_runs)) == 2
    assert run.status().state == queue.standing(run).state == "interrupted"


def test_a_half_made_checkpoint_gives_its_room_back(run):
    def fill(folder) -> None:
        (folder / "state.pt").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    run.save_checkpoint(1, lambda folder: (folder / "state.pt").write_bytes(b"whole"))
    with pytest.raises(StorageError, match="step-00000002: cannot be written, the disk is full"):
        run.save_checkpoint(2, fill)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    base = load_base(BaseConfig(path=str(tiny_runs.save_base(folder / "tiny"))))
    rows = read_skills(str(tiny_runs.write_rows(folder / "two.jsonl", tiny_runs.rows())))
    return base, rows


def test_a_training_on_a_full_disk_ends_as_failed(tmp_path, small, monkeypatch):
    base, rows = small
    run = create_run(tmp_path / "run", quick(base, "train.steps=4"), rows)
    append = Run.append_metric

    def full_after_two_steps(self: Run, record: dict) -> None:
        with storage_errors(self.metrics_path):
            if record["step"] == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        append(self, record)

    monkeypatch.setattr(Run, "append_metric", full_after_two_steps)
    with pytest.raises(StorageError, match="the disk is full"):
        list(train(run, base))
    status = run.status()
    assert (status.state, status.step) == ("failed", 1)
    assert "metrics.jsonl: cannot be written, the disk is full; free some space" in status.message
    assert not run.is_locked()


def test_a_training_that_can_write_nothing_is_interrupted_and_goes_on(tmp_path, small):
    base, rows = small
    run = create_run(tmp_path / "run", quick(base, "train.steps=3"), rows)
    records = train(run, base)
    while next(records)["kind"] != "step":
        pass
    with refusing(errno.EROFS), pytest.raises(StorageError, match="the disk is read-only"):
        list(records)
    assert run.status().state == "running"
    assert queue.standing(run).state == "interrupted"
    list(train(run, base, resume=True))
    assert run.status().state == "finished"


@pytest.mark.parametrize("long", ["load_base", "evaluate"])
def test_the_heart_beats_while_something_takes_long(tmp_path, small, monkeypatch, long):
    base, rows = small
    run = create_run(tmp_path / "run", quick(base, "train.steps=1"), rows)
    monkeypatch.setattr(reporting, "HEARTBEAT_S", 0.01)
    done = getattr(training, long)
    seen = []

    def slow(*args, **options):
        until = time.monotonic() + 30
        while len({status.heartbeat for status in seen}) < 3 and time.monotonic() < until:
            seen.append(run.status())
            time.sleep(0.01)
        return base if long == "load_base" else done(*args, **options)

    monkeypatch.setattr(training, long, slow)
    list(train(run))
    assert len({status.heartbeat for status in seen}) == 3
    assert {status.state for status in seen} == {"running"}
    assert run.status().state == "finished"
    last = run.status()
    time.sleep(0.05)
    assert run.status() == last  # no beat after the end


def test_left_over_files_of_killed_processes_go(run):
    young, old, mine = (run.path / f".{name}.tmp" for name in ("young", "old", "status.json.1"))
    for path in (young, old, mine):
        path.write_text("half")
    os.utime(old, (1, 1))
    clear_left_over(run.path)
    assert [path.exists() for path in (young, old)] == [True, False]
    with run.training_lock():  # nobody else writes here now
        assert not young.exists()
        assert not mine.exists()
    assert run.status().state == "queued"
