"""How a training tells its run folder what it does: status, lock and provenance."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from csreft_core.base.load import Base
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.config import BaseConfig, Config, Provenance
from csreft_core.config.templates import is_chat
from csreft_core.errors import CsreftError, RunError, StorageError
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import Run

HEARTBEAT_S = 5.0
# A run's status is written by its training and by that training's heartbeat.
_writing = threading.Lock()


class Heartbeat:
    """A thread that tells every few seconds that the training lives, and how far it is.

    Without it a long load, step or evaluation would look like a process that hangs.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._over = run, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._step: Callable[[], int] | None = None

    def follow(self, step: Callable[[], int]) -> None:
        """Tell this number of steps from now on."""
        self._step = step

    def begin(self) -> None:
        """Start to beat."""
        self._thread.start()

    def end(self) -> None:
        """Beat no more; nothing is written after this."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            # A disk that refuses is told by what the training itself writes.
            with suppress(StorageError):
                report(self._run, **({} if self._step is None else {"step": self._step()}))


@contextmanager
def reporting(run: Run, accelerator: Accelerator) -> Iterator[Heartbeat]:
    """Hold the run's lock and tell in its status how the training goes and ends.

    Yields:
        What tells between two records that it goes on; it beats in the main process alone.
    """
    heart = Heartbeat(run)
    if not accelerator.is_main_process:
        yield heart
        return
    with run.training_lock():
        run.clear_stop()
        report(run, state="running", message="loading the base", started=time.time(), ended=None)
        heart.begin()
        try:
            yield heart
        except GeneratorExit:
            heart.end()
            report(run, state="interrupted", message="training was left; resume it")
            raise
        except KeyboardInterrupt:
            heart.end()
            report(run, state="interrupted", message="interrupted by the keyboard; resume it")
            raise
        except Exception as error:
            heart.end()
            _report_failure(run, error)
            raise
        heart.end()
        is_stopped = run.status().step < run.config().train.steps
        report(run, state="stopped" if is_stopped else "finished", message="", ended=time.time())


def _report_failure(run: Run, error: Exception) -> None:
    """Say why it failed, if the disk takes it; the error itself is raised in any case."""
    text = str(error) if isinstance(error, CsreftError) else f"{error!r}; see log.txt"
    with suppress(StorageError):
        report(run, state="failed", message=text, ended=time.time())


def report(run: Run, **changes: Any) -> None:
    """Change fields of the run's status; the heartbeat is now.

    Raises:
        StorageError: the disk refuses.
    """
    with _writing:
        status = replace(run.status(), heartbeat=time.time(), pid=os.getpid(), **changes)
        run.write_status(status)


def on_device(config: BaseConfig, accelerator: Accelerator) -> BaseConfig:
    """With several processes, each takes the device that accelerate gave it."""
    if accelerator.num_processes == 1 or config.device != "auto":
        return config
    device = accelerator.device  # `cpu:0` on the CPU, of which there is one
    return replace(config, device="cpu" if device.type == "cpu" else str(device))


def with_provenance(run: Run, base: Base, accelerator: Accelerator) -> Config:
    """Complete the run's config with what it is trained on.

    Raises:
        RunError: the run was begun on another base.
    """
    config = run.config()
    template, earlier = resolve_template(config.data.template, base.tokenizer), config.provenance
    chat = is_chat(template)
    changes = earlier and differences(earlier.base_fingerprint, base.fingerprint, chat=chat)
    if changes:
        raise RunError(
            f"run {run.name!r} was begun on a base with other {' and '.join(changes)} than "
            f"{base.id!r} has; restore that base, or begin a new run"
        )
    provenance = Provenance(
        base_fingerprint=base.fingerprint,
        base_revision=base.revision,
        template=template,
        versions={name: version(name) for name in ("torch", "transformers", "accelerate")},
    )
    threads = config.train.threads or torch.get_num_threads()
    config = replace(config, provenance=provenance, train=replace(config.train, threads=threads))
    if accelerator.is_main_process:
        run.write_config(config)
    return config
