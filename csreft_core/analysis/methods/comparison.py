"""The tables of a comparison of methods. No tensors: the folder holds all numbers.

Values that a failed or missing cell does not have are NaN; such a cell stays in `cells`.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.comparison.folder import JOINT, UNTRAINED, Comparison, start_of

TABLES = ("cells", "scores", "interference", "sequential", "conflict")

CELL_COLUMNS = (
    "method",
    "seed",
    "state",
    "message",
    "subspaces",
    "router",
    "total",
    "share",
    "base_parameters",
    "steps",
    "train_s",
    "peak_bytes",
    "tokens_per_s",
    "harm",
    "harm_exact",
    "joint_harm",
    "joint_harm_exact",
    "gain",
    "gain_exact",
    "to_gain",
    "forgetting",
    "forgetting_exact",
    "conflict",
)
SCORE_COLUMNS = ("method", "seed", "split", "skill", "loss", "exact_match", "n")
INTERFERENCE_COLUMNS = (
    "method",
    "seed",
    "start",
    "trained",
    "evaluated",
    "change",
    "before",
    "exact_change",
    "exact_before",
    "n",
)
SEQUENTIAL_COLUMNS = ("method", "seed", "stage", "trained", "evaluated", "loss", "exact_match")
CONFLICT_COLUMNS = ("method", "seed", "first", "second", "cosine")

_NUMBERS = {"loss", "exact_match", "change", "before", "exact_change", "exact_before", "cosine"}


def cells(comparison: Comparison) -> pd.DataFrame:
    """One row for each method and seed, also for those that failed or are not done.

    Returns:
        Columns method (label), seed, state (`finished`, `failed`, `missing`), message (why it
        failed), subspaces, router and total (trained parameters; the parts are NaN where a method
        has none), share (of the base's parameters, %), base_parameters, steps, train_s (seconds),
        peak_bytes (of a training step), tokens_per_s (greedy generation). Of training on one skill
        alone, from the untrained start: harm to the others and gain of its own (nats an answer
        token), harm_exact and gain_exact (exact match, 0 to 1), to_gain (the own loss before); from
        the joint start: joint_harm and joint_harm_exact; see `harm` and `gain`. forgetting (nats)
        and forgetting_exact, see `forgetting`; conflict (mean cosine of the gradients of two
        skills).
    """
    rows = []
    for method, seed in comparison.cells():
        result = comparison.result(method, seed) or {"state": "missing"}
        counts = result.get("parameters", {})
        total, base = counts.get("total"), result.get("base_parameters")
        rows.append(
            {
                "method": method,
                "seed": seed,
                "state": result["state"],
                "message": result.get("message", ""),
                **{part: counts.get(part) for part in ("subspaces", "router", "total")},
                "share": 100 * total / base if total and base else None,
                "base_parameters": base,
                **{
                    name: result.get(name)
                    for name in ("steps", "train_s", "peak_bytes", "tokens_per_s")
                },
                **_one_skill_alone(result.get("interference", [])),
                "forgetting": forgetting(result.get("sequential", [])),
                "forgetting_exact": forgetting(result.get("sequential", []), "exact_match"),
                "conflict": mean_conflict(result.get("conflict", [])),
            }
        )
    table = pd.DataFrame(rows, columns=list(CELL_COLUMNS))
    numbers = [name for name in CELL_COLUMNS if name not in ("method", "state", "message", "seed")]
    table[numbers] = table[numbers].astype(float)
    return table


def scores(comparison: Comparison) -> pd.DataFrame:
    """Held-out scores under the gates of the training: loss in nats a token, exact_match 0 to 1."""
    return _long(comparison, "scores", SCORE_COLUMNS)


def interference(comparison: Comparison) -> pd.DataFrame:
    """What training on one skill alone does to each skill, from each start.

    Validation rows, all parameters trainable. From `untrained`, the method's own start, as in
    `interference.single_skill_table`; from `joint`, the end of the training on all skills. change
    and before in nats a token; exact_change and exact_before in exact match, 0 to 1.
    """
    table = _long(comparison, "interference", INTERFERENCE_COLUMNS)
    return table.assign(
        start=table["start"].astype(object).where(table["start"].notna(), UNTRAINED)
    )


def sequential(comparison: Comparison) -> pd.DataFrame:
    """Validation scores of every skill after each stage, when skills come one after another."""
    return _long(comparison, "sequential", SEQUENTIAL_COLUMNS)


def conflict(comparison: Comparison) -> pd.DataFrame:
    """Cosine of the gradients of two skills on all trained parameters, half-way in training."""
    return _long(comparison, "conflict", CONFLICT_COLUMNS)


def _long(comparison: Comparison, part: str, columns: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        {"method": method, "seed": seed, **row}
        for method, seed in comparison.cells()
        for row in (comparison.result(method, seed) or {}).get(part, [])
    ]
    table = pd.DataFrame(rows, columns=list(columns))
    numbers = [c for c in columns if c in _NUMBERS]
    table[numbers] = table[numbers].astype(float)
    return table


def _one_skill_alone(rows: list[dict[str, Any]]) -> dict[str, float]:
    untrained = [row for row in rows if start_of(row) == UNTRAINED]
    joint = [row for row in rows if start_of(row) == JOINT]
    before = [row["before"] for row in untrained if row["trained"] == row["evaluated"]]
    return {
        "harm": harm(untrained),
        "harm_exact": harm(untrained, "exact_change"),
        "joint_harm": harm(joint),
        "joint_harm_exact": harm(joint, "exact_change"),
        "gain": gain(untrained),
        "gain_exact": gain(untrained, "exact_change"),
        "to_gain": _mean(np.array(before, dtype=float)),
    }


def harm(rows: list[dict[str, Any]], change: str = "change") -> float:
    r"""How much training on one skill alone worsens another one, the mean over the pairs.

    $\mathrm{mean}_{i \ne j} \max(I_{ij}, 0)$, with i the trained skill; for the exact match
    $\max(-I_{ij}, 0)$, since there less is worse. A pair that is helped counts as 0, so that help
    cannot hide harm.

    Args:
        rows: Of one start: trained, evaluated and the change.
        change: `change` (nats a token) or `exact_change` (0 to 1).

    Returns:
        0 or above; NaN without a pair, or where the change is not known.
    """
    worse = 1 if change == "change" else -1
    others = [row.get(change) for row in rows if row["trained"] != row["evaluated"]]
    return _mean(np.maximum(worse * np.array(others, dtype=float), 0))


def gain(rows: list[dict[str, Any]], change: str = "change") -> float:
    r"""How much training on one skill alone improves that skill, the mean over the skills.

    $-\mathrm{mean}_i I_{ii}$ in nats a token, $\mathrm{mean}_i I_{ii}$ in exact match; below 0
    if training makes it worse. Arguments as for `harm`.
    """
    better = -1 if change == "change" else 1
    own = [row.get(change) for row in rows if row["trained"] == row["evaluated"]]
    return _mean(better * np.array(own, dtype=float))


def forgetting(rows: list[dict[str, Any]], score: str = "loss") -> float:
    r"""How much worse a skill is at the end than at its best before, when others followed it.

    $\mathrm{mean}_{j < k} [L_j(k) - \min_{t < k} L_j(t)]$ over the stages 1 to k, and
    $\max_{t < k} E_j(t) - E_j(k)$ for the exact match; without the skill of the last stage, which
    nothing follows. Below 0 if learning the others has helped. Chaudhry et al. 2018, Riemannian
    Walk for Incremental Learning, who define it for the accuracy.

    Args:
        rows: stage, trained, evaluated, loss, exact_match.
        score: `loss` (nats a token) or `exact_match` (0 to 1).

    Returns:
        NaN without two stages.
    """
    last = max((row["stage"] for row in rows), default=0)
    followed = {row["trained"] for row in rows if row["stage"] < last}
    worse = 1 if score == "loss" else -1
    losses = []
    for skill in sorted(followed):
        own = sorted((row["stage"], row[score]) for row in rows if row["evaluated"] == skill)
        scores = worse * np.array([value for _, value in own], dtype=float)
        losses.append(scores[-1] - scores[:-1].min())
    return _mean(np.array(losses))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def mean_conflict(rows: list[dict[str, Any]]) -> float:
    """Mean over the pairs of skills whose gradients are not 0; NaN without such a pair."""
    known = [row["cosine"] for row in rows if row["cosine"] is not None]
    return float(np.mean(known)) if known else math.nan
