"""The loss of a batch: the answers' tokens, the router's terms and the overlap penalty."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Pass, request
from csreft_core.attachment.start import Start
from csreft_core.config import Config
from csreft_core.inference.scoring import answer_scores, row_labels
from csreft_core.reft.router import omega, supervision_loss
from csreft_core.reft.tuning import Tuning
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row, skill_name


@dataclass
class Window:
    """What has happened since the last record."""

    scores: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    gates: dict[str, list[Tensor]] = field(default_factory=dict)
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    @classmethod
    def merge(cls, windows: Sequence["Window"]) -> "Window":
        """The windows of all processes as one; each has counted the tokens of all."""
        whole = cls(tokens=windows[0].tokens, since=windows[0].since)
        for window in windows:
            for skill, scores in window.scores.items():
                whole.scores.setdefault(skill, []).extend(scores)
            for skill, gates in window.gates.items():
                whole.gates.setdefault(skill, []).extend(gates)
        return whole

    def note(
        self, rows: Sequence[Row], nll: Tensor, n_tokens: Tensor, exact: Tensor, forward_pass: Pass
    ) -> None:
        """Keep the scores and the gates of a batch, for the next record."""
        scores = zip(rows, nll.tolist(), n_tokens.double().tolist(), exact.tolist(), strict=True)
        for row, loss, n, right in scores:
            self.scores.setdefault(skill_name(row), []).append((loss, n, right))
        if forward_pass.gates is None:
            return
        for row, alpha in zip(rows, forward_pass.prompt_gates().detach().cpu(), strict=True):
            self.gates.setdefault(skill_name(row), []).append(alpha)


def batch_loss(
    attachment: Attachment,
    adapter: Tuning,
    config: Config,
    rows: Sequence[Row],
    examples: Sequence[Example],
    *,
    n_tokens: int,
    n_rows: int,
    window: Window,
    start: Start | None = None,
    usage: Float[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    r"""The share that a micro-batch has in the loss of a step; the shares add up to it.

    $$ L = \frac{1}{n_\text{tokens}} \sum -\ln p + \lambda_s L_\text{supervision}
       + \lambda_\Omega\, \Omega(\alpha) + \lambda_\perp P $$

    (CS-ReFT, section 3.3, where the second and fourth terms are this project's.) P is the method's
    `overlap_penalty`, such as $\sum_{i<j} \|R_i R_j^\top\|_F^2$; methods without a router have
    neither the second nor the third term.

    Args:
        rows: The micro-batch, with its `examples`.
        n_tokens: Answer tokens of the whole step, over all micro-batches of all processes.
        n_rows: Rows of the whole step.
        window: Takes note of the scores and gates.
        start: What is known of the batch, if anything.
        usage: Mean gates of the whole step, if this is not all of it (see `is_global`).

    Returns:
        The loss in nats per answer token, plus the weighted terms.
    """
    base, r = attachment.base, config.router
    batch = collate(examples, base.pad_id).to(base.device)
    labels = row_labels(rows, adapter.names).to(base.device)
    req = request(adapter, r.gates, labels)
    nll, exact, forward_pass = answer_scores(attachment, req, batch, start)
    loss = nll.sum() / n_tokens
    share = len(rows) / n_rows
    if adapter.router is not None and forward_pass.logits is not None:
        logits = forward_pass.of_prompts(forward_pass.logits)
        if r.supervision > 0:
            loss = loss + share * r.supervision * supervision_loss(logits, labels, r.gate)
        if r.sparsity > 0:
            gates = adapter.router.gates(logits)
            loss = loss + share * r.sparsity * _omega(gates, r.omega, usage)
    if adapter.penalty_weight > 0:
        loss = loss + share * adapter.penalty_weight * adapter.overlap_penalty()
    window.note(rows, nll, batch.n_answer_tokens, exact, forward_pass)
    return loss


def is_global(config: Config) -> bool:
    """Whether the loss has a term that is no mean over rows: `balance` looks at the step's mean."""
    return config.router.omega == "balance" and config.router.sparsity > 0


def _omega(
    gates: Float[Tensor, "batch k"],
    kind: Literal["l1", "entropy", "balance"],
    usage: Float[Tensor, " k"] | None,
) -> Float[Tensor, ""]:
    r"""The regulariser; for a part of a step, the part's share in the whole step's.

    `l1` and `entropy` are means over rows. `balance` is $f(\bar\alpha)$ of the mean gates of the
    step. A part with mean $\bar\alpha_m$ contributes
    $f(\bar\alpha) + \nabla f(\bar\alpha)^\top (\bar\alpha_m - \bar\alpha)$: weighted by their rows,
    the parts give the value and the gradient of the whole.
    """
    if usage is None:
        return omega(gates, kind)
    mean = usage.detach().requires_grad_()
    whole = omega(mean.unsqueeze(0), kind)
    (slope,) = torch.autograd.grad(whole, mean)
    return whole.detach() + (gates.mean(0) - usage) @ slope


@torch.no_grad()
def total_gates(
    attachment: Attachment,
    adapter: Tuning,
    rows: Sequence[Row],
    examples: Sequence[Example],
    start: Start | None = None,
) -> Float[Tensor, " k"]:
    """Sum of the router's gates over a micro-batch; no block above the router's layer runs."""
    assert adapter.router is not None
    batch = collate(examples, attachment.base.pad_id).to(attachment.base.device)
    labels = row_labels(rows, adapter.names).to(attachment.base.device)
    _, forward_pass = attachment.forward(
        request(adapter, adapter.spec.router.gates, labels),
        **batch.inputs,
        prompt_mask=batch.prompt_mask,
        start=start,
        last_block=adapter.spec.router.layer,
        logits_to_keep=1,
        use_cache=False,
    )
    assert forward_pass.logits is not None
    return adapter.router.gates(forward_pass.of_prompts(forward_pass.logits)).sum(0)
