"""Killed, stopped or interrupted: after a resume the adapter is that of an uninterrupted run."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from csreft_core.cli import main
from csreft_core.reft import adapter
from csreft_core.runs.all_runs import open_run
from csreft_core.runs.run import Run
from csreft_core.training import loop as training
from tests import started, tiny_runs

# 8 steps, a checkpoint every 3: before the first one, right after one, within the writing of one
# (so that it goes on from the one before), before the adapter is written, and after it.
PLACES = [
    ("step", 2),
    ("step", 6),
    ("checkpoint", 6),
    ("adapter", 0),
    ("end", 0),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a skill set and an uninterrupted run."""
    folder = tmp_path_factory.mktemp("made")
    tiny_runs.save_base(folder / "base")
    tiny_runs.write_rows(folder / "skills.jsonl", tiny_runs.rows())
    assert main(command(folder, folder / "whole")) == 0
    assert main(command(folder, folder / "plain", saving=False)) == 0
    return folder


def command(made: Path, out: Path, *, saving: bool = True) -> list[str]:
    """With all savings, a resumed run has to compute the same bits again.

    States are kept, most of them on disk, for micro-batches of unequal sizes, each of which drops
    other coordinates.
    """
    changes = {
        "train__steps": 8,
        "train__batch_size": 5,
        "train__eval_every": 4,
        "train__checkpoint_every": 3,
        "router__supervision": 1,
        "router__standardize": "true",
        "adapter__dropout": 0.2 if saving else 0,
        "train__weight_decay": 0.1,
        "train__keep_states": str(saving).lower(),
        "train__keep_states_gib": 1e-5,
        "train__accumulate": 3 if saving else 1,
        "train__checkpointing": str(saving).lower(),
    }
    chosen = tiny_runs.settings(made / "base", made / "skills.jsonl", **changes)
    return ["train", *chosen, "--out", str(out), "--json"]


def resume(run: Path) -> None:
    assert main(["train", "--out", str(run), "--resume", "--json"]) == 0


