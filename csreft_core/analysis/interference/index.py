"""One number for a matrix of who helps or hurts whom."""

import numpy as np
import pandas as pd


def interference_index(table: pd.DataFrame) -> float:
    r"""Mean harm that a gate does to other skills / mean |change| of the own.

    The harm is $\max(\text{change}, 0)$, or $\max(-\text{change}, 0)$ for the ablation `A`, which
    takes a gate away. 0 where no skill hurts another; 1 where the mean harm to others is as large
    as the mean own effect. A cell that helps counts as 0, so that help cannot hide harm.

    Args:
        table: Columns own (on the diagonal), change and, where there is one, measure.

    Returns:
        No unit; NaN without a diagonal or off-diagonal cell, or where the diagonal is 0.
    """
    own = table["own"].to_numpy(dtype=bool)
    change = table["change"].to_numpy(dtype=float)
    if own.all() or not own.any() or not np.abs(change[own]).any():
        return float("nan")
    ablation = "measure" in table and (table["measure"] == "A").all()
    harm = (-change if ablation else change)[~own].clip(min=0)
    return float(harm.mean() / np.abs(change[own]).mean())
