"""What a comparison of methods says about the claims, from its tidy tables.

Rows of measurements, see `claim_rules.judge_conditions`. Differences are taken seed by seed; cells
that failed or are missing are left out, and with them their seed.
"""

from collections.abc import Sequence

import pandas as pd

from csreft_core.analysis.claim_runs import Measurement
from csreft_core.analysis.methods import SINGLE_TESTS, TWO_SKILLS, MethodTables
from csreft_core.analysis.seed_intervals import paired_differences, seed_mean

OWN = "csreft"
PAIRS = {
    "C1.loreft": (OWN, "loreft"),
    "C1.lora": (OWN, "lora"),
    "C2.olora": (OWN, "olora"),
    "C2.none": ("joint", "none"),
    "C3.loreft": (OWN, "loreft"),
    "C7.kept": (OWN, OWN),
    "C7.loreft": (OWN, "loreft"),
    "R2.all": ("l1", "all_prompt"),
}
"""Condition -> the method that is judged and its control; labels of `comparison_presets`."""

_INDEX, _FORGOTTEN, _BOTH, _LOSS = "interference_index", "forgetting", "exact_match", "loss"
_MEASURES = {
    "C1.loreft": _INDEX, "C1.lora": _INDEX, "C2.olora": _INDEX, "C2.none": _INDEX,
    "C3.loreft": _BOTH, "C7.kept": _FORGOTTEN, "C7.loreft": _FORGOTTEN, "R2.all": _LOSS,
}  # fmt: skip


def comparison_measurements(comparisons: Sequence[MethodTables]) -> list[Measurement]:
    """All that comparisons say: each condition from the first one that has both of its methods.

    A condition whose methods are nowhere finished on the same seed has no row.
    """
    rows = []
    for condition, (own, control) in PAIRS.items():
        for tables in comparisons:
            values, n = _values(tables, _MEASURES[condition], own, control)
            if values:
                source = {"source": f"comparison {tables.name}"}
                rows.append(_measured(condition, values, n) | source)
                break
    return rows


def _values(
    tables: MethodTables, measure: str, own: str, control: str
) -> tuple[Sequence[float], int]:
    """Own minus control for each seed, or own alone; and the fewest prompts behind a cell."""
    done = tables.cells[tables.cells["state"] == "finished"]
    if measure == _BOTH:
        scores = tables.scores[tables.scores["split"] == TWO_SKILLS]
    else:
        scores = tables.scores[tables.scores["split"].isin(SINGLE_TESTS)]
    if measure in (_INDEX, _FORGOTTEN):
        table, n = done, _fewest(tables.interference)
    else:
        table = scores.groupby(["method", "seed"], as_index=False)[[measure]].mean()
        n = _fewest(scores)
    if own == control:
        return done.loc[done["method"] == own, measure].dropna().tolist(), n
    return paired_differences(table, measure, own, control), n


def _fewest(table: pd.DataFrame) -> int:
    return 0 if table.empty else int(table["n"].min())


def _measured(condition: str, values: Sequence[float], n: int) -> Measurement:
    interval = seed_mean(values)
    return {
        "condition": condition, "value": interval.value, "low": interval.low,
        "high": interval.high, "control_value": float("nan"), "n": n, "seeds": len(values),
        "over": "seeds",
    }  # fmt: skip
