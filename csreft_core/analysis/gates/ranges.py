"""How far gates move over prompts."""

import pandas as pd


def gate_range(table: pd.DataFrame) -> pd.DataFrame:
    """How far each gate moves over the prompts.

    Args:
        table: `gates_table` of several prompts.

    Returns:
        Columns subspace, lowest, highest, range (all without unit), in the subspaces' order.
    """
    by_subspace = table.groupby("subspace", sort=False)["gate"]
    result = by_subspace.agg(lowest="min", highest="max").reset_index()
    return result.assign(range=result["highest"] - result["lowest"])
