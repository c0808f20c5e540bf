"""Figures of subspaces over training, over blocks and over runs, each with the random band."""

from collections.abc import Sequence
from math import log10, pi

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import (
    ALL_SKILLS,
    BETWEEN_SKILLS,
    DIFFERENT_SKILLS,
    FROM_START,
    RANDOM_HIGH,
    RANDOM_LOW,
    RUN,
    SAME_SKILL,
)
from csreft_core.charts.elements import name_rows, panel_places
from csreft_core.charts.geometry.bands import BAND, band_by_layer, band_over_steps
from csreft_core.charts.theme import LIGHT, Palette, Style, empty, finish, ordered, styles, thin

_STEPS = "optimiser steps"


def drift_curves(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """How far each subspace turned from its start, and how near each pair is, over the steps.

    Args:
        table: `drift_table`: columns step, measure, kind, a, b, angle (radians).
        names: Order of the skills.
        palette: Colours.
    """
    question = "How far do the subspaces turn, and when do they separate?"
    run = table[table["kind"] == RUN]
    if run.empty:
        return empty(question, "This run has no snapshots of its training.", palette)
    turned = run[run["measure"] == FROM_START]
    between = run[run["measure"] == BETWEEN_SKILLS]
    n = 1 if between.empty else 2
    figure = make_subplots(
        rows=n,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.16,
        subplot_titles=("largest angle to its own start", "smallest angle between two skills")[:n],
    )
    skills = ordered(names, turned["a"])
    style = styles(skills, palette)
    for row, measure in enumerate((FROM_START, BETWEEN_SKILLS)[:n], 1):
        band_over_steps(figure, table[table["measure"] == measure], row, palette, n)
    for skill in skills:
        part = turned[turned["a"] == skill].sort_values("step")
        figure.add_trace(_line(part, style[skill], skill), row=1, col=1)
    for i, ((a, b), part) in enumerate(between.groupby(["a", "b"], sort=False)):
        line = go.Scatter(
            x=part["step"],
            y=part["angle"] * 180 / pi,
            mode="lines+markers",
            name="each pair",
            legendgroup="pair",
            showlegend=not i,
            line={"color": palette.muted, "width": 1},
            marker={"symbol": "circle-open", "size": 6},
            hovertemplate=f"step %{{x}}: %{{y:.6g}}°<extra>{a}, {b}</extra>",
        )
        figure.add_trace(line, row=2, col=1)
    figure.update_yaxes(title="angle (degrees)", range=[-3, 97], tickvals=[0, 30, 60, 90])
    figure.update_xaxes(title=_STEPS, row=n)
    alt = f"Lines over the steps: angle of {len(skills)} subspaces to their start, and of pairs."
    figure = finish(figure, question=question, alt=alt, palette=palette, height=110 + 190 * n)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(margin={"t": 74}, legend={"y": 1 + 36 / (110 + 190 * n)})


def _line(part: pd.DataFrame, style: Style, name: str) -> go.Scatter:
    return go.Scatter(
        x=part["step"],
        y=part["angle"] * 180 / pi,
        mode="lines+markers",
        name=name,
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.marker, "size": 8},
        hovertemplate="step %{x}: %{y:.6g}°<extra>%{fullData.name}</extra>",
    )


