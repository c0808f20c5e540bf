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
    "C1.harm": (OWN, OWN),
    "C2.olora": (OWN, "olora"),
    "C2.none": ("joint", "none"),
    "C3.loreft": (OWN, "loreft"),
    "C7.kept": (OWN, OWN),
    "C7.loreft": (OWN, "loreft"),
    "R2.all": ("l1", "all_prompt"),
}
"""Condition -> the method that is judged and its control; labels of `comparison_presets`."""

SAME_RANK = ("C1.loreft", "C3.loreft", "C7.loreft")
"""Conditions whose control must have the same total rank k r."""

_INDEX, _FORGOTTEN, _BOTH, _LOSS = "interference_index", "forgetting", "exact_match", "loss"
_HARM = "change"
_MEASURES = {
    "C1.loreft": _INDEX, "C1.lora": _INDEX, "C1.harm": _HARM, "C2.olora": _INDEX, "C2.none": _INDEX,
    "C3.loreft": _BOTH, "C7.kept": _FORGOTTEN, "C7.loreft": _FORGOTTEN, "R2.all": _LOSS,
}  # fmt: skip


def comparison_measurements(comparisons: Sequence[MethodTables]) -> list[Measurement]:
    """All that comparisons say: each condition from the first one that has both of its methods.

    For `SAME_RANK`, the first one where these have the same total rank.

    A condition whose methods are nowhere finished on the same seed has no row.
    """
    rows = []
    for condition, (own, control) in PAIRS.items():
        for tables in comparisons:
            if condition in SAME_RANK and not _same_rank(tables, own, control):
                continue
            table, n = _by_seed(tables, _MEASURES[condition])
            values, level = _against(table, _MEASURES[condition], own, control)
            if values:
                told = {"control_value": level, "source": source_of(tables.name)}
                rows.append(_measured(condition, values, n) | told)
                break
    return rows


def source_of(comparison: str) -> str:
    """How a measurement names the comparison that it comes from."""
    return f"comparison {comparison}"


def _same_rank(tables: MethodTables, own: str, control: str) -> bool:
    ranks = {tables.total_rank.get(name) for name in (own, control)}
    return len(ranks) == 1 and None not in ranks


def _by_seed(tables: MethodTables, measure: str) -> tuple[pd.DataFrame, int]:
    """The measure of each method and seed, and the fewest prompts behind a number."""
    if measure in (_INDEX, _FORGOTTEN):
        done = tables.cells[tables.cells["state"] == "finished"]
        return done, _fewest(tables.interference)
    if measure == _HARM:
        found = tables.interference
        found = found[found["trained"] != found["evaluated"]]
    else:
        splits = (TWO_SKILLS,) if measure == _BOTH else SINGLE_TESTS
        found = tables.scores[tables.scores["split"].isin(splits)]
    means = found.groupby(["method", "seed"], as_index=False)[[measure]].mean()
    return means, _fewest(found)


def _against(
    table: pd.DataFrame, measure: str, own: str, control: str
) -> tuple[Sequence[float], float]:
    """Own minus control for each seed and the mean of the control; or own alone and NaN."""
    values = {name: table.loc[table["method"] == name, measure].dropna() for name in (own, control)}
    if own == control:
        return values[own].tolist(), float("nan")
    return paired_differences(table, measure, own, control), float(values[control].mean())


def _fewest(table: pd.DataFrame) -> int:
    return 0 if table.empty else int(table["n"].min())


def _measured(condition: str, values: Sequence[float], n: int) -> Measurement:
    interval = seed_mean(values)
    return {
        "condition": condition, "value": interval.value, "low": interval.low,
        "high": interval.high, "n": n, "seeds": len(values), "over": "seeds",
    }  # fmt: skip
