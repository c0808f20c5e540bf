"""Figures of how subspaces lie to each other: matrices with chance beside them, and angles."""

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from csreft_core.analysis.labels import (
    DATA_OVERLAP,
    READ_LEAK,
    RUN,
    WRITE_LEAK,
)
from csreft_core.charts.geometry.matrices import QUANTILE_NAMES, finish_matrix, matrix_beside_chance
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

_ONE = "This run has one subspace, so there is no pair to compare."
# From nothing shared to all shared; readable on both themes because each cell has its own colour.
_SHARED = (
    (0.0, "#eef3f8"),
    (0.25, "#b7d3ea"),
    (0.5, "#6aa6d6"),
    (0.75, "#2a6fb0"),
    (1.0, "#0b3c78"),
)
_MEASURES = {
    "smallest_angle": ("Do skills share directions more than chance?", "smallest angle", "degrees"),
    "mean_angle": ("How far apart are the skills on the mean?", "mean angle", "degrees"),
    "overlap": ("How much of their subspaces do skills share?", "overlap", "0 to 1"),
    "excess": ("Do skills share more than chance?", "overlap above chance", "no unit"),
    "grassmann": ("How far apart are the skills?", "Grassmann distance", "degrees"),
    "chordal": ("How far apart are the skills?", "chordal distance", "no unit"),
}
_LEAKS = {
    WRITE_LEAK: "Does an edit write into another's subspace?",
    READ_LEAK: "Does a skill read another's subspace?",
    DATA_OVERLAP: "Do skills overlap where the states are?",
}


def pair_matrix(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    measure: str = "smallest_angle",
    palette: Palette = LIGHT,
) -> go.Figure:
    """One measure for each pair of skills, and beside it what random subspaces give.

    Args:
        table: `pairs_table`: columns kind, a, b, rank, and the measures (angles in radians).
        names: Order of the skills.
        measure: A column of the table: smallest_angle, mean_angle, overlap, excess, grassmann or
            chordal.
        palette: Colours.
    """
    question, label, unit = _MEASURES[measure]
    run = table[table["kind"] == RUN]
    if run.empty:
        return empty(question, _ONE, palette)
    skills = ordered(names, [*run["a"], *run["b"]])
    factor = 180 / pi if unit == "degrees" else 1.0
    both = pd.concat([run, run.rename(columns={"a": "b", "b": "a"})])
    values = both.pivot(index="a", columns="b", values=measure).loc[skills, skills] * factor
    chance = _random(table, measure) * factor
    rank = int(table["rank"].iloc[0])
    limits, scale = _limits(measure, rank)
    figure = matrix_beside_chance(
        values.to_numpy(),
        skills,
        chance,
        limits=limits,
        scale=scale,
        digits=1 if unit == "degrees" else 3,
        hover=f"{label} %{{z:.6g}} ({unit})",
        of="%{y}, %{x}",
    )
    alt = f"Matrix: {label} ({unit}) of each pair of {len(skills)} skills, and of random subspaces."
    return finish_matrix(figure, question, alt, palette, skills, f"{label} ({unit})")


def _random(table: pd.DataFrame, column: str) -> pd.Series:
    """The three random rows by kind."""
    return (
        table[table["kind"].isin(QUANTILE_NAMES)]
        .set_index("kind")[column]
        .loc[list(QUANTILE_NAMES)]
    )


def _limits(measure: str, rank: int) -> tuple[tuple[float, float], tuple]:
    """Ends of the colour scale; dark is always much in common."""
    if measure in ("overlap", "excess"):
        return (0.0, 1.0), _SHARED
    turned = tuple((1 - place, colour) for place, colour in reversed(_SHARED))
    top = {"grassmann": 90 * sqrt(rank), "chordal": sqrt(rank)}.get(measure, 90.0)
    return (0.0, top), turned


def angle_bars(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """All principal angles of one pair, each over the band of random subspaces.

    Args:
        table: `angles_table` of one pair: columns kind, a, b, m, angle (radians), draws.
        palette: Colours.
    """
    question = "Which directions do two skills share?"
    run = table[table["kind"] == RUN].sort_values("m")
    if run.empty:
        return empty(question, _ONE, palette)
    a, b = run.iloc[0][["a", "b"]]
    style = styles(["angle"], palette)["angle"]
    angles = run["angle"] * 180 / pi
    figure = go.Figure(
        go.Bar(
            x=run["m"],
            y=angles,
            name=f"{a} and {b}",
            marker={"color": style.colour},
            width=0.5,
            text=[f"{angle:.1f}°" for angle in angles],
            textposition="inside",
            insidetextanchor="start",
            hovertemplate="angle %{x}: %{y:.6g}°<extra>%{fullData.name}</extra>",
        )
    )
    low, middle, high = (
        table[table["kind"] == kind].sort_values("m")["angle"].to_numpy() * 180 / pi
        for kind in QUANTILE_NAMES
    )
    figure.add_scatter(
        x=run["m"] + 0.36,
        y=middle,
        mode="markers",
        name=f"random, 95 % of {run['draws'].iloc[0]} draws",
        marker={"color": palette.muted, "symbol": "line-ew-open", "size": 12},
        error_y={
            "type": "data",
            "array": high - middle,
            "arrayminus": middle - low,
            "color": palette.muted,
            "thickness": 2,
            "width": 7,
        },
        customdata=np.column_stack([low, high]),
        hovertemplate="random: median %{y:.4g}°, 95 %% from %{customdata[0]:.4g}° to "
        "%{customdata[1]:.4g}°<extra></extra>".replace("%%", "%"),
    )
    figure.add_hline(y=90, line={"color": palette.muted, "dash": "dot", "width": 1})
    figure.update_xaxes(title="principal angle, smallest first", dtick=1 if len(run) < 20 else 5)
    figure.update_yaxes(title="angle (degrees)", range=[0, 99], tickvals=[0, 30, 60, 90])
    alt = f"Bars: {len(run)} principal angles between {a} and {b}, with the range of random ones."
    return finish(figure, question=question, alt=alt, palette=palette, height=340)


def leak_matrix(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    measure: str = WRITE_LEAK,
    palette: Palette = LIGHT,
) -> go.Figure:
    """One leak for each ordered pair of skills, and beside it what random subspaces give.

    Args:
        table: `leaks_table`: columns kind, measure, source, target, value (0 to 1), n.
        names: Order of the skills.
        measure: `write leak`, `read leak` or `data-weighted overlap`.
        palette: Colours.
    """
    question = _LEAKS[measure]
    part = table[table["measure"] == measure]
    run = part[part["kind"] == RUN]
    if run.empty or run["value"].isna().all():
        text = _ONE if run.empty else "This form of edit reads no state, so nothing can leak in."
        return empty(question, text, palette)
    skills = ordered(names, [*run["source"], *run["target"]])
    values = run.pivot(index="source", columns="target", values="value")
    chance = _random(part, "value")
    figure = matrix_beside_chance(
        values.reindex(index=skills, columns=skills).to_numpy(),
        skills,
        chance,
        limits=(0.0, 1.0),
        scale=_SHARED,
        digits=2,
        hover=f"{measure} %{{z:.6g}}",
        of="%{y} → %{x}",
    )
    alt = f"Matrix: {measure} (0 to 1) for {len(skills)} skills, and for random subspaces."
    rows, columns = {
        WRITE_LEAK: ("edit of", "lands in subspace of"),
        READ_LEAK: ("subspace of", "is read by"),
        DATA_OVERLAP: ("", ""),
    }[measure]
    return finish_matrix(
        figure, question, alt, palette, skills, f"{measure} (0 to 1)", (rows, columns)
    )
