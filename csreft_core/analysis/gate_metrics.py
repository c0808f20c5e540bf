"""What gates tell and how they are used: numbers with bootstrap intervals.

Pure functions on arrays; the only randomness is that of the bootstrap, from a fixed seed.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.special import xlogy
from scipy.stats import bootstrap, entropy
from sklearn.metrics import normalized_mutual_info_score

N_RESAMPLES = 1000
# Per subspace first, then of the whole router: the order in which `_estimates` stacks them.
PER_GATE = {"variance": "gate squared", "entropy": "nats", "open_share": "share of prompts"}
WHOLE = {
    "nmi": "no unit",
    "matched_accuracy": "share of prompts",
    "usage_balance": "no unit",
    "mean_entropy": "nats",
    "sharpness": "gate",
    "active_count": "gates",
}
COUNTS = {"dead_gates": "gates", "always_open_gates": "gates"}


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


def gate_skill_nmi(table: pd.DataFrame, threshold: float = 0.5) -> float:
    """Normalised mutual information of the set of open gates and the true skill.

    Args:
        table: `gates_table` with skills.
        threshold: A gate above it is open.

    Returns:
        0 (the open gates tell nothing about the skill) to 1 (they tell it). NaN where the prompts
        have fewer than two skills: there is nothing to tell. Prompts without a skill do not count.
    """
    table = table[table["skill"] != ""]
    if table["skill"].nunique() < 2:
        return float("nan")
    copy = table.groupby(["prompt", "skill", "subspace"], sort=False).cumcount()
    opened = table.assign(is_open=table["gate"] > threshold, copy=copy)
    patterns = opened.groupby(["prompt", "skill", "copy"], sort=False)["is_open"].agg(tuple)
    skills = patterns.index.get_level_values("skill")
    return float(normalized_mutual_info_score(list(skills), [str(p) for p in patterns]))


def patterns(is_open: Bool[np.ndarray, "prompt k"], names: Sequence[str]) -> list[str]:
    """The open gates of each prompt as text, such as `french+plural`; `none` where all are shut."""
    named = np.array(names, dtype=object)
    return ["+".join(named[row]) or "none" for row in is_open]


def contingency(
    skill: Int[np.ndarray, "*lead prompt"], pattern: Int[np.ndarray, "*lead prompt"]
) -> Int[np.ndarray, "*lead n_skills n_patterns"]:
    """How many prompts of each skill have each pattern; both are codes from 0."""
    shape = int(skill.max()) + 1, int(pattern.max()) + 1
    codes = (skill * shape[1] + pattern).reshape(-1, skill.shape[-1])
    counts = [np.bincount(row, minlength=shape[0] * shape[1]) for row in codes]
    return np.stack(counts).reshape(*skill.shape[:-1], *shape)


def normalised_information(
    counts: Int[np.ndarray, "*lead n_skills n_patterns"],
) -> Float[np.ndarray, "*lead"]:
    r"""NMI $= 2\,I(s; p) / (H(s) + H(p))$ of skill and hard pattern, in [0, 1], no unit.

    1: the open gates tell the skill. 0: they tell nothing, as constant gates must. NaN where all
    prompts have one skill, since there is nothing to tell. Equal to scikit-learn's
    `normalized_mutual_info_score`, for many tables at once (CS-ReFT claims it, our metric).
    """
    skills = entropy(counts.sum(-1), axis=-1)
    found = entropy(counts.sum(-2), axis=-1)
    joint = entropy(counts.reshape(*counts.shape[:-2], -1), axis=-1)
    information = np.clip(skills + found - joint, 0, None)
    return np.where(skills > 0, 2 * information / np.where(skills > 0, skills + found, 1), np.nan)


def matched_accuracy(
    counts: Int[np.ndarray, "*lead n_skills n_patterns"],
) -> Float[np.ndarray, "*lead"]:
    """Share of prompts that are right when each skill is given its own pattern, the best way.

    Hungarian matching, so the names of the subspaces do not matter. In [0, 1]; constant gates
    reach the share of the largest skill (our metric).
    """
    tables = counts.reshape(-1, *counts.shape[-2:])
    right = [table[linear_sum_assignment(table, maximize=True)].sum() for table in tables]
    return (np.array(right) / tables.sum((-1, -2))).reshape(counts.shape[:-2])


def gate_entropy(gates: Float[np.ndarray, "*lead"]) -> Float[np.ndarray, "*lead"]:
    r"""$H_b = -\alpha\ln\alpha - (1-\alpha)\ln(1-\alpha)$ nats of each gate on its own.

    In [0, ln 2]: 0 for a gate of 0 or 1, ln 2 for one half. Gates are independent (they need not
    sum to 1), so this is not the entropy of a softmax. Gates outside [0, 1] are clipped.
    """
    p = np.clip(gates, 0, 1)
    return -(xlogy(p, p) + xlogy(1 - p, 1 - p))


def usage_balance(mean_gates: Float[np.ndarray, "*lead k"]) -> Float[np.ndarray, "*lead"]:
    r"""$H(\bar\alpha / \sum\bar\alpha) / \ln k$ in [0, 1]: 1 when all subspaces are used alike.

    0 when one alone is used; NaN for one subspace, or where every gate is 0.
    """
    k, used = mean_gates.shape[-1], mean_gates.sum(-1) > 0
    safe = np.where(used[..., None], mean_gates, 1.0)
    balance = entropy(safe, axis=-1) / np.log(k) if k > 1 else np.full(used.shape, np.nan)
    return np.where(used, balance, np.nan)


def bootstrap_interval(
    statistic: Callable[..., np.ndarray], *groups: Int[np.ndarray, " _"]
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval over prompts (`scipy.stats.bootstrap`).

    Args:
        statistic: From indices of prompts, resampled along the last axis, to numbers; several
            numbers stand in the first axis.
        groups: Indices that are resampled independently, such as the prompts of each skill.

    Returns:
        Lower and upper end; NaN where a group has a single prompt.
    """
    plain = np.asarray(statistic(*groups, axis=-1))
    if min(len(group) for group in groups) < 2:
        return np.full_like(plain, np.nan), np.full_like(plain, np.nan)

    def without_nan(*index: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.nan_to_num(statistic(*index, axis=axis))

    # BCa has no value for a statistic that does not vary, such as the variance of constant gates.
    found = bootstrap(
        groups,
        without_nan,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=200,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    defined = np.where(np.isnan(plain), np.nan, 0.0)
    return found.low + defined, found.high + defined


def metric_rows(
    gates: Float[np.ndarray, "prompt k"],
    skills: Sequence[str],
    names: Sequence[str],
    threshold: float,
) -> pd.DataFrame:
    """Every metric of the gates of labelled prompts, with its interval.

    Args:
        gates: In [0, 1].
        skills: True skill of each prompt; equal texts are one skill.
        names: Of the subspaces.
        threshold: A gate above it is open.

    Returns:
        Columns metric, subspace (empty for the whole router), value, low, high (NaN where a
        number is no estimate: ranges and counts), n, unit.
    """
    n, is_open = len(gates), gates > threshold
    skill = pd.factorize(np.array(skills))[0]
    # ravel: the shape of the inverse differs between versions of numpy.
    pattern = np.unique(is_open, axis=0, return_inverse=True)[1].ravel()

    def estimates(*groups: np.ndarray, axis: int = -1) -> np.ndarray:
        index = np.concatenate(groups, axis)
        return _estimates(gates[index], is_open[index], skill[index], pattern[index])

    # The number of prompts of each skill was chosen, not drawn: resample inside each.
    groups = [np.flatnonzero(skill == code) for code in range(skill.max() + 1)]
    value, (low, high) = estimates(*groups), bootstrap_interval(estimates, *groups)
    keys = [(m, s, unit) for m, unit in PER_GATE.items() for s in names]
    keys += [(metric, "", unit) for metric, unit in WHOLE.items()]
    rows = [
        (metric, subspace, value[i], low[i], high[i], n, unit)
        for i, (metric, subspace, unit) in enumerate(keys)
    ]
    nan = float("nan")
    for subspace, extent in zip(names, np.ptp(gates, axis=0), strict=True):
        rows.append(("range", subspace, extent, nan, nan, n, "gate"))
    for (metric, unit), gone in zip(COUNTS.items(), (~is_open, is_open), strict=True):
        rows.append((metric, "", float(gone.all(0).sum()), nan, nan, n, unit))
    return pd.DataFrame(rows, columns=["metric", "subspace", "value", "low", "high", "n", "unit"])


def _estimates(
    gates: Float[np.ndarray, "*lead prompt k"],
    is_open: Bool[np.ndarray, "*lead prompt k"],
    skill: Int[np.ndarray, "*lead prompt"],
    pattern: Int[np.ndarray, "*lead prompt"],
) -> np.ndarray:
    """All estimates of one sample or of many, stacked in the first axis."""
    counts = contingency(skill, pattern)
    surprise, usage = gate_entropy(gates), gates.mean(-2)
    per_gate = (gates.var(-2), surprise.mean(-2), is_open.mean(-2))
    whole = (
        normalised_information(counts),
        matched_accuracy(counts),
        usage_balance(usage),
        surprise.mean((-1, -2)),
        np.minimum(gates, 1 - gates).mean((-1, -2)),
        is_open.sum(-1).mean(-1),
    )
    return np.stack([column for part in per_gate for column in np.moveaxis(part, -1, 0)] + [*whole])


def mean_rows(
    gates: Float[np.ndarray, "prompt k"], skills: Sequence[str], names: Sequence[str]
) -> pd.DataFrame:
    """Mean gate of each true skill and subspace: skill, subspace, gate, low, high, n."""
    found = []
    for skill, index in (
        pd.Series(range(len(gates))).groupby(list(skills), sort=False).indices.items()
    ):
        own = gates[index]

        def mean(places: np.ndarray, axis: int = -1, own: np.ndarray = own) -> np.ndarray:
            return np.moveaxis(own[places].mean(axis - 1), -1, 0)

        low, high = bootstrap_interval(mean, np.arange(len(own)))
        found += [
            (skill, name, own[:, i].mean(), low[i], high[i], len(own))
            for i, name in enumerate(names)
        ]
    return pd.DataFrame(found, columns=["skill", "subspace", "gate", "low", "high", "n"])
