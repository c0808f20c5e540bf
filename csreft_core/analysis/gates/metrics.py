"""What gates tell and how they are used: numbers with their intervals.

Pure functions on arrays; the only randomness is that of the probe's folds, from a fixed seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.special import xlogy
from scipy.stats import entropy
from sklearn.metrics import normalized_mutual_info_score

from csreft_core.analysis.statistics.intervals import (
    Spread,
    mean_interval,
    share_interval,
    spread,
    units_of,
)
from csreft_core.analysis.statistics.separation import probe_accuracy
from csreft_core.skills.skill_set import Row, skill_name

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
SHARES = ("open_share", "matched_accuracy")
"""Metrics that are shares of prompts."""
HIGHEST = {
    "variance": 0.25,
    "entropy": float(np.log(2)),
    "mean_entropy": float(np.log(2)),
    "sharpness": 0.5,
    "active_count": float("inf"),
}
"""The most that a metric can be where it is not 1."""
PROBE = "probe_accuracy"
COUNTS = {"dead_gates": "gates", "always_open_gates": "gates"}


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
    skill: Int[np.ndarray, " prompt"],
    pattern: Int[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "*lead prompt"] | None = None,
) -> Float[np.ndarray, "*lead n_skills n_patterns"]:
    """How many prompts of each skill have each pattern; both are codes from 0.

    Args:
        skill: Of each prompt.
        pattern: Of each prompt.
        weights: How often each prompt counts, for one table or many; None is once.
    """
    shape = int(skill.max()) + 1, int(pattern.max()) + 1
    weights = np.ones(len(skill)) if weights is None else weights
    codes = skill * shape[1] + pattern
    places = csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))),
        shape=(shape[0] * shape[1], len(codes)),
    )
    counts = (places @ weights.reshape(-1, len(codes)).T).T
    return counts.reshape(*weights.shape[:-1], *shape)


def normalised_information(
    counts: Float[np.ndarray, "*lead n_skills n_patterns"],
) -> Float[np.ndarray, "*lead"]:
    r"""NMI $= 2\,I(s; p) / (H(s) + H(p))$ of skill and hard pattern, in [0, 1], no unit.

    1: the open gates tell the skill. 0: they tell nothing, as constant gates must. NaN where all
    prompts have one skill, since there is nothing to tell. Equal to scikit-learn's
    `normalized_mutual_info_score`, for many tables at once (CS-ReFT claims it, our metric).
    """
    skill = entropy(counts.sum(-1), axis=-1)
    pattern = entropy(counts.sum(-2), axis=-1)
    joint = entropy(counts.reshape(*counts.shape[:-2], -1), axis=-1)
    information = np.clip(skill + pattern - joint, 0, None)
    return np.where(skill > 0, 2 * information / np.where(skill > 0, skill + pattern, 1), np.nan)


def matched_accuracy(
    counts: Float[np.ndarray, "*lead n_skills n_patterns"],
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


def information_interval(
    nmi: Spread, counts: Float[np.ndarray, "n_skills n_patterns"]
) -> tuple[Float[np.ndarray, " number"], Float[np.ndarray, " number"]]:
    """Interval of `normalised_information`, honest at 0 and 1 too.

    Student's t, widened by what was never seen: a share u of the prompts (`Units.unseen`) could
    open gates that tell nothing of their skill, or others that tell it.
    """
    u, n = nmi.units.unseen, counts.sum()
    blind = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / n
    telling = np.concatenate([(1 - u) * counts, u * np.diag(counts.sum(1))], axis=1)
    low, high = mean_interval(nmi, 0.0, 1.0)
    return (
        np.fmin(low, normalised_information((1 - u) * counts + u * blind)),
        np.fmax(high, normalised_information(telling)),
    )


def metric_rows(
    gates: Float[np.ndarray, "prompt k"],
    rows: Sequence[Row],
    names: Sequence[str],
    threshold: float,
) -> pd.DataFrame:
    """Every metric of the gates of labelled prompts, with its interval.

    Args:
        gates: In [0, 1].
        rows: The prompts, with their true skills.
        names: Of the subspaces.
        threshold: A gate above it is open.

    Returns:
        Columns metric, subspace (empty for the whole router), value, low, high (NaN where a
        number is no estimate: ranges and counts), n, unit, over.
    """
    n, is_open, units = len(gates), gates > threshold, units_of(rows)
    # ravel: the shape of the inverse differs between versions of numpy.
    pattern = np.unique(is_open, axis=0, return_inverse=True)[1].ravel()
    surprise, skill = gate_entropy(gates), units.skill

    def estimates(weights: np.ndarray) -> np.ndarray:
        return _estimates(gates, surprise, is_open, contingency(skill, pattern, weights), weights)

    metrics = spread(estimates, units)
    keys = [(m, s, unit) for m, unit in PER_GATE.items() for s in names]
    keys += [(metric, "", unit) for metric, unit in WHOLE.items()]
    low, high = _ends(metrics, [metric for metric, _, _ in keys], contingency(skill, pattern))
    lines = [
        (metric, subspace, metrics.value[i], low[i], high[i], n, unit)
        for i, (metric, subspace, unit) in enumerate(keys)
    ]
    nan = float("nan")
    if len(set(skill)) > 1 and np.bincount(skill).min() > 1:
        read = probe_accuracy(gates, [skill_name(row) for row in rows], units)
        lines.append((PROBE, "", read.value, read.low, read.high, n, "share of prompts"))
    for subspace, extent in zip(names, np.ptp(gates, axis=0), strict=True):
        lines.append(("range", subspace, extent, nan, nan, n, "gate"))
    for (metric, unit), gone in zip(COUNTS.items(), (~is_open, is_open), strict=True):
        lines.append((metric, "", float(gone.all(0).sum()), nan, nan, n, unit))
    columns = ["metric", "subspace", "value", "low", "high", "n", "unit"]
    return pd.DataFrame(lines, columns=columns).assign(over=units.over)


def _ends(
    estimates: Spread, metrics: Sequence[str], counts: Float[np.ndarray, "n_skills n_patterns"]
) -> tuple[Float[np.ndarray, " number"], Float[np.ndarray, " number"]]:
    """Lower and upper end of each metric, by what kind of number it is; NaN where it has none."""
    highest = np.array([HIGHEST.get(metric, 1.0) for metric in metrics])
    low, high = mean_interval(estimates, 0.0, highest)
    shares, tells = share_interval(estimates), information_interval(estimates, counts)
    for i, metric in enumerate(metrics):
        if metric in SHARES or metric == "nmi":
            chosen = tells if metric == "nmi" else shares
            low[i], high[i] = chosen[0][i], chosen[1][i]
    gone = np.isnan(estimates.value) | np.isnan(estimates.error)
    return np.where(gone, np.nan, low), np.where(gone, np.nan, high)


def _estimates(
    gates: Float[np.ndarray, "prompt k"],
    surprise: Float[np.ndarray, "prompt k"],
    is_open: Bool[np.ndarray, "prompt k"],
    counts: Float[np.ndarray, "*lead n_skills n_patterns"],
    weights: Float[np.ndarray, "*lead prompt"],
) -> np.ndarray:
    """All estimates of weighted prompts, stacked in the first axis."""
    total = weights.sum(-1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / (total if values.ndim == 1 else total[..., None]))

    usage, unsure = mean(gates), mean(surprise)
    # Around the mean of all, or rounding would give constant gates a variance.
    centred = gates - gates.mean(0)
    variance = mean(centred**2) - mean(centred) ** 2
    per_gate = (np.maximum(variance, 0), unsure, mean(is_open))
    whole = (
        normalised_information(counts),
        matched_accuracy(counts),
        usage_balance(usage),
        unsure.mean(-1),
        mean(np.minimum(gates, 1 - gates).mean(-1)),
        mean(is_open.sum(-1)),
    )
    return np.stack([column for part in per_gate for column in np.moveaxis(part, -1, 0)] + [*whole])


def mean_rows(
    gates: Float[np.ndarray, "prompt k"], rows: Sequence[Row], names: Sequence[str]
) -> pd.DataFrame:
    """Mean gate of each true skill and subspace: skill, subspace, gate, low, high, n, over."""
    lines = []
    skills = pd.Series([skill_name(row) for row in rows])
    for skill, index in skills.groupby(skills, sort=False).indices.items():
        units, own = units_of([rows[i] for i in index]), gates[index]

        def mean(weights: np.ndarray, own: np.ndarray = own) -> np.ndarray:
            return np.moveaxis(weights @ own / weights.sum(-1)[..., None], -1, 0)

        means = spread(mean, units)
        low, high = mean_interval(means, 0.0, 1.0)
        lines += [
            (skill, name, means.value[i], low[i], high[i], len(own), units.over)
            for i, name in enumerate(names)
        ]
    columns = ["skill", "subspace", "gate", "low", "high", "n", "over"]
    return pd.DataFrame(lines, columns=columns)
