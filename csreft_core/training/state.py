"""What a training step needs, its optimiser, and the checkpoints that it goes on from."""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.start import Start
from csreft_core.base.load import Base
from csreft_core.config import Config, TrainConfig
from csreft_core.errors import RunError, first_line
from csreft_core.inference.scoring import SCORED_AT_A_TIME, Encoded
from csreft_core.reft.adapter import AdapterSpec
from csreft_core.reft.tuning import Tuning
from csreft_core.runs.all_runs import Run
from csreft_core.skills.batching import epoch_order
from csreft_core.training.kept_choice import choose
from csreft_core.training.kept_states import KeptStates, everything_of
from csreft_core.training.row_store import RowStore

_MOST_ON_DISK = 16 * 2**30


@dataclass
class TrainingState:
    """Everything a step needs. `notes` say which settings are not in use, and why.

    `kept` is of the training rows, `kept_validation` of the validation rows.
    """

    run: Run
    config: Config
    adapter: Tuning
    attachment: Attachment
    accelerator: Accelerator
    train_rows: Encoded
    validation: Encoded
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    kept: KeptStates | None = None
    kept_validation: KeptStates | None = None
    notes: tuple[str, ...] = ()
    step: int = 0
    elapsed_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    grad_norm: float = math.nan

    @property
    def gate_setting(self) -> str:
        """Gates in training and in its evaluations."""
        return self.config.router.gates

    def spent_s(self) -> float:
        """Seconds of training, over all resumptions."""
        return self.elapsed_s + time.perf_counter() - self.started

    def start(self, rows: Sequence[int]) -> Start | None:
        """Where the forward of training rows starts, where something is kept of them."""
        return None if self.kept is None else self.kept.of(rows)

    def recomputation(self) -> AbstractContextManager[None]:
        """A forward in this block stores little for its backward pass, if the config wants that.

        Blocks below the first change store nothing in any case: no gradient passes them.
        """
        if not self.config.train.checkpointing:
            return nullcontext()
        return self.attachment.checkpointing(above=self.adapter.unchanged_up_to)


def autocast_type(config: Config, base: Base) -> tuple[torch.dtype | None, str | None]:
    """The number format of autocast, or None with the reason why the config's is not in use."""
    if config.train.autocast == "none":
        return None, None
    if base.model.dtype != torch.float32:
        number_format = str(base.model.dtype).removeprefix("torch.")
        return None, f"train.autocast is not in use: the base computes in {number_format} already"
    return torch.bfloat16, None


def adamw(adapter: Tuning, config: Config) -> torch.optim.Optimizer:
    """AdamW; the raw parameter behind R never decays, for its scale means nothing."""
    t = config.train
    parameters = [(n, p) for n, p in adapter.named_parameters() if p.requires_grad]
    router = [p for n, p in parameters if n.startswith("router.")]
    raw = [p for n, p in parameters if n.endswith(".raw")]
    rest = [p for n, p in parameters if not n.startswith("router.") and not n.endswith(".raw")]
    groups = [
        {"params": rest, "lr": t.lr, "weight_decay": t.weight_decay},
        {"params": raw, "lr": t.lr, "weight_decay": 0.0},
        {"params": router, "lr": t.router_lr, "weight_decay": t.weight_decay},
    ]
    return torch.optim.AdamW(groups)


def rates(optimizer: torch.optim.Optimizer, train: TrainConfig) -> LRScheduler:
    """Rates that rise in a line over the warm-up's share of the steps, then fall to zero.

    The function of transformers for this imports its trainer, and with it peft and bitsandbytes:
    a third of the time in which a training is imported.
    """
    rising = round(train.warmup * train.steps)

    def factor(step: int) -> float:
        if step < rising:
            return step / rising
        return (train.steps - step) / max(1, train.steps - rising)

    return LambdaLR(optimizer, factor)


def kept_states(
    run: Run,
    config: Config,
    attachment: Attachment,
    accelerator: Accelerator,
    rows: Encoded,
    spec: AdapterSpec,
) -> tuple[KeptStates | None, str | None]:
    """What is kept of the training rows, if anything, and a note where it is not all.

    There is none if the config does not ask for it.
    """
    t, folder = config.train, _states_folder(run, accelerator.process_index)
    _remove_left_overs(run, accelerator)
    if not t.keep_states:
        return None, None
    in_memory = round(t.keep_states_gib * 2**30)
    store = RowStore(in_memory, folder)
    choice = choose(
        attachment,
        everything_of(spec),
        rows,
        in_memory=in_memory,
        on_disk=_disk_bytes(run) if t.steps * t.batch_size > len(rows.rows) else 0,
    )
    if choice.contents is None:
        return None, choice.note
    kept = KeptStates(
        attachment,
        rows,
        choice.contents,
        store,
        order=epoch_order(len(rows.rows), t.seed, 0),
        batch_size=t.batch_size,
        n_processes=accelerator.num_processes,
        accumulate=t.accumulate,
    )
    return kept, choice.note


def kept_to_score(kept: KeptStates | None, rows: Encoded) -> KeptStates | None:
    """The same of rows that are scored again and again, in the same store."""
    if kept is None:
        return None
    return KeptStates(
        kept.attachment,
        rows,
        kept.contents,
        kept.store,
        name="validation",
        batch_size=SCORED_AT_A_TIME,
    )


def _disk_bytes(run: Run) -> int:
    """What may be kept on disk: half of what is free, up to a limit."""
    place = next(folder for folder in (run.path, *run.path.parents) if folder.exists())
    return min(_MOST_ON_DISK, shutil.disk_usage(place).free // 2)


def _states_folder(run: Run, process: int) -> Path:
    return run.path / f"states-{process}"


def _remove_left_overs(run: Run, accelerator: Accelerator) -> None:
    """What a killed training of more processes left on disk; each clears its own by itself."""
    if not accelerator.is_main_process:
        return
    present = {_states_folder(run, process) for process in range(accelerator.num_processes)}
    for folder in set(run.path.glob("states-*")) - present:
        shutil.rmtree(folder, ignore_errors=True)


def save_checkpoint(training: TrainingState) -> None:
    """Write parameters, optimiser and step; only the main process does."""
    if not training.accelerator.is_main_process:
        return
    state = {
        "adapter": training.adapter.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
        "step": training.step,
        "elapsed_s": training.spent_s(),
    }
    training.run.save_checkpoint(
        training.step, lambda folder: torch.save(state, folder / "state.pt")
    )


def load_checkpoint(training: TrainingState) -> None:
    """Go back to the newest checkpoint, if there is one.

    Raises:
        RunError: it cannot be read.
    """
    checkpoints = training.run.checkpoints()
    if not checkpoints:
        return
    path = checkpoints[-1] / "state.pt"
    try:
        state = torch.load(path, weights_only=True, map_location=training.attachment.base.device)
        training.adapter.load_state_dict(state["adapter"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.scheduler.load_state_dict(state["scheduler"])
        training.step, training.elapsed_s = state["step"], state["elapsed_s"]
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise RunError(
            f"{path}: this checkpoint cannot be read ({first_line(error, 200)}); delete the folder "
            f"{checkpoints[-1].name} to go on from the one before, or train again"
        ) from None
