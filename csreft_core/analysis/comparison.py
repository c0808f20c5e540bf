"""The tables of a comparison of methods. No tensors: the folder holds all numbers.

Values that a failed or missing cell does not have are NaN; such a cell stays in `cells`.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.comparison import Comparison

TABLES = ("cells", "scores", "interference", "sequential", "conflict")

CELL_COLUMNS = (
    "method", "seed", "state", "message", "subspaces", "router", "total", "share",
    "base_parameters", "steps", "train_s", "peak_bytes", "tokens_per_s", "interference_index",
    "forgetting", "conflict",
)  # fmt: skip
SCORE_COLUMNS = ("method", "seed", "split", "skill", "loss", "exact_match", "n")
INTERFERENCE_COLUMNS = ("method", "seed", "trained", "evaluated", "change", "before", "n")
SEQUENTIAL_COLUMNS = ("method", "seed", "stage", "trained", "evaluated", "loss", "exact_match")
CONFLICT_COLUMNS = ("method", "seed", "first", "second", "cosine")


def cells(comparison: Comparison) -> pd.DataFrame:
    """One row for each method and seed, also for those that failed or are not done.

    Returns:
        Columns method (label), seed, state (`finished`, `failed`, `missing`), message (why it
        failed), subspaces, router and total (trained parameters; the parts are NaN where a method
        has none), share (of the base's parameters, %), base_parameters, steps, train_s (seconds),
        peak_bytes (of a training step), tokens_per_s (greedy generation), interference_index (no
        unit, see `interference_index`), forgetting (nats an answer token, see `forgetting`),
        conflict (mean cosine of the gradients of two skills).
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
                "interference_index": interference_index(result.get("interference", [])),
                "forgetting": forgetting(result.get("sequential", [])),
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
    """What training on one skill alone does to each skill; change and before in nats a token.

    Validation rows, all parameters trainable, from the untrained start of the method; as in
    `interference.single_skill_table`.
    """
    return _long(comparison, "interference", INTERFERENCE_COLUMNS)


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
    numbers = [c for c in ("loss", "exact_match", "change", "before", "cosine") if c in columns]
    table[numbers] = table[numbers].astype(float)
    return table


def interference_index(rows: list[dict[str, Any]]) -> float:
    r"""Mean positive part of the off-diagonal of I_train over the mean size of its diagonal.

    $\frac{\mathrm{mean}_{i \ne j} \max(I_{ij}, 0)}{\mathrm{mean}_i |I_{ii}|}$: 0 if no skill hurts
    another one, 1 if it hurts as much as training helps. NaN without at least two skills.
    """
    own = [abs(row["change"]) for row in rows if row["trained"] == row["evaluated"]]
    others = [max(row["change"], 0.0) for row in rows if row["trained"] != row["evaluated"]]
    if not own or not others or not any(own):
        return math.nan
    return float(np.mean(others) / np.mean(own))


def forgetting(rows: list[dict[str, Any]]) -> float:
    r"""$\mathrm{mean}_j [L_j(\text{end}) - \min_t L_j(t)]$ over the stages t, in nats a token.

    0 if every skill ends at its best; NaN without stages.
    """
    losses: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        losses.setdefault(row["evaluated"], []).append((row["stage"], row["loss"]))
    if not losses:
        return math.nan
    ends = [max(stages)[1] - min(loss for _, loss in stages) for stages in losses.values()]
    return float(np.mean(ends))


def mean_conflict(rows: list[dict[str, Any]]) -> float:
    """Mean over the pairs of skills whose gradients are not 0; NaN without such a pair."""
    known = [row["cosine"] for row in rows if row["cosine"] is not None]
    return float(np.mean(known)) if known else math.nan
