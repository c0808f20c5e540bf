"""Training of an adapter in a run folder: a generator of records, without print and without UI.

The trainer is the only writer of a run's status, metrics, checkpoints, snapshots and adapter.
The same seed gives the same weights on the CPU, also after a kill and a resume.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from csreft_core.attachment.attach import Attachment, attach
from csreft_core.base.load import Base, load_base
from csreft_core.base.memory.exhausted import memory_errors, training_advice
from csreft_core.config import Config
from csreft_core.errors import RunError
from csreft_core.inference.scoring import (
    Encoded,
    encode_as_configured,
    encode_rows,
    evaluate,
    scored_rows,
)
from csreft_core.methods.build import build_method, load_method
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.tuning import Tuning
from csreft_core.runs.all_runs import Run
from csreft_core.skills.skill_set import Row, SkillSet
from csreft_core.skills.unwritable import check_writable, special_message, unwritable_message
from csreft_core.training.loss import Window
from csreft_core.training.processes import any_of, failing_together, gather
from csreft_core.training.records import eval_record, start_record, step_record
from csreft_core.training.reporting import on_device, report, reporting, with_provenance
from csreft_core.training.router_start import scale_router
from csreft_core.training.snapshots import save_snapshot
from csreft_core.training.state import (
    TrainingState,
    adamw,
    autocast_type,
    kept_states,
    kept_to_score,
    load_checkpoint,
    rates,
    save_checkpoint,
)
from csreft_core.training.step import one_step

_RECORDS = 150


def train(
    run: Run,
    base: Base | None = None,
    *,
    resume: bool = False,
    start: Path | None = None,
    accelerator: Accelerator | None = None,
) -> Iterator[dict[str, Any]]:
    """Train the run's adapter; yields each record of `metrics.jsonl` as it is written.

    A `stop` file in the run folder saves a checkpoint and the adapter and ends with the state
    `stopped`. A finished run has its adapter and no checkpoints.

    Args:
        run: A run that `runs.all_runs.create_run` made; its config and skills decide everything.
        base: The frozen base that the config names; loaded if not given.
        resume: Go on from the newest checkpoint, or start if there is none.
        start: What another run of the same method has saved; its parameters take the place of
            fresh ones.
        accelerator: Device and processes; made from the environment if not given.

    Raises:
        RunError: it is finished, another process trains it, or its newest checkpoint cannot be
            read.
        CsreftError: a base, data or settings that do not work or do not fit each other.
    """
    accelerator = accelerator or Accelerator(cpu=run.config().base.device == "cpu")
    if resume and run.status().state == "finished":
        raise RunError(f"run {run.name!r} is finished, there is nothing to resume; train a new one")
    with reporting(run, accelerator) as heart:
        with failing_together(accelerator):
            base = base or load_base(on_device(run.config().base, accelerator))
            config = with_provenance(run, base, accelerator)
        autocast, note = autocast_type(config, base)
        with attach(base, autocast=autocast) as attachment:
            with failing_together(accelerator):
                training = _prepare(run, config, attachment, accelerator, note)
                if start is not None:
                    training.adapter.load_state_dict(load_method(start, base).state_dict())
                if resume:
                    load_checkpoint(training)
            heart.follow(lambda: training.step)
            try:
                with training.adapter.applied(attachment.current_pass):
                    yield from _begin(training)
                    yield from _run_steps(training)
            finally:
                if training.kept is not None:
                    training.kept.store.clear()


def fitting_adapter(config: Config, base: Base, skill_set: SkillSet) -> Tuning:
    """A fresh adapter, or what else the method trains, if settings, base and data fit each other.

    Raises:
        ConfigError: layers, ranks or subspaces that do not fit the base or the skills.
        SkillSetError: a row without a skill where training needs the labels, or a chat template
            that the base does not have.
        UnsupportedModelError: a tokeniser that cannot end an answer, or tokens that the base does
            not have.
    """
    adapter = build_method(config, base, skill_set.names)
    if config.router.gates == "oracle" or config.router.supervision > 0:
        skill_set.labels(skill_set.split("train"))
    encode_as_configured(skill_set.rows[:1], base, config)
    return adapter


def check_answers(config: Config, base: Base, skill_set: SkillSet) -> None:
    """See that the base can write every answer of every split.

    Raises:
        SkillSetError: it cannot, see `unwritable.check_writable`.
    """
    encoded = encode_as_configured(skill_set.rows, base, config)
    check_writable(encoded.rows, encoded.examples, base.tokenizer)


def _prepare(
    run: Run, config: Config, attachment: Attachment, accelerator: Accelerator, note: str | None
) -> TrainingState:
    base, skill_set = attachment.base, run.skill_set()
    assert config.provenance is not None
    template, longest = config.provenance.template, config.train.max_length
    adapter = fitting_adapter(config, base, skill_set)

    def encode_split(split: str) -> Encoded:
        return encode_rows(skill_set.split(split), base, template, longest)

    optimizer, train_rows = adamw(adapter, config), encode_split("train")
    kept, reason = None, None
    if isinstance(adapter, CSReFT):
        kept, reason = kept_states(run, config, attachment, accelerator, train_rows, adapter.spec)
    validation = _scored_part(
        encode_split("validation" if "validation" in skill_set.splits else "train")
    )
    return TrainingState(
        run=run,
        config=config,
        adapter=adapter,
        attachment=attachment,
        accelerator=accelerator,
        train_rows=train_rows,
        kept=kept,
        notes=tuple(filter(None, (note, reason, *_text_notes(train_rows, base)))),
        validation=validation,
        kept_validation=kept_to_score(kept, validation),
        optimizer=optimizer,
        scheduler=rates(optimizer, config.train),
    )


def _text_notes(rows: Encoded, base: Base) -> tuple[str | None, ...]:
    """What the rows' texts make of the training."""
    return (
        unwritable_message(rows.rows, rows.examples, base.tokenizer),
        special_message(rows.rows, base.tokenizer),
    )


