"""The loss of a batch: the answers' tokens, the router's terms and the overlap penalty."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.adapter import CSReFT
from csreft_core.config import Config
from csreft_core.evaluation import answer_scores, row_labels, skill_name
from csreft_core.hooking import Attachment
from csreft_core.passes import Pass, request
from csreft_core.router import omega, supervision_loss
from csreft_core.skills import Example, Row, collate


@dataclass
class Window:
    """What has happened since the last record."""

    scores: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    gates: dict[str, list[Tensor]] = field(default_factory=dict)
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    def note(
        self, rows: Sequence[Row], nll: Tensor, n_tokens: Tensor, exact: Tensor, this: Pass
    ) -> None:
        """Keep the scores and the gates of a batch, for the next record."""
        gates = this.prompt_gates().detach().cpu()
        scores = zip(
            rows, nll.tolist(), n_tokens.double().tolist(), exact.tolist(), gates, strict=True
        )
        for row, loss, n, right, alpha in scores:
            self.scores.setdefault(skill_name(row), []).append((loss, n, right))
            self.gates.setdefault(skill_name(row), []).append(alpha)


def batch_loss(
    attachment: Attachment,
    adapter: CSReFT,
    config: Config,
    rows: Sequence[Row],
    examples: Sequence[Example],
    *,
    n_tokens: int,
    n_rows: int,
    window: Window,
    states: dict[int, Tensor] | None = None,
) -> Float[Tensor, ""]:
    r"""One process's share of the loss of a step; the shares of all processes add up to it.

    $$ L = \frac{1}{n_\text{tokens}} \sum -\ln p + \lambda_s L_\text{supervision}
       + \lambda_\Omega\, \Omega(\alpha) + \lambda_\perp \sum_{i<j} \|R_i R_j^\top\|_F^2 $$

    (CS-ReFT, section 3.3, where the second and fourth terms are this project's.)

    Args:
        rows: This process's rows, with their `examples`.
        n_tokens: Answer tokens of the whole step, over all processes.
        n_rows: Rows of the whole step.
        window: Takes note of the scores and gates.
        states: The batch's states below the first edit, if they are known.

    Returns:
        The loss in nats per answer token, plus the weighted terms.
    """
    base, r = attachment.base, config.router
    batch = collate(examples, base.pad_id).to(base.device)
    labels = row_labels(rows, adapter.names).to(base.device)
    with attachment.from_states(states) if states else nullcontext():
        nll, exact, this = answer_scores(attachment, request(adapter, r.gates, labels), batch)
    loss = nll.sum() / n_tokens
    share = len(rows) / n_rows
    if adapter.router is not None and this.logits is not None:
        logits = _at_last(this, this.logits)
        if r.supervision > 0:
            loss = loss + share * r.supervision * supervision_loss(logits, labels, r.gate)
        if r.sparsity > 0:
            loss = loss + share * r.sparsity * omega(adapter.router.gates(logits), r.omega)
    if config.adapter.constraint == "penalty":
        loss = loss + share * config.adapter.penalty * adapter.overlap_penalty()
    window.note(rows, nll, batch.n_answer_tokens, exact, this)
    return loss


def _at_last(this: Pass, values: Tensor) -> Float[Tensor, "batch k"]:
    """Router values of each prompt: of its last token, which has seen all of it, if per token."""
    if values.ndim == 2:
        return values
    return values[torch.arange(len(values)), this.last_prompt_column()]


def gate_means(
    names: tuple[str, ...], gates: dict[str, list[Tensor]]
) -> dict[str, dict[str, float]]:
    """Mean gate of each subspace over the prompts of each skill: skill -> subspace -> mean."""
    means = {skill: torch.stack(rows).mean(0).tolist() for skill, rows in gates.items()}
    return {skill: dict(zip(names, mean, strict=True)) for skill, mean in means.items()}
