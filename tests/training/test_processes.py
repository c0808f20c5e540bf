"""Several processes, for real: `accelerate launch`, and two processes in every kind of trouble."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from csreft_core.base.load import load_base
from csreft_core.cli import main
from csreft_core.config import read_config
from csreft_core.errors import CsreftError
from csreft_core.runs.all_runs import create_run
from csreft_core.runs.run import Run
from csreft_core.skills.skill_set import read_skills
from csreft_core.training import loop as training
from tests import started, tiny_runs
from tests.repository import ROOT

CONFIGS = {
    "odd": {"train__batch_size": 5},
    "one_row": {"train__batch_size": 1, "train__steps": 4},
    "everything": {
        "train__batch_size": 7,
        "train__accumulate": 2,
        "train__checkpointing": "true",
        "train__keep_states": "true",
        "train__keep_states_gib": 1e-5,
        "router__omega": "balance",
        "router__sparsity": 0.5,
        "adapter__constraint": "penalty",
    },
}
# Sums in another order, over a dozen steps.
SAME_LOSS = 1e-4


def settings(made: Path, **changes: Any) -> list[str]:
    more = {"router__supervision": 1, "train__steps": 8, **changes}
    return tiny_runs.settings(made / "base", made / "skills.jsonl", **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, answers of unequal lengths, a run of one process for each config, and its config."""
    folder = tmp_path_factory.mktemp("made")
    tiny_runs.save_base(folder / "base")
    rows = tiny_runs.rows()
    for i, row in enumerate(rows):
        row["response"] += " w45" * (i % 4)
    tiny_runs.write_rows(folder / "skills.jsonl", rows)
    for name, changes in CONFIGS.items():
        arguments = ["--out", str(folder / f"{name}-one"), "--json"]
        assert main(["train", *settings(folder, **changes), *arguments]) == 0
        config = json.loads((folder / f"{name}-one/config.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({**config, "provenance": None}))
    return folder


def environment(**more: str) -> dict[str, str]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return {**inherited, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def train_in_trouble(folder: Path, world: dict[str, str]) -> None:
    """What both processes do, one training after another; the last one ends the second process."""
    os.environ.update(environment(**world))
    rank = int(world["RANK"])
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    base = load_base(read_config(folder / "odd.json").base)
    skill_set = read_skills(str(folder / "skills.jsonl"))
    one_step = training.one_step

    def run(config: str, name: str, at: int | None = None, act: Any = None, resume=False) -> None:
        path = folder / name
        if accelerator.is_main_process and not path.exists():
            create_run(path, read_config(folder / config), skill_set)
        accelerator.wait_for_everyone()

        def step(this: Any, window: Any) -> None:
            if this.step == at and rank == 1:
                act(this)
            one_step(this, window)

        training.one_step = step
        try:
            for _ in training.train(Run(path), base, resume=resume, accelerator=accelerator):
                pass
            said = None
        except (CsreftError, AttributeError, RuntimeError) as error:
            said = str(error)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(said))
        accelerator.wait_for_everyone()

    run("odd.json", "odd")
    run("one_row.json", "one_row")
    run("everything.json", "whole")
    # Only the second one sees it in time.
    run("everything.json", "stopped", at=3, act=lambda this: this.run.request_stop())
    run("everything.json", "stopped", resume=True)
    run("odd.json", "failed", at=2, act=lambda this: setattr(this, "attachment", None))
    run("odd.json", "dead", at=2, act=lambda _: os._exit(9))


@pytest.fixture(scope="module")
def pair(made: Path) -> list[int | None]:
    """Both processes have trained; their exit codes."""
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        started.start(train_in_trouble, made, {"RANK": rank, "LOCAL_RANK": rank, **world})
        for rank in ("0", "1")
    ]
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


def losses(run: Path, kind: str) -> list[float]:
    found = [r for r in Run(run).metrics() if r["kind"] == kind]
    return [r["loss"] if kind == "step" else r["mean"]["loss"] for r in found]


def assert_same_curve(one: Path, two: Path) -> None:
    for kind in ("step", "eval"):
        a, b = losses(one, kind), losses(two, kind)
        assert len(a) == len(b)
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= SAME_LOSS
    first, last = losses(one, "eval")[0], losses(one, "eval")[-1]
    assert abs(first - last) > 100 * SAME_LOSS  # and the curve is no flat line


def test_accelerate_launch_gives_the_curve_of_one_process(made):
    """The command of docs/method.md, with two processes of one thread each."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", free_port(), "-m", "csreft_core", "train"]
    done = subprocess.run(
        [
            sys.executable,
            *launch,
            *quiet,
            *port,
            *settings(made, **CONFIGS["odd"]),
            "--out",
            str(made / "launched"),
        ],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("finished at step 8 of 8") == 1  # only one of them speaks
    run = Run(made / "launched")
    assert_same_curve(made / "odd-one", run.path)
    records = run.metrics()
    assert records[0]["n_processes"] == 2
    assert [r["step"] for r in records if r["kind"] == "eval"] == [0, 6, 8]
    assert len(run.snapshots()) == 3
    assert run.checkpoints() == []
    assert run.config() == Run(made / "odd-one").config()
    a, b = (load_file(made / n / "adapter.safetensors") for n in ("odd-one", "launched"))
    assert all(torch.allclose(a[name], b[name], rtol=0, atol=1e-5) for name in a)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("config", "run"), [("odd", "odd"), ("one_row", "one_row"), ("everything", "whole")]
)
def test_uneven_shares_give_the_curve_of_one_process(made, config, run):
    """5, 1 and 7 rows a step for two processes; one of them may have none."""
    assert_same_curve(made / f"{config}-one", made / run)
    assert Run(made / run).status().state == "finished"
    assert {json.loads((made / f"{run}-{rank}.json").read_text()) for rank in (0, 1)} == {None}
    assert not list((made / run).glob("states-*"))


@pytest.mark.usefixtures("pair")
def test_a_stop_reaches_all_and_a_resume_gives_the_same_adapter(made):
    whole, stopped = (made / n / "adapter.safetensors" for n in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
    steps = [r["step"] for r in Run(made / "stopped").metrics() if r["kind"] == "step"]
    assert steps == [*range(1, 9)]
    assert (made / "odd-one/adapter.safetensors").read_bytes() != whole.read_bytes()


@pytest.mark.usefixtures("pair")
def test_an_error_in_one_process_is_told_by_the_other(made):
    status = Run(made / "failed").status()
    assert (status.state, status.step) == ("failed", 2)
    assert "process 1 of this training failed" in status.message
    assert "NoneType" in status.message
    assert json.loads((made / "failed-0.json").read_text()) == status.message
    assert not Run(made / "failed").is_locked()


def test_a_process_that_is_gone_ends_the_other(made, pair):
    assert pair[1] == 9
    status = Run(made / "dead").status()
    assert status.state == "failed"
    assert "another process of this training is gone" in status.message
    assert not (made / "dead-1.json").exists()


def test_one_line_says_what_is_wrong_with_all(made, capsys, monkeypatch):
    wrong = ["train", *settings(made, adapter__layers=[9]), "--out", str(made / "wrong")]
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        # A rank without a world: the command says its mistake before it looks for others.
        assert main([*wrong, "--set", "no.such=1"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_launch_that_starts_one_process_only_says_so(made, tmp_path, monkeypatch, capsys):
    """`accelerate launch --cpu --num_processes 2` without MPI."""
    arguments = ["train", *settings(made, train__steps=1), "--json", "--out"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    assert "accelerate" not in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert main([*arguments, str(tmp_path / "b")]) == 0
    assert "starts a single process" in capsys.readouterr().err
