"""One optimiser step: the micro-batches of this process, the sum over all, the update."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from csreft_core.errors import RunError
from csreft_core.skills.batching import micro_batches, step_rows
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from csreft_core.training.loss import Window, batch_loss, is_global, total_gates
from csreft_core.training.processes import failing_together, summing_gradients, total
from csreft_core.training.state import TrainingState

_Part = Int[np.ndarray, " _part"]  # micro-batches differ in length
_PRIME = 1_000_003


def one_step(training: TrainingState, window: Window) -> None:
    """Train on the next rows; the loss is a mean over the step's answer tokens of all processes.

    Raises:
        RunError: a gradient that is not finite, or another process that failed.
    """
    t, accelerator = training.config.train, training.accelerator
    rows = step_rows(len(training.train_rows.rows), t.batch_size, training.step, t.seed)
    parts = micro_batches(rows, accelerator.process_index, accelerator.num_processes, t.accumulate)
    n_tokens = sum(len(training.train_rows.examples[i].answer) for i in rows)
    training.adapter.train()
    training.optimizer.zero_grad(set_to_none=True)
    parameters = [p for p in training.adapter.parameters() if p.requires_grad]
    usage = _usage(training, parts, len(rows))
    with summing_gradients(accelerator, parameters):
        for place, part in enumerate(parts):
            _backward(training, part, place, n_tokens, len(rows), usage, window)
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


def _backward(
    training: TrainingState,
    part: _Part,
    place: int,
    n_tokens: int,
    n_rows: int,
    usage: Float[Tensor, " k"] | None,
    window: Window,
) -> None:
    """Add the gradients of one micro-batch."""
    t, adapter = training.config.train, training.adapter
    # Each micro-batch of each process drops other coordinates.
    draw = training.accelerator.process_index * t.accumulate + place
    adapter.set_dropout_seed((t.seed * _PRIME + training.step + draw * _PRIME**2) % 2**50)
    rows, examples = _of(training, part)
    with training.recomputation():
        loss = batch_loss(
            training.attachment,
            adapter,
            training.config,
            rows,
            examples,
            n_tokens=n_tokens,
            n_rows=n_rows,
            window=window,
            start=training.start(part.tolist()),
            usage=usage,
        )
    # Not through accelerate, which would divide by its own count of micro-batches.
    loss.backward()


def _usage(
    training: TrainingState, parts: Sequence[_Part], n_rows: int
) -> Float[Tensor, " k"] | None:
    """Mean gates of the whole step, where the loss needs them and no batch shows them."""
    adapter, accelerator = training.adapter, training.accelerator
    if adapter.router is None or not is_global(training.config):
        return None
    if accelerator.num_processes == 1 and len(parts) == 1:
        return None
    own = torch.zeros(adapter.n_subspaces, device=training.attachment.base.device)
    with failing_together(accelerator):
        for part in parts:
            rows, examples = _of(training, part)
            start = training.start(part.tolist())
            own += total_gates(training.attachment, adapter, rows, examples, start)
    return total(accelerator, own) / n_rows


def _of(training: TrainingState, part: _Part) -> tuple[list[Row], list[Example]]:
    encoded = training.train_rows
    return [encoded.rows[i] for i in part], [encoded.examples[i] for i in part]
