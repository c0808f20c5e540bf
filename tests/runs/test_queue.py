"""The queue, with a small program in the place of the trainer."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csreft_core.config import PRESETS, Config, TrainConfig, assignments, preset, with_overrides
from csreft_core.errors import ConfigError, RunError
from csreft_core.runs import liveness, queue, turns
from csreft_core.runs.all_runs import Run, create_run, open_run
from csreft_core.skills.skill_set import Row, SkillSet

CONFIG = Config(train=TrainConfig(steps=3))
SKILLS = SkillSet((Row(("a",), "p", "r", "train"),), ("a",))
PATIENCE_S = 60  # the machine may be busy; a passing test waits for a few seconds at most

# Waits for its turn, notes when it trained, trains until a file `go` appears or it is stopped.
TRAINER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from csreft_core.runs.turns import wait_for_turn
from csreft_core.runs.all_runs import open_run
assert sys.argv[1:3] == ["train", "--out"] and sys.argv[4:] == ["--resume", "--queue"], sys.argv
run = open_run(Path(sys.argv[3]))
print("hello from", run.name)
if not wait_for_turn(run, poll_s=0.05):
    sys.exit()
with run.training_lock():
    run.write_status(replace(run.status(), state="running"))
    with (run.path.parent / "order.txt").open("a") as file:
        file.write(run.name + " begins\\n")
    while not (run.path.parent / "go").exists() and not run.stop_requested():
        time.sleep(0.02)
    with (run.path.parent / "order.txt").open("a") as file:
        file.write(run.name + " ends\\n")
    state = "stopped" if run.stop_requested() else "finished"
    run.write_status(replace(run.status(), state=state))
"""


@pytest.fixture
def trainer(tmp_path: Path) -> list[str]:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    return [sys.executable, str(script)]


@pytest.fixture
def submit(tmp_runs: Path, trainer: list[str]):
    """Submits by name; at the end, no process is left."""
    runs: list[Run] = []

    def call(name: str) -> Run:
        runs.append(queue.submit(CONFIG, SKILLS, name, command=trainer))
        return runs[-1]

    yield call
    (tmp_runs / "go").touch()
    for run in runs:
        until(lambda run=run: not run.is_locked() and not lives(run))


def lives(run: Run) -> bool:
    pid = run.status().pid
    return pid is not None and psutil.pid_exists(pid)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def state(run: Run) -> str:
    return run.status().state


def test_a_run_is_queued_trained_and_finished(tmp_runs, submit):
    run = submit("one")
    assert run.path == tmp_runs / "one"
    assert state(run) in ("queued", "running")
    until(lambda: state(run) == "running")
    assert run.is_locked()
    assert queue.queue_position(run) is None
    (tmp_runs / "go").touch()
    until(lambda: state(run) == "finished")
    assert "hello from one" in run.log_path.read_text()
    assert queue.mark_interrupted(tmp_runs) == []
    with pytest.raises(RunError, match="is finished"):
        queue.resume(run)


def test_one_trains_at_a_time_in_the_order_of_creation(tmp_runs, submit):
    first = submit("z")
    until(lambda: state(first) == "running")
    second, third = submit("y"), submit("x")
    until(lambda: second.is_locked() and third.is_locked())
    assert [queue.queue_position(run) for run in (first, second, third)] == [None, 1, 2]
    assert (tmp_runs / "order.txt").read_text() == "z begins\n"
    (tmp_runs / "go").touch()
    until(lambda: all(state(run) == "finished" for run in (first, second, third)))
    names = [line.split()[0] for line in (tmp_runs / "order.txt").read_text().splitlines()]
    assert names == ["z", "z", "y", "y", "x", "x"]


def test_more_slots_train_together(submit, monkeypatch):
    monkeypatch.setenv("CSREFT_SLOTS", "2")
    runs = [submit(name) for name in ("a", "b", "c")]
    until(lambda: [state(run) for run in runs] == ["running", "running", "queued"])


@pytest.mark.parametrize("slots", ["0", "-1", "two", "1.5", ""])
def test_slots_must_be_a_number(tmp_runs, monkeypatch, slots):
    monkeypatch.setenv("CSREFT_SLOTS", slots)
    run = create_run(tmp_runs / "run", CONFIG, SKILLS)
    with pytest.raises(ConfigError, match="CSREFT_SLOTS"):
        turns.wait_for_turn(run)


def test_a_run_started_by_hand_counts(tmp_runs, submit):
    by_hand = create_run(tmp_runs / "by_hand", CONFIG, SKILLS)
    with by_hand.training_lock():
        by_hand.write_status(replace(by_hand.status(), state="running"))
        run = submit("queued")
        until(run.is_locked)
        time.sleep(0.3)  # six looks at the queue
        assert state(run) == "queued"
    until(lambda: state(run) == "running")


def test_stop_in_the_queue_ends_without_training(tmp_runs, submit):
    first = submit("first")
    until(lambda: state(first) == "running")
    second = submit("second")
    queue.stop(second)
    until(lambda: state(second) == "stopped")
    until(lambda: not second.stop_requested())  # taken away once the state is written
    queue.stop(first)
    until(lambda: state(first) == "stopped")
    assert "second" not in (tmp_runs / "order.txt").read_text()
    queue.stop(first)
    assert state(first) == "stopped"


