"""Figures of gates: of one prompt, and over many prompts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.charts.elements import add_links, bar_marker, name_rows, panel_places
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
            marker=bar_marker(
                [style[s].colour for s in subspaces], [style[s].pattern for s in subspaces]
            ),
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
    name_rows(figure, subspaces)
    n = table["prompt"].nunique()
    alt = f"Points: the gates of {n} prompts, a row for each subspace, marked by the true skill."
    height = 130 + 46 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def gates_by_source(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Every gate of held-out prompts, marked by the true skill, a panel for each source.

    Args:
        table: `distribution_table`: columns source, prompt, skill, subspace, gate (no unit).
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    question = "Do the gates depend on the prompt?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    sources, skills = list(dict.fromkeys(table["source"])), ordered(names, table["skill"])
    style = styles(ordered(names, [*table["subspace"], *skills]), palette)
    lines, places = panel_places(len(sources))
    rows_of = {s: ordered(names, table["subspace"][table["source"] == s]) for s in sources}
    # Equal rows have their names on the left only.
    alike = len({tuple(rows) for rows in rows_of.values()}) == 1
    figure = make_subplots(
        rows=lines,
        cols=min(2, len(sources)),
        subplot_titles=[name.replace(" (", "<br>(") for name in sources],
        shared_xaxes=True,
        horizontal_spacing=0.05 if alike else 0.2,
        vertical_spacing=0.24 / lines,
    )
    for i, (source, place) in enumerate(zip(sources, places, strict=True)):
        of_source = table[table["source"] == source]
        subspaces = rows_of[source]
        for j, skill in enumerate(skills):
            part = of_source[of_source["skill"] == skill]
            figure.add_scatter(
                x=part["gate"],
                y=part["subspace"].map(subspaces.index) + _lane(part["subspace"], j, len(skills)),
                mode="markers",
                name=skill or "no label",
                legendgroup=skill,
                showlegend=i == 0,
                marker={
                    "color": style[skill].colour,
                    "symbol": style[skill].marker,
                    "size": 6,
                    "opacity": 0.7,
                },
                customdata=part[["prompt", "subspace"]],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]}: gate %{x:.6f}"
                "<extra>%{fullData.name}</extra>",
                **place,
            )
        name_rows(figure, subspaces, showticklabels=place["col"] == 1 or not alike, **place)
    figure.update_xaxes(range=[-0.05, 1.05], tickvals=[0, 0.5, 1])
    figure.update_xaxes(title="gate (no unit)", row=lines)
    figure.update_annotations(font={"size": 13})
    n = len(table) // max(1, len(table.drop_duplicates(["source", "subspace"])))
    alt = f"Points: gates of {n} prompts, a panel for each of {len(sources)} sources of gates."
    height = 110 + lines * 220
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_layout(
        margin={"t": 66}, legend={"y": 1 + 40 / height, "itemsizing": "constant"}
    )


def _lane(subspaces: pd.Series, lane: int, n_lanes: int) -> np.ndarray:
    """Each skill has a lane in the row of a subspace; its points fill it evenly."""
    count = subspaces.groupby(subspaces, sort=False).cumcount().to_numpy()
    size = subspaces.map(subspaces.value_counts()).to_numpy()
    return 0.8 * ((lane + 0.15 + 0.7 * (count + 0.5) / np.maximum(size, 1)) / n_lanes - 0.5)


def gate_difference(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Each gate of the pinned prompt and of the one of now, joined by a line.

    Args:
        table: `difference_table`: columns subspace, pinned, now (gates), change.
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "What did the edit of the prompt change?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    subspaces = ordered(names, table["subspace"])
    style = styles(subspaces, palette)
    rows = table.set_index("subspace").loc[subspaces]
    figure = go.Figure()
    colours = [style[subspace].colour for subspace in subspaces]
    add_links(figure, rows["pinned"], rows["now"], colours, width=3)
    for column, symbol in (("pinned", "circle-open"), ("now", "circle")):
        figure.add_scatter(
            x=rows[column],
            y=list(range(len(subspaces))),
            mode="markers+text" if column == "now" else "markers",
            name=column,
            text=[f"{c:+.3f}" if abs(c) >= 0.0005 else "0" for c in rows["change"]],
            textposition="top center",
            cliponaxis=False,
            marker={
                "color": colours,
                "symbol": symbol,
                "size": 13,
                "line": {"width": 2},
            },
            customdata=[[s] for s in subspaces],
            hovertemplate=f"%{{customdata[0]}}, {column}: gate %{{x:.6f}}<extra></extra>",
        )
    figure.update_xaxes(title="gate (no unit, 0 closed, 1 open)", range=[-0.06, 1.06])
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1])
    name_rows(figure, subspaces, range=[len(subspaces) - 0.4, -0.7])
    alt = f"Pairs of points: {len(subspaces)} gates for the pinned prompt and for the one of now."
    height = 120 + 44 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)
