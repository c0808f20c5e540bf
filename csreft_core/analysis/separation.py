"""How well features tell the skills apart: silhouette, and a linear probe, each with its control.

Numerics on arrays: no model, no tables. Randomness from a fixed seed, so a table is the same twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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


def silhouette(features: Features, labels: Sequence[str]) -> Estimate:
    r"""Mean silhouette of the skills, by `sklearn.metrics.silhouette_samples`.

    In [-1, 1]: 1 where each skill is a tight cluster far from the others, 0 where they lie on top
    of each other. The interval is a 95 % bootstrap (`scipy.stats.bootstrap`, percentile) over the
    prompts' own values.
    """
    if np.ptp(features, axis=0).max() == 0:
        return Estimate(0.0, 0.0, 0.0)
    values = np.asarray(silhouette_samples(features, labels))
    found = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(_SEED)
    )
    low, high = found.confidence_interval
    return Estimate(float(np.mean(values)), float(low), float(high))


def probe_accuracy(features: Features, labels: Sequence[str]) -> Estimate:
    """Share of prompts whose skill a linear probe names right, cross-validated.

    Logistic regression on standardised features, up to five stratified folds; each prompt is judged
    by a probe that has not seen it. The interval is Wilson's 95 % interval over the prompts
    (`scipy.stats.binomtest`): a bootstrap of a perfect score would have no width.
    """
    y = np.asarray(labels)
    folds = min(_FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    split = StratifiedKFold(folds, shuffle=True, random_state=_SEED)
    named = np.asarray(cross_val_predict(model, features, y, cv=split))
    right = int(np.count_nonzero(named == y))
    interval = binomtest(right, len(y)).proportion_ci(method="wilson")
    return Estimate(right / len(y), float(interval.low), float(interval.high))


def shuffled(
    measure: Callable[[Features, Sequence[str]], Estimate],
    features: Features,
    labels: Sequence[str],
) -> Estimate:
    """The same measure after the labels are shuffled: mean, lowest and highest of five shuffles."""
    rng = np.random.default_rng(_SEED)
    values = [measure(features, list(rng.permutation(labels))).value for _ in range(_SHUFFLES)]
    return Estimate(float(np.mean(values)), min(values), max(values))


def majority_share(labels: Sequence[str]) -> float:
    """What always naming the most frequent skill gets right."""
    return float(np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels))