def test_a_killed_run_is_interrupted_and_can_be_resumed(tmp_runs, submit, trainer):
    run = submit("run")
    until(lambda: state(run) == "running")
    assert queue.mark_interrupted(tmp_runs) == []
    psutil.Process(run.status().pid).kill()
    until(lambda: not run.is_locked())
    assert queue.mark_interrupted(tmp_runs) == [run]
    assert state(run) == "interrupted"
    run.request_stop()
    queue.resume(run, command=trainer)
    assert not run.stop_requested()
    with pytest.raises(RunError, match="already"):
        queue.resume(run, command=trainer)
    until(lambda: state(run) == "running")


def test_a_waiting_run_that_is_killed_lets_the_next_one_go(tmp_runs, submit):
    first = submit("first")
    until(lambda: state(first) == "running")
    second, third = submit("second"), submit("third")
    until(lambda: second.is_locked() and third.is_locked())
    psutil.Process(second.status().pid).kill()
    (tmp_runs / "go").touch()
    until(lambda: state(third) == "finished")
    assert queue.mark_interrupted(tmp_runs) == [second]


def test_a_process_that_dies_at_once_is_interrupted(tmp_runs):
    run = queue.submit(CONFIG, SKILLS, "run", command=[sys.executable, "-c", "raise SystemExit(2)"])
    until(lambda: queue.mark_interrupted(tmp_runs) == [run])
    assert state(run) == "interrupted"


def test_a_queued_run_gets_time_to_start(tmp_runs):
    run = create_run(tmp_runs / "run", CONFIG, SKILLS)
    assert queue.mark_interrupted(tmp_runs) == []
    old = time.time() - liveness.START_GRACE_S - 1
    run.write_status(replace(run.status(), heartbeat=old))
    assert queue.mark_interrupted(tmp_runs) == [run]


def test_stop_of_a_run_without_process(tmp_runs):
    old = time.time() - liveness.START_GRACE_S - 1
    for name, before, after in [("q", "queued", "stopped"), ("r", "running", "interrupted")]:
        run = create_run(tmp_runs / name, CONFIG, SKILLS)
        run.write_status(replace(run.status(), state=before, heartbeat=old))
        queue.stop(run)
        assert state(run) == after


def test_a_program_that_is_missing_is_named(tmp_runs):
    with pytest.raises(RunError, match=r"did not start.*no-such-program"):
        queue.submit(CONFIG, SKILLS, "run", command=["no-such-program"])
    assert open_run(tmp_runs / "run").status().state == "failed"


@pytest.mark.parametrize("name", ["../a", "", "a b"])
def test_submit_checks_the_name(tmp_runs, name):
    with pytest.raises(RunError, match="cannot name a run"):
        queue.submit(CONFIG, SKILLS, name, command=["no-such-program"])
    assert list(tmp_runs.iterdir()) == []


def test_a_finished_run_does_not_wait(tmp_runs):
    run = create_run(tmp_runs / "run", CONFIG, SKILLS)
    run.write_status(replace(run.status(), state="finished"))
    with pytest.raises(RunError, match="finished"):
        turns.wait_for_turn(run)
    assert state(run) == "finished"


def test_turns_can_be_given_back(tmp_runs):
    one, two = (create_run(tmp_runs / name, CONFIG, SKILLS) for name in ("one", "two"))
    assert turns.wait_for_turn(one)
    assert not turns._take_slot(tmp_runs, 1)
    turns.release_turns()
    one.write_status(replace(one.status(), state="finished"))
    assert turns.wait_for_turn(two)
    turns.release_turns()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(
    name=st.sampled_from(list(PRESETS)),
    start=st.sampled_from(list(PRESETS)),
    path=TEXTS,
    lr=st.floats(1e-6, 1.0),
    layers=st.sets(st.integers(0, 9), min_size=1),
    template=st.sampled_from(["auto", "{prompt}\n", "Q={prompt}"]),
)
@settings(deadline=None)
def test_the_shown_command_gives_the_config(name, start, path, lr, layers, template):
    config = preset(name)
    config = replace(
        config,
        base=replace(config.base, path=path),
        data=replace(config.data, template=template),
        train=replace(config.train, lr=lr),
        adapter=replace(config.adapter, layers=tuple(sorted(layers))),
    )
    assert with_overrides(preset(start), assignments(preset(start), config)) == config


@pytest.mark.skipif(sys.platform == "win32", reason="the quoting is that of a POSIX shell")
def test_command_lines_are_quoted():
    line = queue.command_line(CONFIG, Path("my runs") / "one")
    assert shlex.split(line) == [
        "python",
        "-m",
        "csreft_core",
        "train",
        "--preset",
        "recommended",
        "--set",
        "router.supervision=0.0",
        "--set",
        "train.steps=3",
        "--out",
        "my runs/one",
    ]
    assert shlex.split(queue.resume_line(Run(Path("a b"))))[-3:] == ["--out", "a b", "--resume"]
