"""Which rows a step takes, and how processes and micro-batches share them.

All is a function of its arguments alone, so a resumed training takes the same rows again.
"""

import numpy as np
from jaxtyping import Int

from csreft_core.skills import epoch_order


def step_rows(n: int, size: int, step: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Rows of a step: a walk through one shuffled epoch after another.

    Args:
        n: Rows in all.
        size: Rows of a step.
        step: Counted from 0.
        seed: Of the order.
    """
    first = step * size
    epochs = range(first // n, (first + size - 1) // n + 1)
    order = np.concatenate([epoch_order(n, seed, epoch) for epoch in epochs])
    start = first - (first // n) * n
    return order[start : start + size]


def micro_batches(
    rows: Int[np.ndarray, " batch"], process: int, n_processes: int, accumulate: int
) -> list[Int[np.ndarray, " _part"]]:
    """The part of a step's rows that one process has, in micro-batches that differ by one row.

    Together the processes have each row once. There are fewer than `accumulate` where there are
    fewer rows, and none for a process without a row.
    """
    mine = rows[process::n_processes]
    return [part for part in np.array_split(mine, accumulate) if len(part)]
