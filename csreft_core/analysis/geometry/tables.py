"""Geometry of the subspaces as tidy tables: angles, leaks, mixing, drift, and other seeds.

Definitions: docs/method.md, 9. Every table holds its control: rows of the kinds in
`geometry.metrics.QUANTILES` are quantiles over random subspaces of the same shape. Angles are in
radians. Sentences about these tables are in `geometry.sentences`.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from csreft_core.analysis.geometry import leaks, mixing
from csreft_core.analysis.geometry import metrics as sm
from csreft_core.analysis.geometry.bases import (
    edit_coordinates,
    edited_layer,
    readers_of,
    subspaces_of,
)
from csreft_core.analysis.geometry.training_tables import drift_table, seeds_table, training_table
from csreft_core.analysis.labels import (
    RANDOM,
    RUN,
)
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError

# Tables of this view in another module.
__all__ = ["drift_table", "seeds_table", "training_table"]

TABLES = ("pairs", "angles", "gram", "leaks", "mixing", "drift", "training", "seeds")
"""The tables of this view, `NAME_table`; the first is what `inspect` prints by default."""

_SHAPE = ("constraint", "rank", "d_model", "draws")


def pairs_table(
    subject: Subject, *, layer: int | None = None, group: int = 0, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How two skills' subspaces lie to each other, for each pair of skills.

    Args:
        subject: The opened run.
        layer: An edited layer; None is the first.
        group: 0, or 1 for the last tokens of an untied edit.
        draws: Of k random subspaces each; their pairs are pooled.
        seed: Of the draws.

    Returns:
        Columns kind (`run`, or a quantile over random pairs), a, b (skills), the fields of
        `geometry.metrics.PairMeasures` (angles in radians), constraint, rank, d_model, draws.

    Raises:
        ConfigError: the layer is not edited, or there is no such group.
    """
    names, _, Q = subspaces_of(subject.adapter, layer, group)
    d, ranks = Q[0].shape[1], [len(q) for q in Q]
    records = [
        (RUN, names[i], names[j], *vars(sm.pair_measures(Q[i], Q[j])).values())
        for i, j in combinations(range(len(Q)), 2)
    ]
    angles = sm.random_angles(np.random.default_rng(seed), draws, sm.at_least_two(ranks), d)
    pair = (max(ranks), max(ranks))
    chance = [list(vars(sm.measures_from_angles(a, pair, d)).values()) for a in angles]
    for kind, values in sm.band(chance):
        records.append((kind, "", "", *values))
    table = pd.DataFrame(records, columns=["kind", "a", "b", *sm.MEASURES])
    shape = (subject.adapter.spec.adapter.constraint, max(ranks), d, draws)
    return table.assign(**dict(zip(_SHAPE, shape, strict=True)))


