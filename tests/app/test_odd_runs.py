"""Whatever lies in the runs folder, the pages stay up and say what is wrong with it."""

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from csreft_core.app.runs import PAGE
from csreft_core.runs.all_runs import Run
from tests.page_runs import as_read, assert_no_bug, texts

RUNS, TRAIN = "pages/Runs.py", "pages/Train.py"


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


ODD = [
    ({"created": 1e308}, "created: Input should be less than"),
    ({"created": -5}, "created: Input should be greater than"),
    ({"heartbeat": "yesterday"}, "heartbeat: Input should be a valid number"),
    ({"started": -1e308}, "started"),
    ({"ended": 1e300}, "ended"),
    ({"pid": 10**30}, "pid"),
    ({"step": 10**400}, "step"),
    ({"total_steps": 10**30}, "total_steps"),
    ({"state": "![x](y)"}, "state"),
]


def test_a_status_that_no_calendar_can_show_is_a_broken_run(open_app, make_run):
    make_run()
    for i, (fields, _) in enumerate(ODD):
        change(make_run(f"odd-{i}").path / "status.json", **fields)
    app = open_app(RUNS, run="odd-0")
    assert app.dataframe[0].value["run"].tolist()[0] == "mine"
    said = [as_read(error.value) for error in app.error]
    for i, (_, words) in enumerate(ODD):
        assert any(f"odd-{i}" in text and words in text for text in said), (i, words, said)


def test_records_of_another_form_are_told(open_app, make_run):
    with make_run().metrics_path.open("a") as file:
        file.write('{"kind": "eval", "step": 1}\n')
    for page in (RUNS, TRAIN):
        assert "skills: Field required" in texts(open_app(page, run="mine")), page


@pytest.mark.parametrize("page", [RUNS, TRAIN])
def test_a_training_that_diverged_is_shown(open_app, make_run, page):
    run = make_run()
    gone = {"loss": None, "exact_match": 0.0, "n": 3}
    skills = dict.fromkeys(("french", "category"), gone)
    run.metrics_path.write_text("")
    for step in (0, 1, 2):
        run.append_metric({"kind": "eval", "step": step, "skills": skills})
    run.append_metric({"kind": "step", "step": 3, "loss": None, "elapsed_s": None})
    app = open_app(page, run="mine")
    assert not app.error
    assert "no skill has a finite validation loss" in texts(app) or page == RUNS


def test_a_training_that_writes_nothing_is_noticed(open_app, make_run):
    run = make_run(state="running")
    with run.training_lock():
        for silent_s, words in ((5, "training: step 2 of 4"), (200, "no sign of life for 3 min")):
            run.write_status(replace(run.status(), heartbeat=time.time() - silent_s))
            bars = [bar.proto.text for bar in open_app(TRAIN, run="mine").get("progress")]
            assert any(words in bar for bar in bars), bars


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(20 * 2**30)  # no block of it is on the disk


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


FILES = (
    "status.json",
    "config.json",
    "metrics.jsonl",
    "skills.jsonl",
    "log.txt",
    "adapter.safetensors",
)


def test_files_that_block_or_never_end_are_not_read(open_app, make_run):
    make_run()
    for make in (fifo, endless, loop):
        for name in FILES:
            made = make_run(f"{make.__name__}-{name.partition('.')[0]}", state="failed")
            make(made.path / name)
    began = time.process_time()
    app = open_app(RUNS, run="mine")
    assert len(app.error) == 3 * 2  # without config or status it is no run
    states = app.dataframe[0].value.set_index("run")["status"]
    # An adapter and a log are not read for the table.
    assert (states[states.index != "mine"] == "broken").sum() == 3 * 2
    for page, run in (
        (TRAIN, "fifo-log"),
        (TRAIN, "loop-metrics"),
        ("app.py", "fifo-adapter"),
        ("app.py", "endless-skills"),
        ("app.py", "endless-adapter"),
    ):
        assert "mine" in open_app(page, run=run).selectbox(key="run").options
    assert time.process_time() - began < 30


def test_odd_folders_are_listed_or_left_out(open_app, make_run, tmp_runs):
    make_run()
    make_run("bytes").path.rename(tmp_runs / os.fsdecode(b"\xff\xfe"))
    loop(tmp_runs / "loop")
    fifo(tmp_runs / "pipe")
    (tmp_runs / ("long" * 60)).mkdir()
    (tmp_runs / "gone").symlink_to(tmp_runs / "nowhere")
    app = open_app(RUNS)
    said = texts(app)
    assert "no UTF-8 text" in said
    assert "longlong" in said
    assert app.dataframe[0].value["run"].tolist()[0] == "mine"


def test_a_runs_folder_that_is_none_or_closed(open_app, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("CSREFT_RUNS", str(file))
    assert "cannot be read" in texts(open_app(RUNS))
    for page in ("app.py", TRAIN):
        open_app(page)


def many(one: Run, n: int) -> None:
    """Copies of a run, by links."""
    for i in range(n):
        folder = one.path.with_name(f"copy-{i:04d}")
        folder.mkdir()
        for name in ("config.json", "status.json", "skills.jsonl", "metrics.jsonl"):
            os.link(one.path / name, folder / name)


def test_many_runs_are_shown_page_by_page(open_app, make_run, monkeypatch):
    """Records are read of a page's runs alone; of two thousand at each click it took 16 s."""
    many(make_run(), 3 * PAGE)
    app = open_app(RUNS)
    assert len(app.dataframe[0].value) == PAGE
    read = []
    metrics = Run.metrics
    monkeypatch.setattr(Run, "metrics", lambda run: read.append(run) or metrics(run))
    app.selectbox(key="runs-page").select("3").run()
    assert_no_bug(app)
    assert app.query_params["runs-page"] in ("3", ["3"])
    assert len(app.dataframe[0].value) == PAGE
    assert 0 < len(read) <= PAGE + 2  # and the two that are compared below the table


def test_rows_that_may_not_be_read_are_told(open_app, make_run, monkeypatch):
    run = make_run()
    may = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "skills.jsonl" and path.parent.name == run.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return may(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    app = open_app(RUNS, run=run.name)
    assert_no_bug(app)
    assert "skills.jsonl" in texts(app) or "Permission denied" in str(app.dataframe[0].value)
