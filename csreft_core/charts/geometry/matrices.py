"""Matrices of pairs of skills, with what random subspaces give beside them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import (
    RANDOM_HIGH,
    RANDOM_LOW,
    RANDOM_MEDIAN,
)
from csreft_core.charts.theme import Palette, finish

QUANTILE_NAMES = {RANDOM_LOW: "2.5 %", RANDOM_MEDIAN: "median", RANDOM_HIGH: "97.5 %"}
"""Kind of a row of random subspaces -> its name in a cell."""


def matrix_beside_chance(
    values: np.ndarray,
    skills: Sequence[str],
    chance: pd.Series,
    *,
    limits: tuple[float, float],
    scale: tuple,
    digits: int,
    hover: str,
    of: str,
) -> go.Figure:
    """A heat-map skill × skill; in a column of its own, three quantiles of random subspaces."""
    k = len(skills)
    figure = make_subplots(rows=1, cols=2, column_widths=[k, 1.25], horizontal_spacing=0.06)
    shared = {
        "zmin": limits[0],
        "zmax": limits[1],
        "colorscale": scale,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "texttemplate": "%{text}",
        "textfont": {"size": 12},
    }
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=list(range(k)),
            y=list(range(k)),
            text=_texts(values, digits),
            customdata=[[[a, b] for b in skills] for a in skills],
            hovertemplate=f"{of}: {hover}<extra></extra>".replace(
                "%{y}", "%{customdata[0]}"
            ).replace("%{x}", "%{customdata[1]}"),
            **shared,
        ),
        row=1,
        col=1,
    )
    column = chance.to_numpy()[:, None]
    figure.add_trace(
        go.Heatmap(
            z=column,
            x=[0],
            y=list(range(len(chance))),
            text=_texts(column, digits, [f"{QUANTILE_NAMES[kind]}<br>" for kind in chance.index]),
            customdata=[[kind] for kind in chance.index],
            hovertemplate=f"%{{customdata}}: {hover}<extra></extra>",
            **shared,
        ),
        row=1,
        col=2,
    )
    ticks = {"tickvals": list(range(k)), "ticktext": list(skills)}
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed")
    figure.update_xaxes(ticks, row=1, col=1)
    figure.update_yaxes(ticks, row=1, col=1)
    figure.update_xaxes(tickvals=[0], ticktext=["random"], row=1, col=2)
    figure.update_yaxes(visible=False, row=1, col=2)
    return figure


def _texts(values: np.ndarray, digits: int, above: Sequence[str] = ()) -> list[list[str]]:
    """Numbers of cells; `above` stands over those of a column."""
    heads = above or [""] * len(values)
    return [[head + _text(v, digits) for v in row] for head, row in zip(heads, values, strict=True)]


def _text(value: float, digits: int) -> str:
    """A value that rounds to 0 but is not 0 says so; hovering tells it."""
    if np.isnan(value):
        return ""
    text = f"{value:.{digits}f}"
    return "≈0" if value != 0 and float(text) == 0 else text


def finish_matrix(
    figure: go.Figure,
    question: str,
    alt: str,
    palette: Palette,
    skills: Sequence[str],
    unit: str,
    axes: tuple[str, str] = ("", ""),
) -> go.Figure:
    """Give a matrix what all figures have, the titles of its axes, and its unit above it."""
    figure = finish(
        figure, question=question, alt=alt, palette=palette, height=150 + 46 * len(skills)
    )
    figure.update_yaxes(title=axes[0] or None, row=1, col=1)
    figure.update_xaxes(title=axes[1] or None, row=1, col=1)
    figure.add_annotation(
        text=unit,
        x=0,
        y=1.0,
        xref="paper",
        yref="paper",
        yshift=22,
        xanchor="left",
        showarrow=False,
    )
    return figure
