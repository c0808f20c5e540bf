"""The edit of states as tidy tables: in coordinates, its size, and whose subspace it is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csreft_core.analysis.labels import (
    ALL_OPEN,
    GATED,
)
from csreft_core.analysis.states import projection as p
from csreft_core.analysis.states import rows as state_rows
from csreft_core.analysis.states.edits import TARGETS, edit_energies, edit_sizes
from csreft_core.analysis.states.rows import place_of, rows_of_split
from csreft_core.analysis.subject import Subject
from csreft_core.errors import ConfigError
from csreft_core.skills.skill_set import skill_name


def coordinates_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 12,
    gates: str = "learned",
    layer: int | None = None,
    position: str | None = None,
    subspace: str | None = None,
) -> pd.DataFrame:
    r"""One subspace's coordinates before and after the edit, with their target (ReFT, eq. 2).

    With jointly orthonormal rows, $R_j h' = (1 - \alpha_j) R_j h + \alpha_j (W_j h + b_j)$: at gate
    1 the state arrives at the target (method.md, 6). Here h is the state that the edit sees.

    Args:
        subject: The opened run.
        prompts: Texts of one's own, drawn too.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting.
        layer: An edited layer; None is the first.
        position: One token, not `mean`; see `states_table`.
        subspace: Its name; None is the first.

    Returns:
        Columns prompt, skill, own, kind (`before`, `after`, `target`), x, y (first two coordinates,
        units of h; y is NaN for rank 1), gate (0 at a token that is not edited), moved
        (|R h' - R h|), distance (|R h' - target|), start (|R h - target|), error (of the equation
        above: what the other subspaces write), all in units of h but the gate; and of all rows
        alike rank, subspace, form, target, layer.

    Raises:
        ConfigError: a layer without edit, the position `mean`, or no such subspace.
    """
    adapter = subject.adapter
    layer, position = place_of(subject, layer, position)
    name = adapter.names[0] if subspace is None else subspace
    p.check_edited(adapter, layer)
    _one_token(position)
    groups = [(rows_of_split(subject, split, per_skill), False), (subject.asked(prompts), True)]
    parts = [
        state_rows.coordinates(subject, rows, gates, layer, position, name).assign(own=own)
        for rows, own in (groups if prompts else groups[:1])
    ]
    form = adapter.spec.adapter.form
    alike = {"rank": adapter.at(layer).rank, "subspace": name, "form": form}
    return pd.concat(parts, ignore_index=True).assign(**alike, target=TARGETS[form], layer=layer)


def size_table(
    subject: Subject,
    *,
    prompts: Sequence[str] = (),
    split: str = "test",
    per_skill: int | None = 12,
    gates: str = "learned",
    places: int = 12,
) -> pd.DataFrame:
    r"""Relative edit size $\|h' - h\| / \|h\|$ by layer and token (method.md, 9).

    h' is the output of a block in the run with the adapter, h in that of the bare base.

    Args:
        subject: The opened run.
        prompts: Texts; none means the rows of the split.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting.
        places: The last so many tokens.

    Returns:
        Columns layer, place (-1 is the last prompt token), text (the token, for a single prompt),
        size (mean over prompts, no unit), highest, between (control: root mean square distance
        between the base states of two prompts there, in the same unit; NaN for a single prompt), n
        (prompts), edited_layer (whether the adapter edits this layer).
    """
    rows = subject.asked(prompts) if prompts else rows_of_split(subject, split, per_skill)
    sizes = edit_sizes(subject, rows, gates, places)
    texts = state_rows.token_texts(subject, rows[0].prompt) if len(rows) == 1 else []
    parts = [
        {
            "layer": layer,
            "place": -1 - place,
            "text": texts[-1 - place] if texts else "",
            "size": sizes.mean[layer, place],
            "highest": sizes.highest[layer, place],
            "between": sizes.between[layer, place],
            "n": int(sizes.n[place]),
            "edited_layer": layer in subject.adapter.layers,
        }
        for layer in range(sizes.mean.shape[0])
        for place in reversed(range(sizes.mean.shape[1]))
    ]
    return pd.DataFrame(parts)


def energy_table(
    subject: Subject,
    *,
    split: str = "test",
    per_skill: int | None = 12,
    gates: str = "learned",
    layer: int | None = None,
    position: str | None = None,
) -> pd.DataFrame:
    r"""Energy share of each subspace in the edit, by skill (method.md, 9).

    $E_{s,i} = E_{x \sim T_s}\, \alpha_i^2 \|\delta_i\|^2 / \sum_m \alpha_m^2 \|\delta_m\|^2$

    Args:
        subject: The opened run.
        split: A split of the run's skill set.
        per_skill: At most so many rows of each skill.
        gates: Gate setting.
        layer: An edited layer; None is the first.
        position: One token; see `states_table`.

    Returns:
        Columns kind (`gated`; `all gates 1`, the control without the router), skill, subspace,
        share (0 to 1; NaN where no prompt of the skill is edited), n (prompts with an edit).
    """
    adapter = subject.adapter
    layer, position = place_of(subject, layer, position)
    p.check_edited(adapter, layer)
    _one_token(position)
    points = p.points_at(subject, rows_of_split(subject, split, per_skill), gates, layer, position)
    energies = edit_energies(adapter, points, layer)
    skills = [skill_name(row) for row in points.rows]
    parts = []
    for kind, weights in ((GATED, np.square(points.gates)), (ALL_OPEN, 1.0)):
        energy = weights * energies
        total = energy.sum(1, keepdims=True)
        shares = np.divide(energy, total, out=np.full_like(energy, np.nan), where=total > 0)
        wide = pd.DataFrame(shares, columns=list(adapter.names)).assign(skill=skills)
        long = wide.melt("skill", var_name="subspace", value_name="share")
        grouped = long.groupby(["skill", "subspace"], sort=False)["share"]
        parts.append(grouped.agg(share="mean", n="count").reset_index().assign(kind=kind))
    return pd.concat(parts, ignore_index=True)[["kind", "skill", "subspace", "share", "n"]]


def _one_token(position: str) -> None:
    if position == "mean":
        raise ConfigError("an edit is of one token; choose last, first or a place such as -2")
