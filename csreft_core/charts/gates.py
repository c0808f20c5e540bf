"""Figures of gates: of one prompt, and over many prompts."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

_NO_GATES = "No gates to show: this adapter has no router, or no prompt was given."


def gate_bars(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    threshold: float | None = None,
    palette: Palette = LIGHT,
) -> go.Figure:
    """Bars of one prompt's gates, on the fixed scale from 0 to 1.

    Args:
        table: `gates_table` of one prompt: columns subspace, gate (no unit).
        names: Order of the subspaces; gives each its style on every figure.
        threshold: A line at the gate that counts as open.
        palette: Colours.
    """
    question = "Which gate does the router open?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    subspaces = ordered(names, table["subspace"])
    style = styles(subspaces, palette)
    gates = table.groupby("subspace", sort=False)["gate"].mean()[subspaces]
    figure = go.Figure(
        go.Bar(
            x=gates.to_numpy(),
            y=subspaces,
            orientation="h",
            marker={
                "color": [style[s].colour for s in subspaces],
                "pattern": {
                    "shape": [style[s].pattern for s in subspaces],
                    "fillmode": "replace",
                    "solidity": 0.5,
                },
            },
            text=[f"{gate:.3f}" for gate in gates],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: gate %{x:.6f}<extra></extra>",
        )
    )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": palette.muted, "dash": "dot", "width": 1})
    low, high = min(0.0, float(gates.min())), max(1.0, float(gates.max()))
    figure.update_xaxes(title="gate (no unit, 0 closed, 1 open)", range=[low, high * 1.12])
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_yaxes(autorange="reversed", title=None)
    alt = f"Bars: the gate of each of {len(subspaces)} subspaces for one prompt, from 0 to 1."
    height = 110 + 38 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def gates_over_prompts(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Each gate's values over many prompts, by the prompts' true skill, with its whole range.

    Args:
        table: `gates_table` of many prompts: columns prompt, skill, subspace, gate (no unit).
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    question = "Does a gate depend on the prompt?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    subspaces = ordered(names, table["subspace"])
    skills = ordered(names, table["skill"])
    style = styles(ordered(names, [*subspaces, *skills]), palette)
    figure = go.Figure()
    for i, subspace in enumerate(subspaces):
        gates = table.loc[table["subspace"] == subspace, "gate"]
        figure.add_scatter(
            x=[gates.min(), gates.max()],
            y=[i, i],
            mode="lines",
            line={"color": palette.muted, "width": 2},
            name=subspace,
            showlegend=False,
            hoverinfo="skip",
        )
    for j, skill in enumerate(skills):
        part = table[table["skill"] == skill]
        offset = 0.5 * ((j + 0.5) / len(skills) - 0.5)
        figure.add_scatter(
            x=part["gate"],
            y=part["subspace"].map(subspaces.index) + offset,
            mode="markers",
            name=skill or "no label",
            marker={
                "color": style[skill].colour,
                "symbol": style[skill].marker,
                "size": 8,
                "opacity": 0.75,
            },
            customdata=part[["prompt", "subspace"]],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}: gate %{x:.6f}"
            "<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title="gate (no unit, 0 closed, 1 open)", range=[-0.04, 1.04])
    figure.update_yaxes(
        tickvals=list(range(len(subspaces))),
        ticktext=subspaces,
        range=[len(subspaces) - 0.4, -0.6],
        zeroline=False,
    )
    n = table["prompt"].nunique()
    alt = f"Points: the gates of {n} prompts, a row for each subspace, marked by the true skill."
    height = 130 + 46 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)
