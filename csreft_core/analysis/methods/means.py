"""Means over the seeds of a comparison, by method, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.analysis.statistics.seed_intervals import seed_mean
from csreft_core.comparison.folder import label_name
from csreft_core.methods.presets import METHODS

_POSSIBLE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("exact_match", "two_skills", "harm_exact", "joint_harm_exact"), (0.0, 1.0)),
    **dict.fromkeys(("gain_exact", "forgetting_exact"), (-1.0, 1.0)),
}
"""Shares: the interval of their mean ends where they can."""


def methods_of(cells: pd.DataFrame) -> list[str]:
    """The methods of a comparison in the order of `METHODS`, then the others."""
    there = list(dict.fromkeys(cells["method"]))
    return [m for m in METHODS if m in there] + [m for m in there if m not in METHODS]


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of `methods_of`."""
    places = {method: i for i, method in enumerate(methods_of(table))}
    order = table["method"].map(places)
    return (
        table.assign(order=order)
        .sort_values("order", kind="stable", ignore_index=True)
        .drop(columns="order")
    )


def seed_means(table: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """The mean of a column over the seeds of each group: the keys, name, mean, low, high, seeds."""
    rows = []
    for (method, *others), part in groups_of(table, keys):
        mean = seed_mean([float(value) for value in part[column]])
        ends = (mean.value, mean.low, mean.high)
        rows.append((method, label_name(method), *others, *ends, len(part)))
    columns = [keys[0], "name", *keys[1:], column, "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def groups_of(table: pd.DataFrame, keys: list[str]) -> Any:
    """The groups of rows that agree in the keys, in their order."""
    return table.groupby(keys, sort=False, observed=True)


def scores_by_seed(scores: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Mean over skills and splits of each method and seed; n is the number of prompts."""
    chosen = scores[scores["split"].isin(splits)]
    return chosen.groupby(["method", "seed"], as_index=False, sort=False).agg(
        exact_match=("exact_match", "mean"), loss=("loss", "mean"), n=("n", "sum")
    )


def interval_of(name: str, values: pd.Series) -> dict[str, float]:
    """A mean over the seeds with its ends: NAME, NAME_low, NAME_high."""
    mean = seed_mean([float(value) for value in values.dropna()])
    low, high = np.clip([mean.low, mean.high], *_POSSIBLE.get(name, (-np.inf, np.inf)))
    return {name: mean.value, f"{name}_low": float(low), f"{name}_high": float(high)}


def first_known(values: pd.Series) -> float:
    """The first value that is there; NaN where none is."""
    known = values.dropna()
    return float(known.iloc[0]) if len(known) else float("nan")
