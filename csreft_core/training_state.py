"""What a training step needs, its optimiser, and the checkpoints that it goes on from."""

import math
import time
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator

from csreft_core.adapter import AdapterSpec, CSReFT
from csreft_core.config import Config
from csreft_core.errors import RunError
from csreft_core.evaluation import Encoded
from csreft_core.hooking import Attachment
from csreft_core.kept_states import KeptStates, are_exact, kept_layers
from csreft_core.runs import Run
from csreft_core.skills import epoch_order


@dataclass
class TrainingState:
    """Everything a step needs."""

    run: Run
    config: Config
    adapter: CSReFT
    attachment: Attachment
    accelerator: Accelerator
    train_rows: Encoded
    validation: Encoded
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    kept: KeptStates | None = None
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


def adamw(adapter: CSReFT, config: Config) -> torch.optim.Optimizer:
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


def kept_states(
    run: Run, config: Config, attachment: Attachment, accelerator: Accelerator, rows: Encoded,
    spec: AdapterSpec,
) -> KeptStates | None:  # fmt: skip
    """Where the states below the first edit are kept; None if the config does not want it."""
    t = config.train
    if not t.keep_states or not are_exact(attachment):
        return None
    return KeptStates(
        attachment,
        rows,
        layers=kept_layers(spec),
        order=epoch_order(len(rows.rows), t.seed, 0),
        batch_size=t.batch_size,
        n_processes=accelerator.num_processes,
        budget_bytes=round(t.keep_states_gib * 2**30),
        folder=run.path / f"states-{accelerator.process_index}",
    )


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
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path}: this checkpoint cannot be read ({first[:200]}); delete the folder "
            f"{checkpoints[-1].name} to go on from the one before, or train again"
        ) from None
