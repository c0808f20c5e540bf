"""What the edit of one skill writes into, reads from and shares with the subspace of another.

States are those of the edited sites of held-out prompts, gathered by the rule of the adapter's own
positions; the measures are numpy in float64.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float

from csreft_core.analysis.labels import DATA_OVERLAP, READ_LEAK, WRITE_LEAK
from csreft_core.analysis.subject import Subject
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.positions import token_index
from csreft_core.skills.skill_set import Row

_BATCH = 32


def site_states(
    subject: Subject, rows: Sequence[Row], layer: int, group: int = 0, gates: str = "off"
) -> Float[np.ndarray, "site d_model"]:
    """States h at the edited sites of the prompts, before the edit of that layer.

    Args:
        subject: The opened run.
        rows: Prompts.
        layer: An edited layer.
        group: 0, or 1 for the last tokens of an untied edit.
        gates: Gate setting of the forward. `off` gives the states of the base; any other
            differs from it where an earlier layer is edited as well.
    """
    adapter, states = subject.adapter, []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        _, trace = subject.engine.traces(
            adapter,
            subject.prompts_of(part),
            gates,
            layers=(layer,),
            template=subject.template,
            skills=[row.skills for row in part],
        )
        mask = trace.is_token
        groups = adapter.positions.groups(token_index(mask), mask.sum(1))
        states.append(trace.before[layer][groups == group])
    return torch.cat(states).double().numpy()


def write_leak(
    Q_j: Float[np.ndarray, "rank_j d_model"],
    R_i: Float[np.ndarray, "rank_i d_model"],
    c_i: Float[np.ndarray, "site rank_i"],
) -> float:
    r"""$WL_{ij} = E\|Q_j \delta_i\| / E\|\delta_i\|$, in [0, 1] (method.md, 9).

    The part of what edit i writes that lands in subspace j; the mean is over the sites. 0 when
    $R_j R_i^\top = 0$; NaN for an edit that writes nothing.

    Args:
        Q_j: Orthonormal basis of subspace j.
        R_i: Basis of subspace i, as the edit uses it.
        c_i: See `bases.edit_coordinates`.
    """
    size = np.linalg.norm(c_i @ R_i, axis=1).mean()
    landed = np.linalg.norm(c_i @ (R_i @ Q_j.T), axis=1).mean()
    return float(landed / size) if size > 0 else float("nan")


def read_leak(
    W_j: Float[np.ndarray, "rank_j d_model"], Q_i: Float[np.ndarray, "rank_i d_model"]
) -> float:
    r"""$RL_{ij} = \|W_j Q_i^\top\|_F / \|W_j\|_F$, in [0, 1] (method.md, 9).

    The part of what skill j reads that lies in subspace i, which an edit i of an earlier layer or
    site changes. $\sqrt{r/d}$ for a random W_j; NaN where W_j is 0.
    """
    size = np.linalg.norm(W_j)
    return float(np.linalg.norm(W_j @ Q_i.T) / size) if size > 0 else float("nan")


def centred(h: Float[np.ndarray, "site d_model"]) -> Float[np.ndarray, "site d_model"]:
    r"""X with $X^\top X = C$, the covariance of the states; all 0 for a single site."""
    return (h - h.mean(0)) / np.sqrt(max(len(h) - 1, 1))


def data_overlap(
    Q_i: Float[np.ndarray, "rank_i d_model"],
    Q_j: Float[np.ndarray, "rank_j d_model"],
    X: Float[np.ndarray, "site d_model"],
) -> float:
    r"""Overlap with the states' covariance C in the metric, in [0, 1] (own).

    $$ o^C_{ij} = \frac{\|Q_i C Q_j^\top\|_F^2}{\|Q_i C Q_i^\top\|_F\,\|Q_j C Q_j^\top\|_F} $$

    With $A_i = C^{1/2} Q_i^\top$ it is the cosine of $A_i A_i^\top$ and $A_j A_j^\top$, hence at
    most 1; for C = I and equal ranks it is `overlap`. Orthogonal subspaces can have a high one:
    their coordinates then rise and fall together over the prompts. NaN where the states do not
    vary in a subspace.

    Args:
        Q_i: Orthonormal basis of a subspace; the value does not depend on which.
        Q_j: Of the other.
        X: See `centred`.
    """
    A, B = X @ Q_i.T, X @ Q_j.T
    size = np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)
    return float(min(np.square(A.T @ B).sum() / size, 1.0)) if size > 0 else float("nan")


def read_maps(
    adapter: CSReFT, layer: int, group: int
) -> Float[np.ndarray, "k rank d_model"] | None:
    """W of each skill; None for a form without one."""
    W = adapter.at(layer).W
    return None if W is None else W[group].detach().double().cpu().numpy()


def all_leaks(
    R: Float[np.ndarray, "k rank d_model"],
    Q: Sequence[np.ndarray],
    W: Float[np.ndarray, "k rank d_model"] | None,
    c: Float[np.ndarray, "k site rank"],
    X: Float[np.ndarray, "site d_model"],
) -> dict[tuple[int, int], dict[str, float]]:
    """The three measures of each ordered pair (source, target), by name.

    Args:
        R: Bases as the edits use them.
        Q: An orthonormal basis of each.
        W: See `read_maps`.
        c: See `bases.edit_coordinates`.
        X: See `centred`.
    """
    return {
        (i, j): {
            WRITE_LEAK: write_leak(Q[j], R[i], c[i]),
            READ_LEAK: np.nan if W is None else read_leak(W[j], Q[i]),
            DATA_OVERLAP: data_overlap(Q[i], Q[j], X),
        }
        for i, j in permutations(range(len(Q)), 2)
    }
