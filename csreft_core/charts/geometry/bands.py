"""The strip of what random subspaces give, behind the curves of a run."""

from math import pi
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from csreft_core.analysis.labels import (
    RANDOM,
    RANDOM_HIGH,
    RANDOM_LOW,
)
from csreft_core.charts.theme import Palette

BAND = "random (95 %)"
"""Its name in a legend."""


def band_over_steps(
    figure: go.Figure, table: pd.DataFrame, row: int, palette: Palette, n: int
) -> None:
    """What random subspaces give, as a strip over all steps."""
    values = table[table["kind"].str.startswith(RANDOM)].set_index("kind")["angle"] * 180 / pi
    steps = table["step"].dropna()
    ends = {kind: [values[kind]] * 2 for kind in (RANDOM_LOW, RANDOM_HIGH)}
    hover = "{kind}: %{{y:.4g}}°"
    place = {"row": row, "col": 1}
    shown = row == n
    _add_band(figure, [steps.min(), steps.max()], ends, hover, place, palette, shown, opacity=0.9)


def _add_band(
    figure: go.Figure,
    x: Any,
    ends: dict[str, Any],
    hover: str,
    place: dict[str, Any],
    palette: Palette,
    shown: bool,
    **more: Any,
) -> None:
    """A strip from the low to the high quantile of random subspaces, once in the legend."""
    for kind, fill in ((RANDOM_LOW, None), (RANDOM_HIGH, "tonexty")):
        strip = go.Scatter(
            x=x,
            y=ends[kind],
            mode="lines",
            fill=fill,
            name=BAND,
            legendgroup="random",
            showlegend=shown and kind == RANDOM_HIGH,
            line={"color": palette.muted, "width": 1, "dash": "dot"},
            fillcolor="rgba(128,136,150,0.22)",
            hovertemplate=f"{hover.format(kind=kind)}<extra></extra>",
            **more,
        )
        figure.add_trace(strip, **place)


def band_by_layer(
    figure: go.Figure, table: pd.DataFrame, place: dict[str, Any], palette: Palette, *, shown: bool
) -> None:
    """What random subspaces give at each block."""
    low, high = (
        table[table["kind"] == kind].sort_values("layer") for kind in (RANDOM_LOW, RANDOM_HIGH)
    )
    ends = {RANDOM_LOW: low["value"], RANDOM_HIGH: high["value"]}
    hover = "block %{{x}}, {kind}: %{{y:.4g}}"
    _add_band(figure, low["layer"], ends, hover, place, palette, shown)
