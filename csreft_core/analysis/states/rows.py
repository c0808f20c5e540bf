"""Points, coordinates and snapshots as rows of tables, for the States view."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csreft_core.analysis.geometry.metrics import orthonormal_rows
from csreft_core.analysis.labels import AFTER, BASE, BEFORE, EDITED, TARGET
from csreft_core.analysis.states import projection as p
from csreft_core.analysis.states.choices import edited_token
from csreft_core.analysis.states.edits import Snapshot, subspace_coordinates
from csreft_core.analysis.subject import Subject
from csreft_core.skills.encoding import prompt_ids
from csreft_core.skills.skill_set import Row, evenly, skill_name

AXES = ("x", "y", "z")
MOST_PROMPTS = 400
"""As many prompts as a browser can draw."""


def _prompt_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    return {
        "prompt": [row.prompt for row in rows],
        "skill": [skill_name(row) if row.skills else "" for row in rows],
    }


def on_axes(points: p.Points, axes: p.AxisRows, centre: np.ndarray, *, own: bool) -> pd.DataFrame:
    """Two rows a prompt, `base` and `edited`, with their places on the axes."""
    common = _prompt_columns(points.rows) | {"own": own}
    moved = np.linalg.norm(points.after - points.base, axis=1)
    size = np.linalg.norm(points.base, axis=1)
    parts = []
    for kind, states in ((BASE, points.base), (EDITED, points.after)):
        places = dict(zip(AXES, ((states - centre) @ axes.T).T, strict=False))
        parts.append(pd.DataFrame(common | {"kind": kind} | places | {"moved": moved}))
    return pd.concat(parts, ignore_index=True).assign(size=np.tile(size, 2))


def at_snapshot(
    snapshot: Snapshot, names: Sequence[str], axes: p.AxisRows, centre: np.ndarray
) -> pd.DataFrame:
    """Two rows a prompt of one snapshot, with the gate of the prompt's own skill."""
    own = [
        snapshot.gates[i, names.index(row.skills[0])]
        if len(row.skills) == 1 and row.skills[0] in names
        else np.nan
        for i, row in enumerate(snapshot.rows)
    ]
    before, after = snapshot.before, snapshot.after
    group = np.zeros(len(before), dtype=int)
    points = p.Points(snapshot.rows, before, before, after, snapshot.gates, group)
    table = on_axes(points, axes, centre, own=False).drop(columns=["own", "size"])
    share = p.energy_shares(after - before, axes).sum()
    return table.assign(gate=np.tile(own, 2), edit_frac=share, step=snapshot.step)


def coordinates(
    subject: Subject, rows: Sequence[Row], gates: str, layer: int, position: str, name: str
) -> pd.DataFrame:
    """Three rows a prompt, `before`, `after` and `target`, in the subspace's coordinates."""
    points = p.points_at(subject, rows, gates, layer, position)
    c = subspace_coordinates(subject.adapter, points, layer, name)
    edited = points.group >= 0
    # A closed gate and a token that is not edited are the same to the state.
    gate = np.where(edited, points.gates[:, p.index_of(subject.adapter, name)], 0.0)
    expected = c.before + gate[:, None] * (c.target - c.before)
    common = _prompt_columns(points.rows) | {
        "gate": gate,
        "moved": np.linalg.norm(c.after - c.before, axis=1),
        "distance": np.linalg.norm(c.after - c.target, axis=1),
        "start": np.linalg.norm(c.before - c.target, axis=1),
        "error": np.linalg.norm(c.after - expected, axis=1),
    }
    parts = []
    for kind, values in ((BEFORE, c.before), (AFTER, c.after), (TARGET, c.target)):
        second = values[:, 1] if values.shape[1] > 1 else np.nan
        parts.append(pd.DataFrame(common | {"kind": kind, "x": values[:, 0], "y": second}))
    return pd.concat(parts, ignore_index=True)


def token_texts(subject: Subject, prompt: str) -> list[str]:
    """Each token of a prompt as text, in order."""
    base = subject.engine.base
    ids = prompt_ids(prompt, base.tokenizer, subject.template, base.vocabulary)
    return [str(base.tokenizer.decode([i])) for i in ids]


def features(
    subject: Subject, points: p.Points, layer: int, position: str
) -> dict[str, np.ndarray]:
    """What a skill can be read from: gates, coordinates R h and as many random ones, h and h'."""
    adapter = subject.adapter
    arrays = {"gates": points.gates}
    if layer in adapter.layers:
        stacked = np.concatenate(
            [p.subspace_rows(adapter, layer, name, position) for name in adapter.names]
        )
        random = np.random.default_rng(0).normal(size=stacked.shape)
        arrays["R h"] = points.before @ stacked.T
        arrays["random h"] = points.before @ orthonormal_rows(random).T
    return arrays | {"h": points.base, "h'": points.after}


def rows_of_split(subject: Subject, split: str, per_skill: int | None) -> tuple[Row, ...]:
    """The rows of a split, capped so that a browser can draw them."""
    rows = subject.asked((), split, per_skill)
    if len(rows) <= MOST_PROMPTS:
        return rows
    n_skills = len({skill_name(row) for row in rows})
    return evenly(rows, max(1, MOST_PROMPTS // n_skills))[:MOST_PROMPTS]


def place_of(subject: Subject, layer: int | None, position: str | None) -> tuple[int, str]:
    """Layer and token, where they are left open: the first that the adapter edits."""
    chosen = subject.adapter.layers[0] if layer is None else layer
    p.check_layer(subject, chosen)
    return chosen, position or edited_token(subject.adapter.positions)
