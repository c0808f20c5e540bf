"""States without and with the adapter as tidy tables: where they lie and what the edit moves.

`states.sentences` says what the tables show; `projection`, `edits` and `separation` hold the
numerics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.analysis.geometry.metrics import orthonormal_rows
from csreft_core.analysis.labels import (
    BASE_STATES,
    EDIT,
    EDIT_ON_BASE_AXES,
    MAJORITY,
    PROBE,
    SHUFFLED_LABELS,
    SILHOUETTE,
    TRUE_LABELS,
)
from csreft_core.analysis.states import projection as p
from csreft_core.analysis.states import rows as state_rows
from csreft_core.analysis.states.edit_tables import coordinates_table, energy_table, size_table
from csreft_core.analysis.states.edits import snapshots_of
from csreft_core.analysis.states.rows import place_of, rows_of_split
from csreft_core.analysis.statistics import separation
from csreft_core.analysis.statistics.intervals import units_of
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError

# Tables of this view in another module.
__all__ = ["coordinates_table", "energy_table", "size_table"]

TABLES = ("states", "scree", "coordinates", "size", "training", "separation", "energy")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

MOST_STEPS = 24


def states_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 12,
    gates: str = "learned",
    layer: int | None = None,
    position: str | None = None,
    basis: str = "base",
    n_axes: int = 2,
) -> pd.DataFrame:
    r"""Base and edited states of held-out prompts on two or three axes (own).

    $x_a = (h - \bar h) \cdot p_a$ with the axes $p_a$ of `projection.fit_axes`, fitted on the rows
    of the split, and $\bar h$ the mean of their base states.

    Args:
        subject: The opened run.
        prompts: Texts of one's own, drawn too; the axes are not fitted on them.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill, at most `MOST_PROMPTS` in all.
        gates: Gate setting of the edited states.
        layer: Whose output; None is the first edited layer.
        position: `last`, `first`, `mean` or a place from the end such as `-2`; None is a token
            that the adapter edits.
        basis: `base`, `joint`, `differences` or `subspace:<name>`.
        n_axes: 2 or 3.

    Returns:
        Columns prompt, skill, own (one's own text), kind (`base` or `edited`), x, y, z (units of
        h; z with three axes), moved (|h' - h|, units of h), size (|h|), and of all rows alike:
        `<axis>_variance_frac` (of the base states) and `<axis>_edit_frac` (of the edit), in
        [0, 1] or NaN where there is none; d_model, layer, position, basis, gates, edited_layers,
        edited_tokens.

    Raises:
        ConfigError: an argument that does not fit the run.
    """
    if n_axes not in (2, 3):
        raise ConfigError(f"n_axes is {n_axes}; choose 2 or 3")
    layer, position = place_of(subject, layer, position)
    rows = rows_of_split(subject, split, per_skill)
    fitted = p.points_at(subject, rows, gates, layer, position)
    first = None
    if basis.startswith("subspace:"):
        name = basis.removeprefix("subspace:")
        first = p.subspace_rows(subject.adapter, layer, name, position)
    axes = p.fit_axes(fitted.base, fitted.after, basis, n_axes, first)
    parts = [state_rows.on_axes(fitted, axes, fitted.base.mean(0), own=False)]
    if prompts:
        asked = p.points_at(subject, subject.asked(prompts), gates, layer, position)
        parts.append(state_rows.on_axes(asked, axes, fitted.base.mean(0), own=True))
    shares = {
        "variance_frac": p.variance_shares(fitted.base, axes),
        "edit_frac": p.energy_shares(fitted.after - fitted.base, axes),
    }
    alike: dict[str, Any] = {
        f"{axis}_{name}": value
        for name, values in shares.items()
        for axis, value in zip(state_rows.AXES, values, strict=False)
    }
    alike |= {"d_model": fitted.base.shape[1], "layer": layer, "position": position}
    alike |= {"basis": basis, "gates": gates, "edited_layers": _layer_list(subject)}
    alike["edited_tokens"] = subject.adapter.spec.adapter.positions
    return pd.concat(parts, ignore_index=True).assign(**alike)


def scree_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = 12,
    gates: str = "learned",
    layer: int | None = None,
    position: str | None = None,
    n_components: int = 10,
) -> pd.DataFrame:
    """How much each principal component shows, of the base states and of the edit.

    Args:
        subject: The opened run.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting of the edited states.
        layer: Whose output; None is the first edited layer.
        position: See `states_table`.
        n_components: The first so many.

    Returns:
        Columns kind, component (from 1), frac (share, 0 to 1), cumulative (their sum so far), n
        (prompts), chance (1 / d_model: a random axis). Kinds: `base states` (variance on their own
        components), `edit` (of |h' - h|^2, on its own components without centring) and `edit on
        the axes of the base states` (the control: what a picture of the base states shows of it).
        A kind whose total is zero is left out.
    """
    layer, position = place_of(subject, layer, position)
    points = p.points_at(subject, rows_of_split(subject, split, per_skill), gates, layer, position)
    n = max(1, min(n_components, len(points.rows) - 1, points.base.shape[1]))
    difference = points.after - points.base
    of_base = p.fit_axes(points.base, points.after, "base", n)
    of_edit = p.fit_axes(points.base, points.after, "differences", n)
    kinds = {
        BASE_STATES: p.variance_shares(points.base, of_base),
        EDIT: p.energy_shares(difference, of_edit),
        EDIT_ON_BASE_AXES: p.energy_shares(difference, of_base),
    }
    columns = ["kind", "component", "frac", "cumulative"]
    records = [
        (kind, i + 1, share, shares[: i + 1].sum())
        for kind, shares in kinds.items()
        if not np.isnan(shares).any()
        for i, share in enumerate(shares)
    ]
    table = pd.DataFrame(records, columns=columns)
    return table.assign(n=len(points.rows), chance=1 / points.base.shape[1])


def training_table(
    subject: Subject, *, layer: int | None = None, basis: str = "joint", n_axes: int = 2
) -> pd.DataFrame:
    """States of validation prompts at the run's snapshots, on axes fitted once, at the last one.

    Args:
        subject: A run with snapshots; they hold the last prompt token.
        layer: An edited layer; None is the first.
        basis: `base`, `joint`, `differences` or `subspace:<name>` (as it was at the last step).
        n_axes: 2 or 3.

    Returns:
        Columns step, prompt, skill, kind (`base` or `edited`), x, y, z (units of h; z with three
        axes), moved (|h' - h|), gate (of the subspace named after the prompt's skill; NaN where
        there is none), edit_frac (share of this step's edit on the axes; NaN where there is no
        edit), fitted_step, layer, basis. At most `MOST_STEPS` steps.

    Raises:
        RunError: the run has no snapshots of this layer.
        ConfigError: no such basis, or a layer without edit.
    """
    adapter = subject.adapter
    layer = adapter.layers[0] if layer is None else layer
    p.check_edited(adapter, layer)
    snapshots = snapshots_of(subject, layer, MOST_STEPS)
    last = snapshots[-1]
    first = None
    if basis.startswith("subspace:"):
        i = p.index_of(adapter, basis.removeprefix("subspace:"))
        # Halves: orthonormal to three digits only.
        first = orthonormal_rows(last.R[p.group_at(adapter, "last"), i])
    axes = p.fit_axes(last.before, last.after, basis, n_axes, first)
    parts = [
        state_rows.at_snapshot(snapshot, adapter.names, axes, last.before.mean(0))
        for snapshot in snapshots
    ]
    alike = {"fitted_step": last.step, "layer": layer, "basis": basis}
    return pd.concat(parts, ignore_index=True).assign(**alike)


def separation_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = 30,
    gates: str = "learned",
    layer: int | None = None,
    position: str | None = None,
) -> pd.DataFrame:
    """How well the skill can be told from gates, coordinates and states (method.md, 9).

    Args:
        subject: The opened run.
        split: A split of the run's skill set; rows with two skills are left out.
        per_skill: At most so many rows of each skill.
        gates: Gate setting.
        layer: Whose output; None is the first edited layer.
        position: See `states_table`.

    Returns:
        Columns features (`gates`, `R h`, `random h`: as many random directions as R has rows,
        `h`: base, `h'`: edited), measure (`silhouette`, -1 to 1; `probe accuracy`, 0 to 1), kind
        (`true labels`; `shuffled labels`, mean and range of five shuffles; `majority class`),
        value, low, high (see `separation`), n, n_features, over (what the interval of true labels
        is over). R h only at an edited layer.

    Raises:
        ConfigError: fewer than two skills with two prompts each.
    """
    layer, position = place_of(subject, layer, position)
    rows = [row for row in rows_of_split(subject, split, per_skill) if len(row.skills) == 1]
    points = p.points_at(subject, rows, gates, layer, position) if rows else None
    labels = [] if points is None else [row.skills[0] for row in points.rows]
    counts = pd.Series(labels, dtype=str).value_counts()
    if points is None or len(counts) < 2 or counts.min() < 2:
        raise ConfigError(
            "to tell skills apart takes at least two skills with two prompts each; choose more "
            "prompts of each skill, or a run whose data has skill names"
        )
    measures = {
        SILHOUETTE: separation.silhouette,
        PROBE: separation.probe_accuracy,
    }
    records, units = [], units_of(points.rows)
    for name, features in state_rows.features(subject, points, layer, position).items():
        for measure, function in measures.items():
            estimates = {
                TRUE_LABELS: function(features, labels, units),
                SHUFFLED_LABELS: separation.shuffle_control(function, features, labels, units),
            }
            if measure == PROBE:
                majority = separation.majority_share(labels)
                estimates[MAJORITY] = separation.Estimate(majority, majority, majority)
            records += [
                (
                    name,
                    measure,
                    kind,
                    e.value,
                    e.low,
                    e.high,
                    len(labels),
                    features.shape[1],
                    units.over,
                )
                for kind, e in estimates.items()
            ]
    columns = ["features", "measure", "kind", "value", "low", "high", "n", "n_features", "over"]
    return pd.DataFrame(records, columns=columns)


def _layer_list(subject: Subject) -> str:
    return ", ".join(map(str, subject.adapter.layers))
