"""Training of an adapter in a run folder: a generator of records, without print and without UI.

The trainer is the only writer of a run's status, metrics, checkpoints, snapshots and adapter.
The same seed gives the same weights on the CPU, also after a kill and a resume.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from csreft_core.adapter import CSReFT, build_adapter, parameter_counts, save_adapter
from csreft_core.base_models import Base, load_base
from csreft_core.config import Config
from csreft_core.errors import RunError
from csreft_core.evaluation import Encoded, encode_rows, evaluate, scored_rows, skill_name
from csreft_core.hooking import Attachment, attach
from csreft_core.objective import Window, batch_loss, gate_means
from csreft_core.reporting import on_device, report, reporting, with_provenance
from csreft_core.router import binary_entropy
from csreft_core.runs import Run
from csreft_core.skills import SkillSet, epoch_order, resolve_template
from csreft_core.snapshots import save_snapshot
from csreft_core.training_state import (
    TrainingState,
    adamw,
    kept_states,
    load_checkpoint,
    save_checkpoint,
)

_RECORDS = 150


def train(
    run: Run,
    base: Base | None = None,
    *,
    resume: bool = False,
    accelerator: Accelerator | None = None,
) -> Iterator[dict[str, Any]]:
    """Train the run's adapter; yields each record of `metrics.jsonl` as it is written.

    A `stop` file in the run folder saves a checkpoint and the adapter and ends with the state
    `stopped`. A finished run has its adapter and no checkpoints.

    Args:
        run: A run that `runs.create_run` made; its config and skills decide everything.
        base: The frozen base that the config names; loaded if not given.
        resume: Go on from the newest checkpoint, or start if there is none.
        accelerator: Device and processes; made from the environment if not given.

    Raises:
        RunError: it is finished, another process trains it, or its newest checkpoint cannot be
            read.
        CsreftError: a base, data or settings that do not work or do not fit each other.
    """
    accelerator = accelerator or Accelerator(cpu=run.config().base.device == "cpu")
    if resume and run.status().state == "finished":
        raise RunError(f"run {run.name!r} is finished, there is nothing to resume; train a new one")
    with reporting(run, accelerator):
        base = base or load_base(on_device(run.config().base, accelerator))
        config = with_provenance(run, base, accelerator)
        with attach(base) as attachment:
            training = _prepare(run, config, run.skill_set(), attachment, accelerator)
            if resume:
                load_checkpoint(training)
            if accelerator.is_main_process:
                run.truncate_metrics(training.step)
            try:
                yield _start_record(training)
                yield from _run_steps(training)
            finally:
                if training.kept is not None:
                    training.kept.clear()


def fitting_adapter(config: Config, base: Base, skill_set: SkillSet) -> CSReFT:
    """A fresh adapter, if settings, base and data fit each other.

    Raises:
        ConfigError: layers, ranks or subspaces that do not fit the base or the skills.
        SkillSetError: a row without a skill where training needs the labels, or a chat template
            that the base does not have.
        UnsupportedModelError: a tokeniser that cannot end an answer.
    """
    adapter = build_adapter(
        config,
        d_model=base.d_model,
        n_layers=base.n_layers,
        skills=skill_set.names,
        base_fingerprint=base.fingerprint,
    )
    if config.router.gates == "oracle" or config.router.supervision > 0:
        skill_set.labels(skill_set.split("train"))
    template = resolve_template(config.data.template, base.tokenizer)
    encode_rows(skill_set.rows[:1], base, template, config.train.max_length)
    return adapter.to(base.device)


def _prepare(
    run: Run,
    config: Config,
    skill_set: SkillSet,
    attachment: Attachment,
    accelerator: Accelerator,
) -> TrainingState:
    base = attachment.base
    assert config.provenance is not None
    template, longest = config.provenance.template, config.train.max_length
    adapter = fitting_adapter(config, base, skill_set)

    def encoded(split: str) -> Encoded:
        return encode_rows(skill_set.split(split), base, template, longest)

    optimizer, train_rows = adamw(adapter, config), encoded("train")
    return TrainingState(
        run=run,
        config=config,
        adapter=adapter,
        attachment=attachment,
        accelerator=accelerator,
        train_rows=train_rows,
        kept=kept_states(run, config, attachment, accelerator, train_rows, adapter.spec),
        validation=_spread(encoded("validation" if "validation" in skill_set.splits else "train")),
        optimizer=optimizer,
        scheduler=get_linear_schedule_with_warmup(
            optimizer, round(config.train.warmup * config.train.steps), config.train.steps
        ),
    )


def _spread(encoded: Encoded) -> Encoded:
    """The rows that are scored."""
    take = scored_rows(len(encoded.rows))
    return Encoded(tuple(encoded.rows[i] for i in take), tuple(encoded.examples[i] for i in take))


def _batch_rows(n: int, size: int, step: int, seed: int) -> np.ndarray:
    """Rows of a step: a walk through one shuffled epoch after another, a function of the step."""
    first = step * size
    epochs = range(first // n, (first + size - 1) // n + 1)
    order = np.concatenate([epoch_order(n, seed, epoch) for epoch in epochs])
    start = first - (first // n) * n
    return order[start : start + size]


def _run_steps(training: TrainingState) -> Iterator[dict[str, Any]]:
    t = training.config.train
    log_every = math.ceil(t.steps / _RECORDS)
    window = Window()
    if training.step == 0:
        yield from _evaluated(training)
    while training.step < t.steps:
        _one_step(training, window)
        step = training.step
        due = step % t.eval_every == 0, step % t.checkpoint_every == 0, step == t.steps
        stopping = _agreed(training, training.run.stop_requested())
        if any(due) or stopping or step % log_every == 0 or step == 1:
            yield _written(training, _step_record(training, window))
            window = Window()
        if due[0] or due[2]:
            yield from _evaluated(training)
        if (due[1] or stopping) and not due[2]:
            save_checkpoint(training)
        if stopping and not due[2]:
            _save(training)
            return
    _save(training)
    if training.accelerator.is_main_process:
        training.run.remove_checkpoints()


def _agreed(training: TrainingState, value: bool) -> bool:
    """Whether any process says so; all must leave the loop in the same step."""
    if training.accelerator.num_processes == 1:
        return value
    flag = torch.tensor(float(value), device=training.accelerator.device)
    total = training.accelerator.reduce(flag, "sum")
    assert isinstance(total, Tensor)
    return bool(total > 0)


def _one_step(training: TrainingState, window: Window) -> None:
    t, accelerator = training.config.train, training.accelerator
    taken = _batch_rows(len(training.train_rows.rows), t.batch_size, training.step, t.seed)
    mine = taken[accelerator.process_index :: accelerator.num_processes]
    training.adapter.train()
    training.adapter.set_dropout_seed(t.seed * 1_000_003 + training.step)
    training.optimizer.zero_grad(set_to_none=True)
    n_tokens = sum(len(training.train_rows.examples[i].answer) for i in taken)
    if len(mine):
        loss = batch_loss(
            training.attachment,
            training.adapter,
            training.config,
            [training.train_rows.rows[i] for i in mine],
            [training.train_rows.examples[i] for i in mine],
            n_tokens=n_tokens,
            n_rows=len(taken),
            window=window,
            states=None if training.kept is None else training.kept.of(mine.tolist()),
        )
        accelerator.backward(loss)
    parameters = [p for p in training.adapter.parameters() if p.requires_grad]
    if accelerator.num_processes > 1:
        for p in parameters:
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad = accelerator.reduce(gradient, "sum")  # type: ignore[assignment]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    training.grad_norm = norm.item()
    if not math.isfinite(training.grad_norm):
        raise RunError(
            f"the gradient is not finite at step {training.step + 1}; lower train.lr or "
            "train.router_lr, or use base.precision fp32, and train again"
        )
    training.optimizer.step()
    training.scheduler.step()
    training.step += 1
    window.tokens += n_tokens


def _step_record(training: TrainingState, window: Window) -> dict[str, Any]:
    config, adapter = training.config, training.adapter
    scores = [score for rows in window.scores.values() for score in rows]
    spent = training.spent_s()
    seconds = max(time.perf_counter() - window.since, 1e-9)
    rates = training.scheduler.get_last_lr()
    subspaces = [adapter.at(layer) for layer in adapter.layers]
    alphas = torch.stack([alpha for rows in window.gates.values() for alpha in rows])
    return {
        "kind": "step",
        "step": training.step,
        "loss": sum(s[0] for s in scores) / sum(s[1] for s in scores),
        "loss_by_skill": {
            name: sum(s[0] for s in rows) / sum(s[1] for s in rows)
            for name, rows in sorted(window.scores.items())
        },
        "gates_by_skill": gate_means(adapter.names, dict(sorted(window.gates.items()))),
        "gate_entropy": binary_entropy(alphas).item(),
        "orthonormality_error": max(s.orthonormality_error() for s in subspaces),
        "constraint_error": max(s.constraint_error() for s in subspaces),
        "overlap": sum(s.overlap() for s in subspaces) / len(subspaces),
        "grad_norm": training.grad_norm,
        "lr": rates[0],
        "router_lr": rates[2],
        "tokens_per_second": window.tokens / seconds,
        "time_left_s": spent / training.step * (config.train.steps - training.step),
        "elapsed_s": spent,
    }


def _start_record(training: TrainingState) -> dict[str, Any]:
    """What is trained, in numbers; written once, at the first step of all."""
    record = {
        "kind": "start",
        "step": training.step,
        "parameters": parameter_counts(training.adapter),
        "base_parameters": training.attachment.base.n_parameters,
        "n_processes": training.accelerator.num_processes,
        "n_rows": len(training.train_rows.rows),
        "n_cut": training.train_rows.n_cut,
    }
    if training.step > 0:
        return record
    return _written(training, record)


def _written(training: TrainingState, record: dict[str, Any]) -> dict[str, Any]:
    """Append the record and refresh the status."""
    if training.accelerator.is_main_process:
        training.run.append_metric(record)
        report(training.run, state="running", step=training.step, message="")
    return record


def _evaluated(training: TrainingState) -> Iterator[dict[str, Any]]:
    """Score the validation rows and keep a snapshot for pictures over training."""
    if not training.accelerator.is_main_process:
        return
    training.adapter.eval()
    scores = evaluate(
        training.attachment,
        training.adapter,
        training.validation,
        gates=training.gate_setting,
        decode=False,
    )
    gates = save_snapshot(
        training.run.snapshot_path(training.step),
        training.attachment,
        training.adapter,
        training.validation,
        training.gate_setting,
    )
    by_skill: dict[str, list[Tensor]] = {}
    for row, alpha in gates:
        by_skill.setdefault(skill_name(row), []).append(alpha)
    record = {
        "kind": "eval",
        "step": training.step,
        "split": "validation",
        **scores,
        "gates_by_skill": gate_means(training.adapter.names, by_skill),
    }
    yield _written(training, record)


def _save(training: TrainingState) -> None:
    if training.accelerator.is_main_process:
        save_adapter(training.adapter, training.run.adapter_path)
