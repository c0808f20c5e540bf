"""One gate against one skill: the losses before and after, their index, and subspace overlap.

No tables and no files.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.analysis.geometry.metrics import orthonormal_basis, overlap
from csreft_core.analysis.losses import losses_under
from csreft_core.analysis.subject import Subject, beside
from csreft_core.errors import ConfigError
from csreft_core.inference.scoring import Encoded, row_labels
from csreft_core.reft.adapter import CSReFT


def start_gates(subject: Subject, encoded: Encoded, measure: str) -> Float[Tensor, "row k"]:
    """Gates before one is changed: closed for `S`, the own for `I_on`, as trained for `A`.

    Raises:
        ConfigError: `A` with a router per token, whose gates are no one vector a prompt.
    """
    if measure == "S":
        return torch.zeros(len(encoded.rows), subject.adapter.n_subspaces)
    if measure == "I_on":
        return row_labels(encoded.rows, subject.adapter.names)
    per_token = subject.adapter.spec.router.granularity == "per_token"
    if subject.trained_gates == "learned" and per_token:
        raise ConfigError(
            "this router decides at every token, so a prompt has no one gate to close; "
            "choose the measure S or I_on"
        )
    return subject.gates(encoded.rows, subject.trained_gates)


def switched(
    subject: Subject, encoded: Encoded, start: Float[Tensor, "row k"], measure: str
) -> tuple[Float[np.ndarray, "gate row"], Float[np.ndarray, "gate row"]]:
    """Losses before and after each gate is changed: closed for `A`, else opened.

    Args:
        subject: The opened run.
        encoded: The rows.
        start: See `start_gates`.
        measure: `I_on`, `S` or `A`.
    """
    settings = [start]
    for i in range(start.shape[1]):
        changed = start.clone()
        changed[:, i] = 0 if measure == "A" else 1 - start[:, i]
        settings.append(changed)
    loss, *others = (nll for nll, _ in losses_under(subject, encoded, settings))
    if measure == "A":
        return np.stack([loss] * len(others)), np.stack(others)
    is_open = start.numpy().T == 1
    return np.where(is_open, others, loss), np.where(is_open, loss, others)


def overlaps(adapter: CSReFT) -> Float[np.ndarray, "k k"]:
    """Normalised overlap of each pair of subspaces, the mean over layers and position groups.

    See `geometry.metrics.overlap`: in [0, 1], 1 on the diagonal, r/d between random subspaces.
    """
    matrices = []
    for layer in adapter.layers:
        with torch.no_grad():
            groups = adapter.at(layer).basis().double().cpu().numpy()
        for group in groups:
            Q = [orthonormal_basis(R) for R in group]
            matrices.append([[overlap(a, b) for b in Q] for a in Q])
    return np.mean(matrices, axis=0)


def comparable(subject: Subject, path: str) -> Subject:
    """Another run with the same template and so the same prompts, so that losses compare."""
    other = beside(subject, path)
    if other.template != subject.template:
        raise ConfigError(
            f"run {other.name!r} was trained with another template, so its losses do not compare"
        )
    return other
