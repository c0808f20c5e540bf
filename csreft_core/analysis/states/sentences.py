"""Sentences under the figures of the States view, each computed from its table alone."""

import math
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.analysis.labels import (
    AFTER,
    ALL_OPEN,
    BASE,
    BASE_STATES,
    EDIT,
    EDIT_ON_BASE_AXES,
    EDITED,
    GATED,
    MAJORITY,
    PROBE,
    SILHOUETTE,
    TRUE_LABELS,
)
from csreft_core.analysis.statistics.interval_words import over_words

_NAMES = {"last": "the last prompt token", "first": "the first token", "mean": "the prompt's mean"}
_ROUNDING = 1e-6


def sentence_states(table: pd.DataFrame) -> str:
    """How much of the states and of the edit a picture shows, with a warning where it is little."""
    if table.empty:
        return "There are no prompts to show."
    one = _first(table)
    axes = [a for a in ("x", "y", "z") if a in table]
    n = int((table["kind"].eq(BASE) & ~table["own"]).sum())
    variance = sum(one[f"{a}_variance_frac"] for a in axes)
    edit = sum(one[f"{a}_edit_frac"] for a in axes)
    count = {2: "two", 3: "three"}[len(axes)]
    place = _at(one["layer"], one["position"])
    if np.isnan(variance):
        first = f"At {place} the base gives all {n} prompts the same state."
    else:
        first = f"These {count} axes show {variance:.1%} of the variance of {n} base states"
    moves = (table["moved"] / table["size"]).max()
    if moves <= _ROUNDING:
        stop = "" if np.isnan(variance) else "."
        return f"{first}{stop} {_nothing_moves(moves, one)}"
    chance = len(axes) / one["d_model"]
    joiner = " They show" if np.isnan(variance) else " and"
    return f"{first}{joiner} {edit:.1%} of the edit{_verdict(edit, chance, one['basis'])}"


def _first(table: pd.DataFrame) -> dict[Any, Any]:
    return table.head(1).to_dict("records")[0]


def _verdict(edit: float, chance: float, basis: str) -> str:
    other = "" if basis == "differences" else " Choose the axes of the differences to see it."
    if edit < chance:
        return f", less than random axes would ({chance:.1%}). The picture hides the edit.{other}"
    hidden = f" The picture hides most of the edit.{other}" if edit < 0.25 else ""
    return f" (random axes: {chance:.1%}).{hidden}"


def _nothing_moves(moves: float, one: dict[Any, Any]) -> str:
    size = "exactly 0" if moves == 0 else f"at most {moves:.0e} of |h|, which is rounding"
    first = int(str(one["edited_layers"]).split(",")[0])
    if one["layer"] < first:
        why = f"layer {one['layer']} lies below the first edited layer, {first}"
    elif one["gates"] == "off":
        why = "all gates are 0"
    else:
        why = (
            f"the adapter edits the tokens {one['edited_tokens']} and a causal model's earlier "
            "tokens do not see them, or its edit is still zero"
        )
    return f"No state moves: {why}. The difference is {size}."


def _at(layer: int, position: str) -> str:
    if position in _NAMES:
        return f"layer {layer}, {_NAMES[position]},"
    back = -int(position) - 1
    tokens = "token" if back == 1 else "tokens"
    token = "the last prompt token" if back == 0 else f"{back} {tokens} before the last"
    return f"layer {layer}, {token},"


def sentence_scree(table: pd.DataFrame) -> str:
    """How many axes the base states and the edit need."""
    if table.empty:
        return "All states are equal here: there is nothing to take apart."
    kinds = {k: t["cumulative"].tolist() for k, t in table.groupby("kind", sort=False)}
    names = {BASE_STATES: "The base states", EDIT: "The edit"}
    clauses = [_needs(names[kind], kinds[kind]) for kind in names if kind in kinds]
    text = f"{' '.join(clauses)} n = {table['n'].iloc[0]} prompts."
    control = kinds.get(EDIT_ON_BASE_AXES)
    if control is None:
        return text if EDIT in kinds else f"{text} No state moves: there is no edit to show."
    n = len(control)
    return (
        f"{text} The first {n} axes of the base states show {control[-1]:.1%} of the edit; {n} "
        f"random axes would show {n * table['chance'].iloc[0]:.1%}."
    )


def _needs(subject: str, cumulative: list[float]) -> str:
    enough = [i for i, share in enumerate(cumulative, start=1) if share >= 0.9]
    verb = "needs" if subject == "The edit" else "need"
    if enough:
        axes = "axis" if enough[0] == 1 else "axes"
        return f"{subject} {verb} {enough[0]} {axes} for 90%."
    return f"{subject} {verb} more than {len(cumulative)} axes: these show {cumulative[-1]:.1%}."


def sentence_coordinates(table: pd.DataFrame) -> str:
    """Whether the edit carries a subspace's coordinates to their target."""
    one, points = _first(table), table[table["kind"].eq(AFTER)]
    opened = points[points["gate"] > 0.5]
    closed = points[points["gate"] <= 0.5]
    parts = []
    if len(opened):
        parts.append(
            f"Where the gate of {one['subspace']} is above 0.5 ({len(opened)} of {len(points)} "
            f"prompts; {opened['gate'].min():.3f} to {opened['gate'].max():.3f}), the coordinates "
            f"end at most {opened['distance'].max():.2g} from the target, having started up to "
            f"{opened['start'].max():.3g} away."
        )
    if len(closed):
        parts.append(
            f"Where it is not ({len(closed)} prompts; gate at most {closed['gate'].max():.3f}), "
            f"they move by at most {closed['moved'].max():.2g}."
        )
    error, scale = points["error"].max(), max(points["start"].max(), 1e-12)
    if error <= 1e-5 * scale:
        parts.append(f"R h' = (1 - gate) R h + gate · target holds within {error:.0e}.")
    else:
        parts.append(
            f"R h' misses (1 - gate) R h + gate · target by up to {error:.2g}: the other subspaces "
            "write into these coordinates, or the rows of R are not orthonormal."
        )
    return " ".join(parts)


