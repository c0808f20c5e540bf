"""How well features tell the skills apart: silhouette, and a linear probe, each with its control.

Numerics on arrays: no model, no tables. Randomness from a fixed seed, so a table is the same twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from csreft_core.analysis.statistics.intervals import (
    WORDINGS,
    Units,
    mean_interval,
    ratio_statistic,
    share_interval,
    spread,
)

Features = Float[np.ndarray, "point feature"]

_SEED = 0
_FOLDS = 5
_SHUFFLES = 5


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


def silhouette(features: Features, labels: Sequence[str], units: Units) -> Estimate:
    r"""Mean silhouette of the skills, by `sklearn.metrics.silhouette_samples`.

    In [-1, 1]: 1 where each skill is a tight cluster far from the others, 0 where they lie on top
    of each other. The interval is that of a mean of the prompts' own values.

    Args:
        features: Of each prompt.
        labels: Its skill.
        units: What the interval is over.
    """
    if np.ptp(features, axis=0).max() == 0:
        return Estimate(0.0, 0.0, 0.0)
    values = np.asarray(silhouette_samples(features, labels), dtype=float)
    mean = spread(ratio_statistic(values[None], np.ones(len(values))), units)
    (low,), (high,) = mean_interval(mean, -1.0, 1.0)
    return Estimate(float(mean.value[0]), float(low), float(high))


def probe_accuracy(features: Features, labels: Sequence[str], units: Units) -> Estimate:
    """Share of prompts whose skill a linear probe names right, cross-validated.

    Logistic regression on standardised features, up to five folds; each prompt is judged by a probe
    that has not seen it, and where every skill has several wordings, not its wording either. The
    interval is that of a share (`intervals.share_interval`).

    Args:
        features: Of each prompt.
        labels: Its skill.
        units: What the interval is over; their wordings are held out whole.
    """
    y = np.asarray(labels)
    right = (_predictions(features, y, _wordings(y, units)) == y).astype(float)
    mean = spread(ratio_statistic(right[None], np.ones(len(right))), units)
    (low,), (high,) = share_interval(mean)
    return Estimate(float(mean.value[0]), float(low), float(high))


def _wordings(y: np.ndarray, units: Units) -> Int[np.ndarray, " point"] | None:
    """The wording of each prompt; None where a skill has one only, which cannot be held out."""
    level = next((f.level for f in units.factors if f.name == WORDINGS), None)
    if level is None or min(len(set(level[y == skill])) for skill in np.unique(y)) < 2:
        return None
    return level


def _predictions(
    features: Features, y: np.ndarray, groups: Int[np.ndarray, " point"] | None
) -> np.ndarray:
    """What a probe calls each prompt that it has not seen.

    More features than prompts are turned, in each fold anew, onto the directions in which its
    training prompts differ: the penalty knows no directions, so the probe is the same.
    """
    model = make_pipeline(
        StandardScaler(),
        *([PCA(svd_solver="full")] if features.shape[1] > len(features) else []),
        LogisticRegression(max_iter=1000),
    )
    if groups is None:
        folds = min(_FOLDS, int(np.unique(y, return_counts=True)[1].min()))
        split = StratifiedKFold(folds, shuffle=True, random_state=_SEED)
    else:
        folds = min(_FOLDS, *(len(set(groups[y == skill])) for skill in np.unique(y)))
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED)
    return np.asarray(cross_val_predict(model, features, y, cv=split, groups=groups))


def shuffle_control(
    measure: Callable[[Features, Sequence[str], Units], Estimate],
    features: Features,
    labels: Sequence[str],
    units: Units,
) -> Estimate:
    """The same measure after the labels are shuffled: mean, lowest and highest of five shuffles."""
    rng = np.random.default_rng(_SEED)
    values = [
        measure(features, list(rng.permutation(labels)), units).value for _ in range(_SHUFFLES)
    ]
    return Estimate(float(np.mean(values)), min(values), max(values))


def majority_share(labels: Sequence[str]) -> float:
    """What always naming the most frequent skill gets right."""
    return float(np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels))
