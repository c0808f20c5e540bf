"""How a training tells its run folder what it does: status, lock and provenance."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from csreft_core.base_models import Base
from csreft_core.chat_templates import resolve_template
from csreft_core.config import BaseConfig, Config, Provenance
from csreft_core.errors import CsreftError, RunError
from csreft_core.identity import differences
from csreft_core.runs import Run
from csreft_core.template_text import is_chat


@contextmanager
def reporting(run: Run, accelerator: Accelerator) -> Iterator[None]:
    """Hold the run's lock and tell in its status how the training goes and ends."""
    if not accelerator.is_main_process:
        yield
        return
    with run.training_lock():
        run.clear_stop()
        report(run, state="running", message="loading the base", started=time.time(), ended=None)
        try:
            yield
        except GeneratorExit:
            report(run, state="interrupted", message="training was left; resume it")
            raise
        except KeyboardInterrupt:
            report(run, state="interrupted", message="interrupted by the keyboard; resume it")
            raise
        except Exception as error:
            text = str(error) if isinstance(error, CsreftError) else f"{error!r}; see log.txt"
            report(run, state="failed", message=text, ended=time.time())
            raise
        stopped = run.status().step < run.config().train.steps
        report(run, state="stopped" if stopped else "finished", message="", ended=time.time())


def report(run: Run, **changes: Any) -> None:
    """Change fields of the run's status; the heartbeat is now."""
    status = replace(run.status(), heartbeat=time.time(), pid=os.getpid(), **changes)
    run.write_status(status)


def on_device(config: BaseConfig, accelerator: Accelerator) -> BaseConfig:
    """With several processes, each takes the device that accelerate gave it."""
    if accelerator.num_processes == 1 or config.device != "auto":
        return config
    given = accelerator.device  # `cpu:0` on the CPU, of which there is one
    return replace(config, device="cpu" if given.type == "cpu" else str(given))


def with_provenance(run: Run, base: Base, accelerator: Accelerator) -> Config:
    """Complete the run's config with what it is trained on.

    Raises:
        RunError: the run was begun on another base.
    """
    config = run.config()
    template, begun = resolve_template(config.data.template, base.tokenizer), config.provenance
    chat = is_chat(template)
    found = begun and differences(begun.base_fingerprint, base.fingerprint, chat=chat)
    if found:
        raise RunError(
            f"run {run.name!r} was begun on a base with other {' and '.join(found)} than "
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
