"""Exact Shapley values and interactions from the values of all coalitions. Numbers only."""

import math
from itertools import product

import numpy as np
from jaxtyping import Float


def shapley_values(f: Float[np.ndarray, " pattern"]) -> Float[np.ndarray, " k"]:
    """Shapley values of k players from all 2^k values, see `prompt.shapley_table`.

    Args:
        f: In the order of `itertools.product((0, 1), repeat=k)`, so f[0] is that of nobody.
    """
    k = _players(f)
    sizes, values = _sizes(k), np.zeros(k)
    for i in range(k):
        without = np.flatnonzero(_member(k, i) == 0)
        n = sizes[without]
        weights = [math.factorial(m) * math.factorial(k - m - 1) / math.factorial(k) for m in n]
        values[i] = np.dot(weights, f[without + place_of(i, k)] - f[without])
    return values


def shapley_interactions(f: Float[np.ndarray, " pattern"]) -> Float[np.ndarray, "k k"]:
    """Shapley interaction index of each pair, see `prompt.interactions_table`; 0 on the diagonal.

    Args:
        f: As in `shapley_values`.
    """
    k = _players(f)
    sizes, index = _sizes(k), np.zeros((k, k))
    for i in range(k):
        for j in range(i + 1, k):
            a, b = place_of(i, k), place_of(j, k)
            without = np.flatnonzero((_member(k, i) == 0) & (_member(k, j) == 0))
            parts = f[without + a + b] - f[without + a] - f[without + b] + f[without]
            weights = [
                math.factorial(m) * math.factorial(k - m - 2) / math.factorial(k - 1)
                for m in sizes[without]
            ]
            index[i, j] = index[j, i] = np.dot(weights, parts)
    return index


def _players(f: np.ndarray) -> int:
    k = len(f).bit_length() - 1
    assert len(f) == 2**k, f"{len(f)} values are not those of all patterns"
    return k


def place_of(i: int, k: int) -> int:
    """Place of the pattern in which only gate i is open; places of disjoint patterns add up."""
    return 1 << (k - 1 - i)


def _member(k: int, i: int) -> np.ndarray:
    return (np.arange(2**k) >> (k - 1 - i)) & 1


def _sizes(k: int) -> np.ndarray:
    return np.array([sum(pattern) for pattern in product((0, 1), repeat=k)])
