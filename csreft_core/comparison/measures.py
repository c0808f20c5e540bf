"""What is measured on one trained method, besides its losses: memory, speed, gradient conflict."""

import time
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import request
from csreft_core.base.memory.use import measure_use
from csreft_core.config import Config
from csreft_core.inference.scoring import Encoded, answer_scores, batches, row_labels
from csreft_core.reft.tuning import Tuning
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import skill_name
from csreft_core.training.loss import Window, batch_loss
from csreft_core.training.state import adamw

_BATCH = 64
_PROMPTS, _NEW_TOKENS, _TIMES = 16, 32, 3


def gradient_conflict(
    attachment: Attachment, method: Tuning, config: Config, encoded: Encoded
) -> list[dict[str, Any]]:
    r"""$\cos(\nabla L_i, \nabla L_j)$ for each pair of skills, over all trained parameters.

    $L_i$ is the task loss of skill i's rows (nats per answer token), under the gates of the
    training. Below 0, a step for one skill is a step against the other.

    Args:
        attachment: Of the base, in which the method is applied.
        method: At the point where the gradients are taken.
        config: Says how the gates are decided.
        encoded: Rows with one skill each; others are left out.

    Returns:
        Rows of first, second, cosine; None where a gradient is 0.
    """
    names = dict.fromkeys(skill_name(row) for row in encoded.rows if len(row.skills) == 1)
    gradients = {name: _gradient(attachment, method, config, encoded, name) for name in names}
    return [
        {"first": one, "second": other, "cosine": _cosine(gradients[one], gradients[other])}
        for one, other in combinations(gradients, 2)
    ]


def _gradient(
    attachment: Attachment, method: Tuning, config: Config, encoded: Encoded, skill: str
) -> Float[Tensor, " parameter"]:
    part = encoded.subset(i for i, row in enumerate(encoded.rows) if row.skills == (skill,))
    parameters = [p for p in method.parameters() if p.requires_grad]
    base = attachment.base
    n_tokens = sum(len(example.answer) for example in part.examples)
    total = [torch.zeros_like(p) for p in parameters]
    for place, batch in batches(part, base.pad_id, _BATCH, base.device):
        labels = row_labels(part.rows[place], method.names).to(base.device)
        nll, _, _ = answer_scores(attachment, request(method, config.router.gates, labels), batch)
        gradients = torch.autograd.grad(nll.sum() / n_tokens, parameters, allow_unused=True)
        for sum_, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                sum_ += gradient
    return torch.cat([gradient.flatten().double() for gradient in total])


def _cosine(one: Float[Tensor, " n"], other: Float[Tensor, " n"]) -> float | None:
    norms = one.norm() * other.norm()
    return None if norms == 0 else (one @ other / norms).item()


def step_bytes(attachment: Attachment, method: Tuning, config: Config, encoded: Encoded) -> int:
    """Peak memory of a training step in bytes, see `memory.use.measure_use`.

    The second of two steps on the first rows, so that AdamW's averages are there. Frozen weights
    that the method replaces (full fine-tuning) are not counted. The parameters are changed.
    """
    n = config.train.batch_size
    rows, examples = encoded.rows[:n], encoded.examples[:n]
    optimizer = adamw(method, config)
    n_tokens = sum(len(example.answer) for example in examples)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = batch_loss(
            attachment,
            method,
            config,
            rows,
            examples,
            n_tokens=n_tokens,
            n_rows=len(rows),
            window=Window(),
        )
        loss.backward()
        optimizer.step()

    def two_steps() -> None:
        step()
        step()

    return measure_use(attachment.base.model, two_steps, others=method.parameters()).total


@torch.no_grad()
def tokens_per_second(
    attachment: Attachment, method: Tuning, encoded: Encoded, gate_setting: str
) -> float:
    """New tokens a second in greedy generation: 32 for each of 16 prompts, the best of three."""
    base = attachment.base
    rows = encoded.rows[:_PROMPTS]
    batch = collate([Example(e.prompt, ()) for e in encoded.examples[:_PROMPTS]], base.pad_id)
    batch = batch.to(base.device)
    req = request(method, gate_setting, row_labels(rows, method.names))
    best = float("inf")
    for _ in range(_TIMES):
        began = time.perf_counter()
        tokens, _ = attachment.generate(
            req,
            **batch.inputs,
            generation_config=base.exactly(_NEW_TOKENS),
        )
        n_new = tokens.shape[1] - batch.input_ids.shape[1]
        tokens.cpu()  # a GPU is done only then
        best = min(best, (time.perf_counter() - began) / (n_new * len(rows)))
    return 1 / best
