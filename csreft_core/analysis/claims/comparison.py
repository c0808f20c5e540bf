"""What a comparison of methods says about the claims, from its tidy tables.

Rows of measurements, see `claims.rules.judge_conditions`. Differences are taken seed by seed; cells
that failed or are missing are left out, and with them their seed.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from csreft_core.analysis.claims.runs import Measurement
from csreft_core.analysis.methods.tables import SINGLE_TESTS, TWO_SKILLS, MethodTables
from csreft_core.analysis.statistics.seed_intervals import paired_differences, seed_mean
from csreft_core.methods.presets import OWN
from csreft_core.reft.base_record import differences

_HARMS = {"": "harm", "_joint": "joint_harm", "_exact": "joint_harm_exact"}
_HARM_PAIRS = {
    "C1.harm": (OWN, OWN),
    "C1.loreft": (OWN, "loreft"),
    "C1.lora": (OWN, "lora"),
    "C2.olora": (OWN, "olora"),
    "C2.positions": ("all_prompt", "olora"),
    "C2.none": ("joint", "none"),
}
PAIRS = {
    **{f"{name}{part}": pair for name, pair in _HARM_PAIRS.items() for part in _HARMS},
    "C3.loreft": (OWN, "loreft"),
    "C7.kept": (OWN, OWN),
    "C7.kept_exact": (OWN, OWN),
    "C7.loreft": (OWN, "loreft"),
    "C7.loreft_exact": (OWN, "loreft"),
    "R2.all": ("l1", "all_prompt"),
    "R2.all_exact": ("l1", "all_prompt"),
}
"""Condition -> the method that is judged and its control; labels of `comparison.presets`."""

SAME_RANK = tuple(name for name in PAIRS if name.partition(".")[2].startswith("loreft"))
"""Conditions whose control must have the same total rank k r."""
ACROSS = tuple(name for name in PAIRS if name.startswith("C2.positions"))
"""Conditions whose two methods stand in two comparisons of the same work."""

_MEASURES = {
    **{f"{name}{part}": harm for name in _HARM_PAIRS for part, harm in _HARMS.items()},
    "C7.kept": "forgetting",
    "C7.kept_exact": "forgetting_exact",
    "C7.loreft": "forgetting",
    "C7.loreft_exact": "forgetting_exact",
}
"""Condition -> column of `cells`; the others are measured on test prompts."""
_SCORES = {
    "C3.loreft": ("exact_match", (TWO_SKILLS,)),
    "R2.all": ("loss", SINGLE_TESTS),
    "R2.all_exact": ("exact_match", SINGLE_TESTS),
}
"""Condition -> column of `scores`, and the splits."""


def comparison_measurements(comparisons: Sequence[MethodTables]) -> list[Measurement]:
    """All that comparisons say: each condition from the first one that has both of its methods.

    For `SAME_RANK`, the first one where these have the same total rank; for `ACROSS`, the first two
    with a method each, if both had the same work to do.

    A condition whose methods are nowhere finished on the same seed has no row.
    """
    rows = []
    for condition, (own, control) in PAIRS.items():
        for tables in _sources(comparisons, condition):
            table, measure, n = _by_seed(tables, condition)
            values, level = _against(table, measure, own, control)
            if values:
                told = {"control_value": level, "source": tables.name}
                rows.append(_measurement(condition, values, n) | told)
                break
    return rows


def _sources(comparisons: Sequence[MethodTables], condition: str) -> list[MethodTables]:
    """The comparisons that a condition can be measured on, named as sources."""
    own, control = PAIRS[condition]
    if condition in ACROSS:
        firsts = [
            next((t for t in comparisons if name in set(t.cells["method"])), None)
            for name in (own, control)
        ]
        one, other = firsts
        if one is None or other is None or one.work != other.work:
            return []
        if differences(one.base_fingerprint, other.base_fingerprint):
            return []
        return [_join(one, own, other, control)]
    return [
        replace(tables, name=source_of(tables.name))
        for tables in comparisons
        if condition not in SAME_RANK or _same_rank(tables, own, control)
    ]


def _join(one: MethodTables, own: str, other: MethodTables, control: str) -> MethodTables:
    """The cells of one method from one comparison and of another from another."""
    parts = {
        name: pd.concat(
            [
                table[table["method"] == method]
                for table, method in ((getattr(one, name), own), (getattr(other, name), control))
            ]
        )
        for name in ("cells", "scores", "interference", "sequential", "conflict")
    }
    sources = dict.fromkeys(source_of(tables.name) for tables in (one, other))
    return replace(one, name=", ".join(sources), **parts)


def source_of(comparison: str) -> str:
    """How a measurement names the comparison that it comes from."""
    return f"comparison {comparison}"


def _same_rank(tables: MethodTables, own: str, control: str) -> bool:
    ranks = {tables.total_rank.get(name) for name in (own, control)}
    return len(ranks) == 1 and None not in ranks


def _by_seed(tables: MethodTables, condition: str) -> tuple[pd.DataFrame, str, int]:
    """The measure of each method and seed, its column, and the fewest prompts behind a number."""
    if condition in _MEASURES:
        done = tables.cells[tables.cells["state"] == "finished"]
        return done, _MEASURES[condition], _fewest(tables.interference)
    measure, splits = _SCORES[condition]
    scores = tables.scores[tables.scores["split"].isin(splits)]
    means = scores.groupby(["method", "seed"], as_index=False)[[measure]].mean()
    return means, measure, _fewest(scores)


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


def _measurement(condition: str, values: Sequence[float], n: int) -> Measurement:
    interval = seed_mean(values)
    return {
        "condition": condition,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "seeds": len(values),
        "over": "seeds",
    }
