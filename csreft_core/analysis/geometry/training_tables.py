"""Subspaces over training and over runs as tidy tables: drift, the constraint, other seeds."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from csreft_core.analysis.geometry import metrics as sm
from csreft_core.analysis.geometry.bases import (
    bases_over_training,
    edited_layer,
    subspaces_of,
)
from csreft_core.analysis.labels import (
    ALL_SKILLS,
    BETWEEN_SKILLS,
    DIFFERENT_SKILLS,
    FROM_START,
    RUN,
    SAME_SKILL,
)
from csreft_core.analysis.subject import Subject, beside
from csreft_core.analysis.training import step_table


def drift_table(
    subject: Subject, *, layer: int | None = None, group: int = 0, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How the subspaces turned in training, from the run's snapshots.

    Args:
        subject: The opened run.
        layer: See `pairs_table`.
        group: See `pairs_table`.
        draws: See `pairs_table`.
        seed: See `pairs_table`.

    Returns:
        Columns step (NaN for a control), measure (`from the start`: largest principal angle
        between R_i at this step and at the first snapshot; `between skills`: smallest angle of a
        pair), kind (`run`, a quantile over random pairs, or `float16 resolution`: the largest
        angle that the snapshots' number format alone makes), a, b, angle (radians). Empty
        without snapshots.

    Raises:
        RunError: a snapshot is damaged.
    """
    layer = edited_layer(subject.adapter, layer)
    names, R, Q_end = subspaces_of(subject.adapter, layer, group)
    records: list[tuple] = []
    start: list[np.ndarray] = []
    for step, basis in bases_over_training(subject, layer, group):
        Q = [sm.orthonormal_basis(rows) for rows in basis]
        start = start or Q
        for i, name in enumerate(names):
            turned = sm.principal_angles(start[i], Q[i])[-1]
            records.append((step, FROM_START, RUN, name, "", turned))
        for i, j in combinations(range(len(Q)), 2):
            closest = sm.principal_angles(Q[i], Q[j])[0]
            records.append((step, BETWEEN_SKILLS, RUN, names[i], names[j], closest))
    if records:
        rounded = [sm.orthonormal_basis(rows.astype(np.float16)) for rows in R]
        limit = max(sm.principal_angles(*q)[-1] for q in zip(Q_end, rounded, strict=True))
        records.append((np.nan, FROM_START, "float16 resolution", "", "", limit))
        angles = sm.random_angles(
            np.random.default_rng(seed), draws, sm.at_least_two([R.shape[1]] * len(R)), R.shape[2]
        )
        for place, measure in ((-1, FROM_START), (0, BETWEEN_SKILLS)):
            for kind, value in sm.band([[a[place]] for a in angles]):
                records.append((np.nan, measure, kind, "", "", value[0]))
    return pd.DataFrame(records, columns=["step", "measure", "kind", "a", "b", "angle"])


def training_table(subject: Subject) -> pd.DataFrame:
    """Errors of the constraint over training, from the run's metrics; over all edited layers.

    Returns:
        Columns step, orthonormality_error (largest entry of |R_i R_i^T - I|), constraint_error
        (largest violation of what the constraint promises), overlap (mean over pairs, 0 to 1;
        NaN with one subspace), chance (r/d, the mean overlap of random subspaces), constraint.
        None has a unit. Empty without records.
    """
    records = [] if subject.run is None else subject.run.metrics()
    spec = subject.adapter.spec
    columns = ["step", "orthonormality_error", "constraint_error", "overlap"]
    table = step_table(records)[columns]
    if len(spec.names) == 1:
        table["overlap"] = np.nan
    chance = spec.adapter.rank / spec.d_model
    return table.assign(chance=chance, constraint=spec.adapter.constraint)


def seeds_table(
    subject: Subject,
    *,
    others: Sequence[str] = (),
    layer: int | None = None,
    group: int = 0,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether other runs found the same subspaces: this run's skills against those of others.

    Args:
        subject: The opened run.
        others: Folders of runs of the same base.
        layer: Edited in all of them; None is the first edited layer of this run.
        group: See `pairs_table`.
        draws: Of random pairs, for each pair of ranks.
        seed: Of the draws.

    Returns:
        Columns kind (`same skill`, `different skills`, `all skills together`: the span of all
        rows, or a quantile over random pairs), run, a (skill of this run), b (of the other),
        rank_a, rank_b, the fields of `geometry.metrics.PairMeasures` (angles in radians). A
        random row belongs to the other rows of its ranks. Empty without other runs.

    Raises:
        RunError, AdapterError: a run that is missing or damaged, or of another base.
        ConfigError: a run that does not edit this layer.
    """
    layer = edited_layer(subject.adapter, layer)
    names, R, Q = subspaces_of(subject.adapter, layer, group)
    d, shapes, records = R.shape[2], {}, []
    whole = sm.orthonormal_basis(R.reshape(-1, d))

    def add(kind: str, run: str, a: str, b: str, Q_a: np.ndarray, Q_b: np.ndarray) -> None:
        shapes[len(Q_a), len(Q_b)] = None
        measures = vars(sm.pair_measures(Q_a, Q_b)).values()
        records.append((kind, run, a, b, len(Q_a), len(Q_b), *measures))

    for path in others:
        other = beside(subject, path)
        name = other.name
        their_names, their_R, their_Q = subspaces_of(other.adapter, layer, group, f"run {name!r}")
        for a, Q_a in zip(names, Q, strict=True):
            for b, Q_b in zip(their_names, their_Q, strict=True):
                add(SAME_SKILL if a == b else DIFFERENT_SKILLS, name, a, b, Q_a, Q_b)
        together = sm.orthonormal_basis(their_R.reshape(-1, d))
        add(ALL_SKILLS, name, "all", "all", whole, together)
    rng = np.random.default_rng(seed)
    for ranks in shapes:
        angles = sm.random_angles(rng, draws, ranks, d)
        chance = [list(vars(sm.measures_from_angles(a, ranks, d)).values()) for a in angles]
        records += [(kind, "", "", "", *ranks, *values) for kind, values in sm.band(chance)]
    columns = ["kind", "run", "a", "b", "rank_a", "rank_b", *sm.MEASURES]
    return pd.DataFrame(records, columns=columns)