def _scored_part(encoded: Encoded) -> Encoded:
    """The rows that are scored."""
    return encoded.subset(scored_rows(len(encoded.rows)))


def _begin(training: TrainingState) -> Iterator[dict[str, Any]]:
    """Say what is trained; a resumed run has said it, and loses what came after its checkpoint."""
    if training.accelerator.is_main_process:
        training.run.truncate_metrics(training.step)
    record = start_record(training)
    yield record if training.step > 0 else _write(training, record)


def _run_steps(training: TrainingState) -> Iterator[dict[str, Any]]:
    t = training.config.train
    log_every = math.ceil(t.steps / _RECORDS)
    window = Window()
    if training.step == 0:
        scale_router(training)
        yield from _evaluate(training)
    while training.step < t.steps:
        with _memory(training):
            one_step(training, window)
        step = training.step
        due = step % t.eval_every == 0, step % t.checkpoint_every == 0, step == t.steps
        stopping = any_of(training.accelerator, training.run.stop_requested())
        if any(due) or stopping or step % log_every == 0 or step == 1:
            whole = Window.merge(gather(training.accelerator, window))
            yield _write(training, step_record(training, whole))
            window = Window()
        if due[0] or due[2]:
            yield from _evaluate(training)
        if (due[1] or stopping) and not due[2]:
            save_checkpoint(training)
        if stopping and not due[2]:
            _save(training)
            return
    _save(training)
    if training.accelerator.is_main_process:
        training.run.remove_checkpoints()


def _memory(training: TrainingState) -> AbstractContextManager[None]:
    """Running out of memory in this block says what the training needs and what would fit."""
    base, rows = training.attachment.base, training.train_rows.examples

    def advice() -> str:
        return training_advice(
            base.model.config,
            training.config,
            base.device,
            longest=max(len(row.prompt) + len(row.answer) for row in rows),
            answer=max(len(row.answer) for row in rows),
        )

    return memory_errors("training", base.device, advice)


def _write(training: TrainingState, record: dict[str, Any]) -> dict[str, Any]:
    """Append the record and refresh the status."""
    if training.accelerator.is_main_process:
        training.run.append_metric(record)
        report(training.run, state="running", step=training.step, message="")
    return record


def _evaluate(training: TrainingState) -> Iterator[dict[str, Any]]:
    """Score the validation rows and keep a snapshot for pictures over training."""
    if not training.accelerator.is_main_process:
        return
    training.adapter.eval()
    known = training.kept_validation
    with _memory(training):
        scores = evaluate(
            training.attachment,
            training.adapter,
            training.validation,
            gates=training.gate_setting,
            decode=False,
            start=None if known is None else known.of,
        )
        row_gates = _snapshot(training)
    yield _write(training, eval_record(training, scores, row_gates))


def _snapshot(training: TrainingState) -> list[tuple[Row, Tensor]]:
    """Rows and gates of a new snapshot, which is made of subspaces; other methods have none."""
    if not isinstance(training.adapter, CSReFT):
        return []
    return save_snapshot(
        training.run.snapshot_path(training.step),
        training.attachment,
        training.adapter,
        training.validation,
        training.gate_setting,
        training.kept_validation,
    )


def _save(training: TrainingState) -> None:
    if training.accelerator.is_main_process:
        training.adapter.save(training.run.adapter_path)
