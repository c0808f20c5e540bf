"""What trained runs say about the claims: composition, routing, the edit itself, its scale.

Each function gives rows of measurements, see `claims.rules.judge_conditions`. Nothing is trained.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from csreft_core.analysis.gates.sources import own_metrics
from csreft_core.analysis.losses import (
    answer_losses,
    answer_tokens,
    per_token,
    rows_by_skill,
    subset,
)
from csreft_core.analysis.states.edits import subspace_coordinates
from csreft_core.analysis.states.projection import energy_shares, points_at, subspace_rows
from csreft_core.analysis.statistics.interval_words import SEEDS
from csreft_core.analysis.statistics.intervals import (
    Units,
    mean_interval,
    ratio_statistic,
    spread,
    units_of,
)
from csreft_core.analysis.statistics.seed_intervals import seed_mean
from csreft_core.analysis.statistics.separation import Estimate
from csreft_core.analysis.subject import Subject

Measurement = dict[str, Any]
PER_SKILL = 30
"""Prompts of each skill that the states and the scaled edits are measured on."""


def composition_gain(subjects: Sequence[Subject]) -> Measurement:
    r"""C3.gain: $\min(L(e_i), L(e_j)) - L(e_i + e_j)$ on prompts that need skills i and j.

    In nats per answer token, the mean over the pairs of skills; above 0 both gates together do
    better than the better one of them. The interval is over the runs, which differ in their seed.
    """
    gains = [_gain(subject) for subject in subjects]
    interval = seed_mean([gain for gain, _ in gains])
    return _row("C3.gain", interval, n=gains[0][1], seeds=len(gains), over=SEEDS)


def _gain(subject: Subject) -> tuple[float, int]:
    """Its mean over the pairs, and the number of prompts."""
    encoded, names = subject.encoded(subject.split("test_two_skills")), subject.adapter.names
    gains = []
    for places in rows_by_skill(encoded).values():
        part = subset(encoded, places)
        tokens, own = answer_tokens(part).sum(), [name in part.rows[0].skills for name in names]
        one, other, both = (
            float(answer_losses(subject, part, gates)[0].sum() / tokens)
            for gates in (*_alone(own), [float(opened) for opened in own])
        )
        gains.append(min(one, other) - both)
    return float(np.mean(gains)), len(encoded.rows)


def _alone(opened: Sequence[bool]) -> list[list[float]]:
    """For each open gate the vector with it alone."""
    places = [i for i, is_open in enumerate(opened) if is_open]
    return [[float(i == place) for i in range(len(opened))] for place in places]


def routing(unlabelled: Sequence[Subject], first_token: Subject | None) -> Measurement:
    """C4.nmi: normalised mutual information of open gates and skill, without labels in training.

    Args:
        unlabelled: Runs whose router learned from the task loss alone, on different seeds.
        first_token: A run with the paper's router, as the control.
    """
    control = float("nan") if first_token is None else _nmi(first_token)[0].value
    estimates = [_nmi(subject) for subject in unlabelled]
    row = over_seeds("C4.nmi", [nmi for nmi, _, _ in estimates], *estimates[0][1:], control=control)
    return row | {"low": max(row["low"], 0.0), "high": min(row["high"], 1.0)}


def _nmi(subject: Subject) -> tuple[Estimate, int, str]:
    """Of the run's own gates, the number of prompts, and what the interval is over."""
    table = own_metrics(subject)
    row = table[table["metric"] == "nmi"].iloc[0]
    nmi = Estimate(float(row["value"]), float(row["low"]), float(row["high"]))
    return nmi, int(row["n"]), str(row["over"])


def over_seeds(
    condition: str, estimates: Sequence[Estimate], n: int, over: str, *, control: float
) -> Measurement:
    """A measurement of runs that differ in their seed: their mean, with an interval over seeds.

    Seeds that all give the same number do not show that the next one will, and each number has an
    interval of its own over the prompts. So the interval is never narrower than the mean of those.
    One run has its own interval, and too few seeds to judge by.
    """
    value, low, high = np.mean([[x.value, x.low, x.high] for x in estimates], axis=0)
    if len(estimates) > 1:
        seeds = seed_mean([estimate.value for estimate in estimates])
        low, high, over = min(low, seeds.low), max(high, seeds.high), f"{SEEDS}, {over}"
    interval = Estimate(float(value), float(low), float(high))
    return _row(condition, interval, n=n, seeds=len(estimates), over=over, control=control)


def edit_in_subspace(subject: Subject) -> list[Measurement]:
    r"""R1: where the edit $h' - h$ lies, and how near $R h'$ comes to its target $W h + b$.

    Shares are of squared length; distances are relative to that from $R h$ to the target. The
    control of the first is a random subspace of the same size, r/d; of the second, no edit, 1.

    Args:
        subject: A run of one subspace; its gate is 1.
    """
    adapter = subject.adapter
    layer, name = adapter.layers[0], adapter.names[0]
    points = points_at(
        subject, subject.split("test", PER_SKILL), subject.trained_gates, layer, "last"
    )
    axes = subspace_rows(adapter, layer, name, "last")
    moved = points.after - points.before
    inside = np.array([energy_shares(row[None], axes).sum() for row in moved])
    coordinates = subspace_coordinates(adapter, points, layer, name)
    left = np.linalg.norm(coordinates.after - coordinates.target, axis=1)
    way = np.linalg.norm(coordinates.before - coordinates.target, axis=1)
    chance = len(axes) / axes.shape[1]
    values = {"R1.inside": (inside, chance), "R1.target": (left / way, 1.0)}
    units = units_of(points.rows)
    return [
        _row(condition, _mean(x, units), n=len(x), seeds=1, over=units.over, control=control)
        for condition, (x, control) in values.items()
    ]


def _mean(values: np.ndarray, units: Units) -> Estimate:
    """Mean over prompts with its interval."""
    mean = spread(ratio_statistic(values[None], np.ones(len(values))), units)
    (low,), (high,) = mean_interval(mean)
    return Estimate(float(mean.value[0]), float(low), float(high))


def scaled_edit(subjects: Sequence[Subject]) -> list[Measurement]:
    """R4: log-probability of the right answers with the edit taken once, and minus once.

    Each minus that of the base, in nats per answer token, paired over the prompts.

    Args:
        subjects: Runs of one subspace, on different seeds.
    """
    by_factor: dict[str, list[Estimate]] = {"R4.with": [], "R4.against": []}
    n, over = 0, ""
    for subject in subjects:
        encoded = subject.encoded(subject.split("test", PER_SKILL))
        units, n = units_of(encoded.rows), len(encoded.rows)
        over = units.over
        base, once, against = (answer_losses(subject, encoded, [c])[0] for c in (0.0, 1.0, -1.0))
        gained = per_token(np.stack([base - once, base - against]), answer_tokens(encoded), units)
        for i, estimates in enumerate(by_factor.values()):
            estimates.append(Estimate(*(float(x[i]) for x in gained)))
    return [
        over_seeds(name, estimates, n, over, control=0.0) for name, estimates in by_factor.items()
    ]


def _row(
    condition: str,
    interval: Estimate,
    *,
    n: int,
    seeds: int,
    over: str,
    control: float = float("nan"),
) -> Measurement:
    return {
        "condition": condition,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "control_value": control,
        "n": n,
        "seeds": seeds,
        "over": over,
    }