def results(run: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The adapter's bytes, and the records without what a clock decided."""
    clock = ("elapsed_s", "time_left_s", "tokens_per_second")
    records = [{k: v for k, v in r.items() if k not in clock} for r in Run(run).metrics()]
    return (run / "adapter.safetensors").read_bytes(), records


def train_up_to(place: str, at: int, arguments: list[str], arrived: Any) -> None:
    """Train, but stand still for good at one place: before a step, or within a write."""
    one_step, save, save_adapter = training.one_step, torch.save, adapter.save_adapter

    def stand_still() -> None:
        arrived.set()
        time.sleep(600)

    def step(this: Any, window: Any) -> None:
        if place == "step" and this.step == at:
            stand_still()
        one_step(this, window)

    def half_a_checkpoint(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if place == "checkpoint" and state["step"] == at:
            path.write_bytes(path.read_bytes()[:2000])
            stand_still()

    def no_adapter(trained: Any, path: Path) -> None:
        if place == "adapter":
            stand_still()
        save_adapter(trained, path)
        if place == "end":
            stand_still()

    training.one_step, torch.save, adapter.save_adapter = step, half_a_checkpoint, no_adapter
    main(arguments)


@pytest.fixture(scope="module")
def killed(made: Path) -> dict[tuple[str, int], Path]:
    """One run for each place, trained by a process of its own and killed there."""
    runs = {(place, at): made / f"{place}-{at}" for place, at in PLACES}
    for place, run in runs.items():
        arrived = started.context.Event()
        process = started.start(train_up_to, *place, command(made, run), arrived)
        assert arrived.wait(timeout=120)
        process.kill()
        process.join()
    return runs


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_a_killed_run_goes_on_to_the_same_adapter(made, killed, place):
    run = killed[place]
    assert open_run(run).status().state == "running"  # nobody was left to say otherwise
    if place[0] != "end":
        assert not (run / "adapter.safetensors").exists()
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"kind": "step", "st')  # a line that the kill tore
    resume(run)
    assert results(run) == results(made / "whole")
    assert open_run(run).status().state == "finished"


def test_another_start_gives_another_adapter(made, tmp_path):
    """The comparison above can fail."""
    assert main([*command(made, tmp_path / "run"), "--set", "train.seed=1"]) == 0
    assert results(tmp_path / "run") != results(made / "whole")


def test_all_savings_together_change_nothing_but_the_last_bits(made, tmp_path):
    assert main([*command(made, tmp_path / "run"), "--set", "adapter.dropout=0"]) == 0
    folders = (tmp_path / "run", made / "plain", made / "whole")
    saving, plain, dropped = (load_file(f / "adapter.safetensors") for f in folders)
    assert all((saving[name] - plain[name]).abs().max() <= 1e-5 for name in plain)
    assert any((dropped[name] - plain[name]).abs().max() > 1e-3 for name in plain)


def at_step(monkeypatch: pytest.MonkeyPatch, n: int, act: Any) -> None:
    """Let something happen within a step."""
    one_step = training.one_step

    def step(this: Any, window: Any) -> None:
        one_step(this, window)
        if this.step == n:
            act(this.run)

    monkeypatch.setattr(training, "one_step", step)


@pytest.mark.parametrize(("n", "saving"), [(3, True), (5, False)])
def test_stop_saves_and_a_resume_goes_on(made, tmp_path, monkeypatch, n, saving):
    path = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, n, Run.request_stop)
        assert main(command(made, path, saving=saving)) == 0
    run = open_run(path)
    assert (run.status().state, run.status().step) == ("stopped", n)
    assert run.adapter_path.exists()  # usable as it is
    assert main(["evaluate", str(path), "--json"]) == 0
    resume(path)
    assert not list(path.glob("states-*"))
    adapter, records = results(path)
    whole, expected = results(made / ("whole" if saving else "plain"))
    assert adapter == whole
    # The stop wrote one record more, which splits the mean of a later one.
    assert [r for r in records if r["kind"] == "eval"] == [
        r for r in expected if r["kind"] == "eval"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_termination_save_and_say_how_to_go_on(
    made, tmp_path, monkeypatch, capsys, number
):
    path = tmp_path / "run"
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        at_step(patched, 5, lambda _: signal.raise_signal(number))
        assert main([part for part in command(made, path) if part != "--json"]) == 0
    assert signal.getsignal(number) == before
    assert open_run(path).status().state == "stopped"
    out = capsys.readouterr().out
    assert "stopped at step 5 of 8" in out
    assert f"train --out {path} --resume" in out
    resume(path)
    assert results(path)[0] == results(made / "whole")[0]


def test_a_second_ctrl_c_ends_at_once(made, tmp_path, monkeypatch):
    def twice(_: Run) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    path = tmp_path / "run"
    # A process that does not stand in the foreground was started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            at_step(patched, 5, twice)
            with pytest.raises(KeyboardInterrupt):
                main(command(made, path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert open_run(path).status().state == "interrupted"
    resume(path)
    assert results(path)[0] == results(made / "whole")[0]


def test_the_thread_count_is_recorded_and_restored(made, tmp_path, monkeypatch):
    path, seen = tmp_path / "run", []
    unset = [part for part in command(made, path) if not part.startswith("train.threads")]
    # `--set` stands before each value; the one that lost its value goes too.
    arguments = [
        part
        for part, after in zip(unset, [*unset[1:], ""], strict=True)
        if not (part == "--set" and after == "--set")
    ]
    torch.set_num_threads(1)
    with monkeypatch.context() as patched:
        at_step(patched, 3, Run.request_stop)
        assert main(arguments) == 0
    assert open_run(path).config().train.threads == 1
    torch.set_num_threads(2)
    with monkeypatch.context() as patched:
        at_step(patched, 5, lambda _: seen.append(torch.get_num_threads()))
        resume(path)
    assert seen == [1]
    assert results(path)[0] == results(made / "whole")[0]