def angles_table(
    subject: Subject,
    *,
    pair: tuple[str, ...] = (),
    layer: int | None = None,
    group: int = 0,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """All principal angles of pairs of skills, the smallest first.

    Args:
        subject: The opened run.
        pair: Two skills; none means every pair.
        layer: See `pairs_table`.
        group: See `pairs_table`.
        draws: See `pairs_table`.
        seed: See `pairs_table`.

    Returns:
        Columns kind (`run`, or a quantile over random pairs), a, b, m (1 is the smallest angle),
        angle (radians), d_model, draws.

    Raises:
        ConfigError: an unknown skill or layer.
    """
    names, _, Q = subspaces_of(subject.adapter, layer, group)
    d, ranks = Q[0].shape[1], [len(q) for q in Q]
    if pair and (len(set(pair)) != 2 or not set(pair) <= set(names)):
        raise ConfigError(
            f"pair: expected two different skills of {', '.join(names)}, got {', '.join(pair)}"
        )
    wanted = [pair] if pair else combinations(names, 2)
    records = [
        (RUN, a, b, m, angle)
        for a, b in wanted
        for m, angle in enumerate(sm.principal_angles(Q[names.index(a)], Q[names.index(b)]), 1)
    ]
    for kind, values in sm.band(
        sm.random_angles(np.random.default_rng(seed), draws, sm.at_least_two(ranks), d)
    ):
        records += [(kind, "", "", m, angle) for m, angle in enumerate(values, 1)]
    table = pd.DataFrame(records, columns=["kind", "a", "b", "m", "angle"])
    return table.assign(d_model=d, draws=draws)


def gram_table(
    subject: Subject, *, layer: int | None = None, group: int = 0, seed: int = 0
) -> pd.DataFrame:
    r"""The Gram matrix $R R^\top$ of all skills' rows, and that of one random draw beside it.

    Args:
        subject: The opened run.
        layer: See `pairs_table`.
        group: See `pairs_table`.
        seed: Of the draw: orthonormal rows in each skill, skills independent of each other.

    Returns:
        Columns kind (`run` or `random`), row_skill, row, column_skill, column (direction within
        the skill, from 1), value (no unit; cosine where the rows have length 1), d_model.
    """
    names, R, _ = subspaces_of(subject.adapter, layer, group)
    k, rank, d = R.shape
    chance = np.stack(sm.random_subspaces(np.random.default_rng(seed), [rank] * k, d))
    parts = []
    for kind, rows in ((RUN, R), (RANDOM, chance)):
        gram = np.einsum("ard,bsd->arbs", rows, rows)
        places = np.indices(gram.shape).reshape(4, -1)
        columns = {
            "kind": kind,
            "row_skill": np.array(names)[places[0]],
            "row": places[1] + 1,
            "column_skill": np.array(names)[places[2]],
            "column": places[3] + 1,
            "value": gram.ravel(),
            "d_model": d,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def leaks_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 16,
    gates: str = "off",
    layer: int | None = None,
    group: int = 0,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """What the edit of one skill writes into and reads from another's subspace, on prompts.

    Args:
        subject: The opened run.
        prompts: Texts without template; none means the rows of the split.
        split: A split of the run's skill set; held out of training by default.
        per_skill: At most so many rows of each skill.
        gates: Gate setting under which the states are taken; `off` gives the base's.
        layer: See `pairs_table`.
        group: See `pairs_table`.
        draws: Of random subspaces in place of all R; W and the edits' sizes stay.
        seed: Of the draws.

    Returns:
        Columns kind (`run`, or a quantile over random pairs), measure (`write leak`, `read leak`,
        `data-weighted overlap`; all in [0, 1], see `leaks`), source (the skill whose edit writes,
        or whose subspace is read), target, value, n (edited sites), rank, d_model, draws. A value
        is NaN where the form has no W or an edit writes nothing.

    Raises:
        ConfigError: an unedited layer, a wrong gate setting, an empty or too long prompt.
        SkillSetError: the split is unknown or empty.
    """
    layer = edited_layer(subject.adapter, layer)
    names, R, Q = subspaces_of(subject.adapter, layer, group)
    h = leaks.site_states(subject, subject.asked(prompts, split, per_skill), layer, group, gates)
    c, X = edit_coordinates(subject.adapter, layer, group, h), leaks.centred(h)
    W = leaks.read_maps(subject.adapter, layer, group)
    records = [
        (RUN, measure, names[i], names[j], value)
        for (i, j), values in leaks.all_leaks(R, Q, W, c, X).items()
        for measure, value in values.items()
    ]
    rng, chance = np.random.default_rng(seed), []
    for _ in range(draws if len(names) > 1 else 0):
        basis = sm.random_subspaces(rng, [R.shape[1]] * len(R), R.shape[2])
        chance += leaks.all_leaks(np.stack(basis), basis, W, c, X).values()
    for measure in chance[0] if chance else ():
        for kind, value in sm.band([[values[measure]] for values in chance]):
            records.append((kind, measure, "", "", value[0]))
    columns = ["kind", "measure", "source", "target", "value"]
    shape = {"n": len(h), "rank": R.shape[1], "d_model": R.shape[2], "draws": draws}
    return pd.DataFrame(records, columns=columns).assign(**shape)


def mixing_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 2,
    layer: int | None = None,
    group: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    r"""How far the blocks after the edit carry one skill's subspace into another's.

    $JM_{ij}(l') = \|R_j^{(l')} J R_i^{(l)\top}\|_F$ with $J = \partial h^{(l')}/\partial h^{(l)}$
    of the base at one token, the mean over prompts (method.md, 9). At l' = l it is the Gram norm.

    Args:
        subject: The opened run.
        prompts: Texts without template; none means the rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        layer: l, an edited layer; None is the first.
        group: Chooses R and the token: the last prompt token, or the first one for a group that
            edits first tokens only.
        seed: Of the random subspaces that both R_i and R_j are replaced by: 8 sources, 25 targets.

    Returns:
        Columns kind (`run`, or a quantile over random pairs), source (i), target (j, also i),
        layer (l'), own_basis (whether l' is edited and read with its own R_j; else with that of
        l), value (no unit, about sqrt(r) where the blocks add nothing and i = j), n (prompts).

    Raises:
        ConfigError: an unedited layer, an empty or too long prompt.
        SkillSetError: the split is unknown or empty.
    """
    layer = edited_layer(subject.adapter, layer)
    names, R, Q = subspaces_of(subject.adapter, layer, group)
    rows, rng = subject.asked(prompts, split, per_skill), np.random.default_rng(seed)
    sources, targets = (sm.random_subspaces(rng, [R.shape[1]] * n, R.shape[2]) for n in (8, 25))
    pushed = mixing.mean_norms(subject, rows, layer, group, Q, readers_of(subject.adapter, group))
    chance = mixing.mean_norms(subject, rows, layer, group, sources, dict.fromkeys(pushed, targets))
    edited, records = subject.adapter.layers, []
    for later, norms in pushed.items():
        records += [
            (RUN, a, b, later, later in edited, norms[i, j])
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
        for kind, value in sm.band(chance[later].reshape(-1, 1)):
            records.append((kind, "", "", later, later in edited, value[0]))
    columns = ["kind", "source", "target", "layer", "own_basis", "value"]
    return pd.DataFrame(records, columns=columns).assign(n=len(rows))