def sentence_size(table: pd.DataFrame) -> str:
    """Where the edit is strongest, and where it is nothing."""
    cells = [c for c in table.to_dict("records") if c["n"] > 0]
    moved = [cell for cell in cells if cell["size"] > 0]
    if not moved:
        return "No state differs from the base's at any layer and token: the edit is exactly 0."
    top = max(moved, key=lambda cell: cell["size"])
    text = (
        f"The edited run is furthest from the base at layer {top['layer']}, {_token(top)}: "
        f"|h' - h| is {top['size']:.2f} of |h| (n = {top['n']})."
    )
    if not np.isnan(top["between"]):
        text += f" Two prompts' base states there are {top['between']:.2f} of |h| apart."
    deepest = max(cell["layer"] for cell in cells)
    last = max(cell["size"] for cell in cells if cell["layer"] == deepest)
    text += f" After the last layer it is {last:.2f}."
    if len(moved) < len(cells):
        first = min(cell["layer"] for cell in moved)
        below = f"below layer {first}, and " if first else ""
        text += (
            f" The difference is exactly 0 in {len(cells) - len(moved)} of {len(cells)} cells: "
            f"{below}at tokens that see no edited token."
        )
    return text


def _token(cell: dict[Any, Any]) -> str:
    if cell["text"]:
        return f"token {str(cell['text']).strip()!r}"
    back = -int(cell["place"]) - 1
    return "the last prompt token" if back == 0 else f"{back} before the last prompt token"


def sentence_training(table: pd.DataFrame) -> str:
    """How the edit grew over the snapshots."""
    edited = table[table["kind"].eq(EDITED)]
    moved = edited.groupby("step")["moved"].mean()
    if moved.max() == 0:
        return "The edit is 0 at every snapshot."
    final = moved.iloc[-1]
    half = int(moved[moved >= final / 2].index[0])
    share = edited[edited["step"].eq(moved.index[-1])]["edit_frac"].iloc[0]
    n = edited["prompt"].groupby(edited["step"]).size().iloc[-1]
    start = "exactly 0" if moved.iloc[0] == 0 else f"{moved.iloc[0]:.3g}"
    return (
        f"The mean of |h' - h| over {n} validation prompts is {start} at step {moved.index[0]} and "
        f"{final:.3g} at step {moved.index[-1]}; half of that is there by step {half}. Axes are "
        f"fitted at step {edited['fitted_step'].iloc[0]} and fixed; they show {share:.1%} of its "
        "edit."
    )


def sentence_separation(table: pd.DataFrame) -> str:
    """What the edit does to the separation of the skills, and where they can be read."""
    cells = {
        (cell["measure"], cell["features"], cell["kind"]): cell for cell in table.to_dict("records")
    }
    before, after = (cells[SILHOUETTE, name, TRUE_LABELS] for name in ("h", "h'"))
    names = {
        "gates": "the gates",
        "R h": "R h",
        "random h": "as many random directions of h",
        "h": "base states",
        "h'": "edited states",
    }
    read = ", ".join(
        f"{cell['value']:.0%} from {names[features]}"
        for (measure, features, kind), cell in cells.items()
        if measure == PROBE and kind == TRUE_LABELS
    )
    majority = cells[PROBE, "h", MAJORITY]["value"]
    return (
        f"The silhouette of the skills goes from {_with_interval(before)} in the base states to "
        f"{_with_interval(after)} in the edited ones. A linear probe names the skill right for "
        f"{read} (n = {before['n']} prompts{over_words(table)}; the most frequent skill alone: "
        f"{majority:.0%})."
    )


def _with_interval(cell: dict[Any, Any]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def sentence_energy(table: pd.DataFrame) -> str:
    """Whose subspace makes the edit of a skill's prompts."""
    known = table.dropna(subset=["share"])
    gated = known[known["kind"].eq(GATED)]
    if gated.empty:
        return "No prompt is edited here: the gates are closed, or this token is not edited."
    if table["subspace"].nunique() == 1:
        return "There is one subspace: it makes the whole edit of every prompt."
    n = int(gated.groupby("skill")["n"].max().sum())
    own = known[known["skill"].eq(known["subspace"])]
    mine = own[own["kind"].eq(GATED)]
    shares = dict(zip(mine["skill"].tolist(), mine["share"].tolist(), strict=True))
    if not shares:
        top = gated.groupby("skill")["share"].max()
        return (
            f"The strongest subspace of a skill's prompts has {top.min():.1%} to {top.max():.1%} "
            f"of their edit (n = {n} prompts)."
        )
    free = own.loc[own["kind"].eq(ALL_OPEN), "share"]
    lowest = min(shares, key=lambda skill: shares[skill])
    return (
        f"On a skill's prompts its own subspace makes at least {_floor(shares[lowest])} of the "
        f"edit (lowest: {lowest}; n = {n} prompts). With all gates at 1 it would be "
        f"{free.min():.1%} to {free.max():.1%}."
    )


def _floor(share: float) -> str:
    """A percentage that is not rounded up to more than the share."""
    return f"{math.floor(share * 1e4) / 1e4:.2%}"
