"""Means over seeds with their 95 % intervals: of one method, and of the difference of two."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from csreft_core.analysis.statistics.separation import Estimate

LEVEL = 0.95


def seed_mean(values: Sequence[float]) -> Estimate:
    r"""Mean over seeds with its 95 % interval, $\bar x \pm t_{0.975,\,n-1}\, s / \sqrt n$.

    Student's t (1908). A bootstrap of five values would be too narrow. Values that are all equal
    have an interval without width, one value has none (NaN), none gives NaN.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half)


def paired_differences(table: pd.DataFrame, value: str, first: str, second: str) -> Sequence[float]:
    """`first` minus `second` for each seed that both methods have.

    The same seed means the same data order, so differences are taken seed by seed.

    Args:
        table: Columns method, seed and `value`, one row for each method and seed; a missing value
            is NaN.
        value: Which column.
        first: A method.
        second: Another one.
    """
    wide = table.pivot(index="seed", columns="method", values=value)
    if first not in wide or second not in wide:
        return []
    return (wide[first] - wide[second]).dropna().tolist()
