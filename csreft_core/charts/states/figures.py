"""Figures of states: where they lie without and with the adapter, and what the edit moves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import (
    AFTER,
    BASE,
    BASE_STATES,
    BEFORE,
    EDIT,
    EDIT_ON_BASE_AXES,
    EDITED,
    MAJORITY,
    PROBE,
    SHUFFLED_LABELS,
    SILHOUETTE,
    TARGET,
    TRUE_LABELS,
)
from csreft_core.charts.elements import bar_marker
from csreft_core.charts.states.pairs import axes_of, legend_of_kinds, pair_traces, style_of
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered

_NOTHING = "No prompts to show."


def state_scatter(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Base and edited states of prompts, each pair joined, in two or three dimensions.

    Args:
        table: `states_table`.
        names: Order of the skills; gives each its colour and marker.
        palette: Colours.
    """
    question = "What does the edit move?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    axes = axes_of(table)
    figure = go.Figure(legend_of_kinds(palette, three=len(axes) == 3))
    style = style_of(table, names, palette)
    figure.add_traces(pair_traces(table[~table["own"]], axes, style, palette))
    own = table[table["own"]]
    if not own.empty:
        figure.add_traces(pair_traces(own, axes, style, palette, own=True))
    # Equal scales: a distance means the same in every direction.
    if len(axes) == 3:
        short = {a: {"title": {"text": f"axis {i} (units of h)"}} for i, a in enumerate(axes, 1)}
        figure.update_scenes(
            {f"{axis}axis": short[axis] for axis in axes},
            aspectmode="data",
            camera={"eye": {"x": 1.7, "y": 1.7, "z": 1.0}},
        )
    else:
        figure.update_xaxes(title=_axis_title(table, "x", 1), zeroline=False)
        figure.update_yaxes(title=_axis_title(table, "y", 2), zeroline=False, scaleanchor="x")
    n = int((table["kind"].eq(BASE) & ~table["own"]).sum())
    alt = (
        f"Points: states of {n} prompts on {len(axes)} axes, open without and filled with the "
        "adapter, each pair joined by a line, marked by skill."
    )
    height = 560 if len(axes) == 3 else 480
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _axis_title(table: pd.DataFrame, axis: str, number: int) -> str:
    shares = [
        f"{table[f'{axis}_{column}'].iloc[0]:.1%} of {what}"
        for column, what in (("variance_frac", "variance"), ("edit_frac", "edit"))
        if not np.isnan(table[f"{axis}_{column}"].iloc[0])
    ]
    return f"axis {number} (units of h{''.join(f'; {s}' for s in shares)})"


