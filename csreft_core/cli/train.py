"""`train`: a new run or an old one, a progress bar, a summary."""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from csreft_core.base.load import Base, load_base
from csreft_core.cli.output import after_first, quiet_libraries, say_notes
from csreft_core.config import Config
from csreft_core.errors import ConfigError
from csreft_core.runs.all_runs import Run, check_new_run, create_run, open_run
from csreft_core.runs.queue import resume_line
from csreft_core.runs.turns import release_turns, wait_for_turn
from csreft_core.skills.skill_set import read_skills
from csreft_core.training.loop import check_answers, fitting_adapter, train
from csreft_core.training.processes import failing_together
from csreft_core.training.reporting import on_device

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]
_ALONE = (
    "note: accelerate launch --cpu starts a single process where MPI is not set up; for several "
    "on the CPU use ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
)


def train_command(args: argparse.Namespace) -> int:
    """Train a run to its end, or until it is asked to stop.

    Args:
        args: The arguments of `train`; `asked` is the config of a new run, None goes on with an
            old one.
    """
    quiet_libraries()
    out, config = Path(args.out), args.asked
    if config is None:
        run, base = open_run(out), None
        accelerator = _computing(run.config())
    else:
        accelerator = _computing(config)
        run, base = _new(out, config, accelerator, unwritable=args.unwritable_answers)
    is_main = accelerator.is_main_process
    if args.queue and accelerator.num_processes > 1:
        raise ConfigError(
            "--queue starts runs one after the other, each as one process; leave it out under "
            "accelerate launch"
        )
    last_records: dict[str, dict[str, Any]] = {}
    with _stopping(run) as stop_event:
        if not (args.queue and is_main) or wait_for_turn(run):
            records = train(run, base, resume=args.resume, accelerator=accelerator)
            last_records = _follow(run, records, stop_event, show=is_main, quiet=args.json)
    release_turns()
    if is_main and args.json:
        print(json.dumps(_final(run, last_records), ensure_ascii=False))
    elif is_main:
        print(_summary(run, last_records))
    return 0


def _new(
    out: Path, config: Config, accelerator: Accelerator, *, unwritable: bool
) -> tuple[Run, Base]:
    """A new run, made only after config, data and base were found to fit each other."""
    with failing_together(accelerator):
        if accelerator.is_main_process:
            check_new_run(out)
        skill_set = read_skills(config.data.path, config.data.skill_column)
        base = load_base(on_device(config.base, accelerator))
        fitting_adapter(config, base, skill_set)
        if not unwritable:
            check_answers(config, base, skill_set)
    if accelerator.is_main_process:
        say_notes(skill_set)
        create_run(out, config, skill_set)
    accelerator.wait_for_everyone()
    return open_run(out), base


def _computing(config: Config) -> Accelerator:
    """Set up device and threads, before anything is computed: the last bits depend on them."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    if _is_alone_by_mistake():
        print(_ALONE, file=sys.stderr)
    return Accelerator(cpu=config.base.device == "cpu")


def _is_alone_by_mistake() -> bool:
    """Whether `accelerate launch --cpu --num_processes N` started this process, and no other."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return on_cpu and "MASTER_ADDR" in os.environ and "RANK" not in os.environ


@contextmanager
def _stopping(run: Run) -> Iterator[threading.Event]:
    """Ctrl+C or a termination asks the run to save and end; a second one ends at once."""
    stop_event = threading.Event()

    def ask(number: int, _frame: object) -> None:
        stop_event.set()
        run.request_stop()
        signal.signal(number, previous[number])

    on_main_thread = threading.current_thread() is threading.main_thread()
    previous = {n: signal.signal(n, ask) for n in _SIGNALS} if on_main_thread else {}
    try:
        yield stop_event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _follow(
    run: Run,
    records: Iterator[dict[str, Any]],
    stop_event: threading.Event,
    *,
    show: bool,
    quiet: bool,
) -> dict[str, dict[str, Any]]:
    """Draw the progress; returns the last record of each kind."""
    last_records: dict[str, dict[str, Any]] = {}
    on_terminal = sys.stderr.isatty()
    records = after_first(records)
    with tqdm(
        total=run.config().train.steps,
        unit="step",
        disable=not show,
        mininterval=0.2 if on_terminal else 5,
        dynamic_ncols=on_terminal,
    ) as bar:
        for record in records:
            last_records[record["kind"]] = record
            if stop_event.is_set():  # also one that came before the trainer listened
                run.request_stop()
            if record["kind"] == "start" and show and not quiet:
                tqdm.write(_parameters(record), file=sys.stdout)
                tqdm.write(
                    _cut_note(record, run.config().train.max_length), file=sys.stdout, end=""
                )
                tqdm.write("".join(f"note: {n}\n" for n in record["notes"]), sys.stdout, end="")
            bar.set_postfix(_figures(last_records), refresh=False)
            bar.update(record["step"] - bar.n)
    return last_records


def _figures(last_records: dict[str, dict[str, Any]]) -> dict[str, str]:
    figures = {}
    if "step" in last_records:
        figures["loss"] = f"{last_records['step']['loss']:.3f}"
    if "eval" in last_records:
        figures["validation"] = f"{last_records['eval']['mean']['exact_match']:.0%}"
    return figures


def _parameters(start: dict[str, Any]) -> str:
    counts, base = start["parameters"], start["base_parameters"]
    terms = [f"{counts[part]:,} {part}" for part in ("subspaces", "router") if part in counts]
    parts = f"{' + '.join(terms)} = " if "subspaces" in counts else ""
    total = counts["total"]
    return f"parameters: {parts}{total:,}, {total / base:.4%} of the base's {base:,}"


def _cut_note(start: dict[str, Any], max_length: int) -> str:
    if not start["n_cut"]:
        return ""
    return (
        f"{start['n_cut']:,} of {start['n_rows']:,} training rows are cut: longer than "
        f"{max_length} tokens (train.max_length) or than the base reads\n"
    )


def _final(run: Run, last_records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last evaluation, with what it belongs to."""
    start = last_records.get("start", {})
    counts = {key: start[key] for key in ("parameters", "base_parameters") if key in start}
    last = last_records.get("eval") or last_records.get("step") or {}
    return {"run": str(run.path), "state": run.status().state, **counts, **last}


def _summary(run: Run, last_records: dict[str, dict[str, Any]]) -> str:
    status = run.status()
    parts = [f"{status.state} at step {status.step} of {status.total_steps}"]
    if "step" in last_records:
        parts.append(
            f"{last_records['step']['elapsed_s']:.0f} s, loss {last_records['step']['loss']:.3f}"
        )
    if "eval" in last_records:
        parts.append(f"validation exact match {last_records['eval']['mean']['exact_match']:.3f}")
    parts.append(
        f"adapter in {run.adapter_path}"
        if status.state == "finished"
        else f"go on with: {resume_line(run)}"
    )
    return "; ".join(parts)
