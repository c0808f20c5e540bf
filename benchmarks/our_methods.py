"""CS-ReFT and LoReFT of this project, as contestants."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.random_models import three_tokens
from benchmarks.workload import BATCH, LAYERS, PREFIX, RANK, SUFFIX, Sample
from csreft_core.attachment.attach import Attachment, attach
from csreft_core.base.load import Base, freeze
from csreft_core.config import PRESETS, Config, with_overrides
from csreft_core.inference.scoring import Encoded
from csreft_core.methods.build import build_method
from csreft_core.reft.adapter import CSReFT
from csreft_core.runs.run import Run
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.loss import Window
from csreft_core.training.state import TrainingState, adamw, kept_states
from csreft_core.training.step import one_step

ON_PROMPT, ON_LAST = f"f{PREFIX}+l{SUFFIX}", "l1"


def freeze_model(model: LlamaForCausalLM) -> Base:
    """The model as a base."""
    return freeze(model, three_tokens(), base_id="random")


def config_of(k: int, *, preset: str = "recommended", positions: str = ON_PROMPT) -> Config:
    """A preset with the layers, rank and positions of the comparison; `loreft` has one subspace."""
    n_subspaces = 1 if preset == "loreft" else k
    changes = [
        f"adapter.layers=[{','.join(map(str, LAYERS))}]",
        f"adapter.rank={RANK}",
        f"adapter.n_subspaces={n_subspaces}",
        f"adapter.positions={positions}",
        f"train.batch_size={BATCH}",
    ]
    return with_overrides(PRESETS[preset], changes)


def skill_names(k: int) -> tuple[str, ...]:
    """Names of k skills."""
    return tuple(f"skill {i}" for i in range(k))


def adapter_of(config: Config, base: Base, k: int) -> CSReFT:
    """A fresh adapter for k skills."""
    adapter = build_method(config, base, skill_names(k))
    assert isinstance(adapter, CSReFT)
    return adapter


def encode_samples(data: Sequence[Sample], k: int) -> Encoded:
    """The samples as rows of k skills, taking turns."""
    names = skill_names(k)
    rows = tuple(Row((names[i % k],), "", "", "train") for i in range(len(data)))
    return Encoded(rows, tuple(Example(s.prompt, s.answer) for s in data))


def training_of(
    attachment: Attachment, config: Config, data: Sequence[Sample], k: int, folder: Path
) -> TrainingState:
    """What `csreft_core.training.loop` has before its first step."""
    rows, accelerator = (
        encode_samples(data, k),
        Accelerator(cpu=attachment.base.device.type == "cpu"),
    )
    adapter = adapter_of(config, attachment.base, k)
    optimizer, run = adamw(adapter, config), Run(folder)
    kept, reason = kept_states(run, config, attachment, accelerator, rows, adapter.spec)
    assert reason is None, reason
    return TrainingState(
        run=run,
        config=config,
        adapter=adapter,
        attachment=attachment,
        accelerator=accelerator,
        train_rows=rows,
        validation=rows,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        kept=kept,
    )


def training_step(
    model: LlamaForCausalLM,
    data: Sequence[Sample],
    folder: Path,
    *,
    k: int = 4,
    preset: str = "recommended",
    positions: str = ON_PROMPT,
    keep: bool = False,
) -> Callable[[object], None]:
    """The step of `csreft_core.training.loop`, records of losses and gates included.

    It leaves the model untouched, so that others can use it in between. The rows that it takes are
    those of its own seed, `workload.epochs` gives the same.
    """
    changes = [f"train.keep_states={'true' if keep else 'false'}"]
    config = with_overrides(config_of(k, preset=preset, positions=positions), changes)
    base, window = freeze_model(model), Window()
    with attach(base) as attachment:
        training = training_of(attachment, config, data, k, folder)

    def step(_rows: object) -> None:
        with attach(base) as attachment:
            use_attachment(training, attachment)
            one_step(training, window)

    return step


def use_attachment(training: TrainingState, attachment: Attachment) -> None:
    """Go on with another attachment to the same base."""
    training.attachment = attachment
    if training.kept is not None:
        training.kept.attachment = attachment


def generation(model: LlamaForCausalLM, positions: str, k: int = 4) -> Callable[..., Tensor]:
    """`generate` of a base with an attached adapter, gates by its router; attaching included."""
    base = freeze_model(model)
    assert base.model.generation_config is not None
    base.model.generation_config.eos_token_id = None
    adapter = adapter_of(config_of(k, positions=positions), base, k).eval()

    def generate(input_ids: Tensor, **settings: Any) -> Tensor:
        mask = torch.ones_like(input_ids)
        with attach(base, adapter):
            return model.generate(input_ids=input_ids, attention_mask=mask, **settings)  # type: ignore[operator]

    return generate