def scree_bars(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """How much each component shows, of the base states and of the edit.

    Args:
        table: `scree_table`.
        palette: Colours.
    """
    question = "How much does a picture hide?"
    if table.empty:
        return empty(question, "All states are equal here: nothing to take apart.", palette)
    figure = go.Figure()
    patterns = ("", "/", ".")
    kinds = (BASE_STATES, EDIT, EDIT_ON_BASE_AXES)
    for i, kind in enumerate(kinds):
        part = table[table["kind"].eq(kind)]
        if part.empty:
            continue
        figure.add_bar(
            x=part["component"],
            y=part["frac"],
            name=kind,
            marker=bar_marker(palette.colours[i], patterns[i]),
            customdata=part["cumulative"],
            hovertemplate="component %{x}: %{y:.3%}, up to here %{customdata:.3%}"
            "<extra>%{fullData.name}</extra>",
        )
    chance = table["chance"].iloc[0]
    figure.add_hline(y=chance, line={"color": palette.muted, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="component", dtick=1)
    figure.update_yaxes(title="share of the total", tickformat=".0%", rangemode="tozero")
    figure.update_layout(barmode="group")
    n, most = int(table["n"].iloc[0]), int(table["component"].max())
    alt = (
        f"Bars: the share that each of the first {most} components shows over {n} prompts; dotted, "
        "a random axis."
    )
    finish(figure, question=question, alt=alt, palette=palette, height=330)
    return figure.update_layout(bargap=0.2)


def coordinate_scatter(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """One subspace's coordinates before and after the edit, with the target of open gates.

    Args:
        table: `coordinates_table`.
        names: Order of the skills.
        palette: Colours.
    """
    question = "Does the edit reach its target?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    one = table.iloc[0]
    line = one["rank"] == 1
    if line:
        table = _one_row_a_prompt(table, ordered(names, table["skill"]))
    named = table.replace({"kind": {BEFORE: BASE, AFTER: EDITED}})
    style = style_of(table, names, palette)
    figure = go.Figure(legend_of_kinds(palette, words=("before R h", "after R h'")))
    for own in (False, True):
        part = named[named["own"].eq(own) & named["kind"].ne(TARGET)]
        if not part.empty:
            figure.add_traces(pair_traces(part, ("x", "y"), style, palette, own=own))
    target = table[table["kind"].eq(TARGET) & table["gate"].gt(0.5)]
    figure.add_scatter(
        x=target["x"],
        y=target["y"],
        mode="markers",
        name=f"target {one['target']} (gate above 0.5)",
        marker={"symbol": "circle-open", "size": 15, "color": palette.muted, "line": {"width": 2}},
        customdata=target[["prompt", "gate", "distance"]],
        hovertemplate="%{customdata[0]}<br>gate %{customdata[1]:.4f}, distance of R h' "
        "%{customdata[2]:.4g}<extra>target</extra>",
    )
    more = f", first 2 of {one['rank']}" if one["rank"] > 2 else ""
    figure.update_xaxes(title=f"coordinate 1 of {one['subspace']} (units of h{more})")
    if line:
        figure.update_yaxes(title="prompts, by skill", showticklabels=False)
    else:
        figure.update_yaxes(title=f"coordinate 2 (units of h{more})", scaleanchor="x")
    n = int(table["kind"].eq(AFTER).sum())
    alt = (
        f"Points: coordinates of {n} prompts in the subspace {one['subspace']}, open before and "
        "filled after the edit, joined; rings are the targets of prompts whose gate is open."
    )
    return finish(figure, question=question, alt=alt, palette=palette, height=470)


def _one_row_a_prompt(table: pd.DataFrame, skills: Sequence[str]) -> pd.DataFrame:
    """A line has one coordinate: the prompts stand above each other, by skill."""
    place = {skill: i for i, skill in enumerate(skills)}
    order = table.assign(row=table["skill"].map(place)).groupby("kind")["row"]
    return table.assign(y=order.rank(method="first"))


def separation_dots(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Silhouette and probe accuracy of each kind of features, with their controls.

    Args:
        table: `separation_table`.
        palette: Colours.
    """
    question = "Where can one read the skill?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    words = {
        "gates": "gates",
        "R h": "R h",
        "random h": "random directions of h",
        "h": "base state h",
        "h'": "edited state h'",
    }
    features = ordered(words, table["features"])
    titles = ("silhouette, no unit<br>(1 is best)", "linear probe<br>(prompts right)")
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    kinds = {
        TRUE_LABELS: {"symbol": "circle", "size": 11, "color": palette.colours[0]},
        SHUFFLED_LABELS: {"symbol": "diamond-open", "size": 10, "color": palette.colours[1]},
        MAJORITY: {"symbol": "line-ns-open", "size": 16, "color": palette.muted},
    }
    for column, measure in enumerate((SILHOUETTE, PROBE), start=1):
        for offset, (kind, marker) in enumerate(kinds.items()):
            part = table[table["measure"].eq(measure) & table["kind"].eq(kind)]
            if part.empty:
                continue
            y = part["features"].map(features.index) + 0.16 * (offset - 0.5) * (offset < 2)
            figure.add_scatter(
                row=1,
                col=column,
                x=part["value"],
                y=y,
                mode="markers",
                name=kind,
                legendgroup=kind,
                showlegend=column == 2,
                marker=marker,
                error_x=_interval(part, marker["color"]) if offset < 2 else None,
                customdata=part[["features", "low", "high", "n", "n_features"]],
                hovertemplate="%{customdata[0]}: %{x:.4f} [%{customdata[1]:.4f}, "
                "%{customdata[2]:.4f}]<br>n = %{customdata[3]}, %{customdata[4]} numbers a prompt"
                "<extra>%{fullData.name}</extra>",
            )
        figure.update_xaxes(title=titles[column - 1], row=1, col=column)
    low = min(-0.1, float(table["low"].min()) - 0.05)
    figure.update_xaxes(range=[low, 1.05], row=1, col=1)
    figure.update_xaxes(range=[-0.05, 1.05], tickformat=".0%", row=1, col=2)
    figure.update_yaxes(
        tickvals=list(range(len(features))),
        ticktext=[words[f] for f in features],
        range=[len(features) - 0.5, -0.5],
        zeroline=False,
    )
    n = int(table["n"].iloc[0])
    alt = (
        f"Points with intervals: silhouette and probe accuracy of the skills over {n} prompts, for "
        f"{len(features)} kinds of features, beside shuffled labels and the majority class."
    )
    height = 150 + 44 * len(features)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _interval(part: pd.DataFrame, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": part["high"] - part["value"],
        "arrayminus": part["value"] - part["low"],
        "color": colour,
        "thickness": 1.5,
    }