def constraint_and_chance(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Errors of the constraint on a logarithmic scale, and the mean overlap beside chance.

    Args:
        table: `training_table`: columns step, orthonormality_error, constraint_error, overlap,
            chance (none has a unit).
        palette: Colours.
    """
    question = "Does the constraint hold through training?"
    if table.empty:
        return empty(question, "This run has no records of its training.", palette)
    columns = ["orthonormality_error", "constraint_error"]
    columns = [column for column in columns if not table[column].isna().all()]
    pairs = not table["overlap"].isna().all()
    style = styles([*columns, "overlap"], palette)
    figure = make_subplots(rows=1 + pairs, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    for column in columns:
        # The logarithm has no 0; 1e-9 is far below what float32 can tell from 0 here.
        line = _curve(table.assign(**{column: table[column].clip(lower=1e-9)}), column, style)
        figure.add_trace(line, row=1, col=1)
    if pairs:
        figure.add_trace(_curve(table, "overlap", style), row=2, col=1)
        chance = {"color": palette.muted, "dash": "dot", "width": 2}
        figure.add_trace(
            go.Scatter(
                x=table["step"].iloc[[0, -1]],
                y=table["chance"].iloc[[0, -1]],
                mode="lines",
                name="random overlap, r/d",
                line=chance,
                hovertemplate="random: %{y:.6g}<extra></extra>",
            ),
            row=2,
            col=1,
        )
        figure.update_yaxes(title="overlap (0 to 1)", rangemode="tozero", row=2, col=1)
    # Always from 1e-9 to 1e-4 at least, so that rounding does not look like an error.
    top = max(-4.0, log10(table[columns].max().max() or 1e-9) + 0.5)
    figure.update_yaxes(
        title="error (no unit)",
        type="log",
        exponentformat="power",
        dtick=2,
        range=[-9.3, top],
        row=1,
        col=1,
    )
    figure.update_xaxes(title=_STEPS, row=1 + pairs)
    alt = "Lines over the steps: error of the constraint, and mean overlap beside that of chance."
    height = 150 + 140 * (1 + pairs)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _curve(table: pd.DataFrame, column: str, style: dict[str, Style]) -> go.Scatter:
    x, y = thin(table["step"], table[column])
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=column.replace("_", " "),
        line={"color": style[column].colour, "dash": style[column].dash, "width": 2},
        hovertemplate="step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    )


def mixing_curves(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """How much of each skill's subspace the blocks carry into the others', block by block.

    Args:
        table: `mixing_table`: columns kind, source, target, layer, value (no unit).
        names: Order of the skills.
        palette: Colours.
    """
    question = "Do the later blocks mix what the edit kept apart?"
    cross = table[(table["kind"] == RUN) & (table["source"] != table["target"])]
    if cross.empty:
        return empty(question, "This run has one subspace, so nothing can be mixed.", palette)
    skills = ordered(names, cross["source"])
    style = styles(skills, palette)
    columns = min(2, len(skills))
    rows, places = panel_places(len(skills), columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.28 / rows,
        subplot_titles=[f"from {skill}" for skill in skills],
    )
    for i, (source, place) in enumerate(zip(skills, places, strict=True)):
        band_by_layer(figure, table, place, palette, shown=not i)
        for target in skills:
            part = cross[(cross["source"] == source) & (cross["target"] == target)]
            s = style[target]
            line = go.Scatter(
                x=part["layer"],
                y=part["value"],
                mode="lines+markers",
                name=f"into {target}",
                legendgroup=target,
                legendrank=skills.index(target),
                line={"color": s.colour, "dash": s.dash, "width": 2},
                marker={"symbol": s.marker, "size": 7},
                hovertemplate=f"block %{{x}}: %{{y:.6g}}<extra>{source} → {target}</extra>",
            )
            # Each target once in the legend: the first is none in the first panel.
            line.showlegend = i == (1 if target == skills[0] else 0)
            if target != source:
                figure.add_trace(line, **place)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="norm (no unit)", col=1)
    figure.update_xaxes(dtick=1 if table["layer"].nunique() < 12 else 4)
    figure.update_xaxes(title="output of block", row=rows)
    alt = f"Lines over the blocks in {len(skills)} panels: norm carried from a skill into others."
    height = 120 + 170 * rows
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(margin={"t": 74}, legend={"y": 1 + 36 / height})


def seed_dots(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Overlap of each skill's subspace with those of other runs: same skill, others, chance.

    Args:
        table: `seeds_table`: columns kind, run, a, b, rank_a, rank_b, overlap (0 to 1) and the
            angles (radians).
        names: Order of the skills.
        palette: Colours.
    """
    question = "Would another run find the same subspace?"
    others = table[table["run"] != ""]
    if others.empty:
        return empty(question, "No other run to compare with.", palette)
    skills = [*ordered(names, others.loc[others["a"] != "all", "a"]), "all"]
    figure = go.Figure()
    chance = _chance_of_rows(table, others, skills)
    figure.add_bar(
        y=list(range(len(skills))),
        x=chance["high"] - chance["low"],
        base=chance["low"],
        orientation="h",
        width=0.62,
        name=BAND,
        marker={"color": "rgba(128,136,150,0.35)"},
        customdata=chance[["low", "high"]],
        hovertemplate="random: %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra></extra>",
    )
    style = styles([SAME_SKILL, ALL_SKILLS], palette)
    runs = list(dict.fromkeys(others["run"]))
    for kind, label, symbol, colour, size in (
        (DIFFERENT_SKILLS, "a different skill", "x-thin-open", palette.muted, 8),
        (SAME_SKILL, "the same skill", "circle", style[SAME_SKILL].colour, 12),
        (
            ALL_SKILLS,
            ALL_SKILLS,
            "diamond",
            style[ALL_SKILLS].colour,
            12,
        ),
    ):
        part = others[others["kind"] == kind]
        shift = part["run"].map(lambda run: 0.3 * ((runs.index(run) + 0.5) / len(runs) - 0.5))
        figure.add_scatter(
            x=part["overlap"],
            y=part["a"].map(skills.index) + shift,
            mode="markers",
            name=label,
            marker={
                "color": colour,
                "symbol": symbol,
                "size": size,
                "line": {"width": 2 if "thin" in symbol else 1, "color": colour},
            },
            customdata=part.assign(
                small=part["smallest_angle"] * 180 / pi, large=part["largest_angle"] * 180 / pi
            )[["a", "b", "run", "small", "large"]],
            hovertemplate="%{customdata[0]} here, %{customdata[1]} in %{customdata[2]}: overlap "
            "%{x:.6g}<br>angles %{customdata[3]:.4g}° to %{customdata[4]:.4g}°<extra></extra>",
        )
    figure.update_xaxes(title="overlap (0 to 1)", range=[-0.02, 1.02])
    labels = [*skills[:-1], "all together"]
    name_rows(figure, labels)
    alt = (
        f"Points: overlap of {len(skills) - 1} skills' subspaces with those of {len(runs)} other "
        "runs, above the range of random ones."
    )
    height = 150 + 48 * len(skills)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _chance_of_rows(
    table: pd.DataFrame, others: pd.DataFrame, skills: Sequence[str]
) -> pd.DataFrame:
    """Random overlap, low and high, for the ranks in each row of the figure."""
    keys = ["rank_a", "rank_b"]
    ends = table[table["run"] == ""].pivot(index=keys, columns="kind", values="overlap")
    first = others.drop_duplicates("a").set_index("a").loc[list(skills), keys]
    picked = ends.loc[list(first.itertuples(index=False, name=None))]
    return pd.DataFrame(
        {"low": picked[RANDOM_LOW].to_numpy(), "high": picked[RANDOM_HIGH].to_numpy()}
    )
