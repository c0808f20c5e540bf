"""States over the steps of a training: a slider and a play button, on axes that stay."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.states.pairs import (
    axes_of,
    legend_of_kinds,
    pair_places,
    pair_traces,
    style_of,
)
from csreft_core.charts.theme import LIGHT, Palette, empty, finish


def training_states(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Base and edited states at each snapshot; the last is shown first.

    Args:
        table: `training_table`.
        names: Order of the skills.
        palette: Colours.
    """
    question = "How did the edit form in training?"
    if table.empty:
        return empty(question, "This run has no snapshots of its training.", palette)
    axes, style = axes_of(table), style_of(table, names, palette)
    kinds = legend_of_kinds(palette, three=len(axes) == 3)
    steps = sorted(table["step"].unique().tolist())
    last = pair_traces(table[table["step"].eq(steps[-1])], axes, style, palette)
    # A frame moves the traces; their looks stay.
    pictures = [pair_places(table[table["step"].eq(step)], axes, style) for step in steps]
    frames = [
        go.Frame(
            name=str(step),
            data=picture,
            traces=list(range(len(kinds), len(kinds) + len(last))),
        )
        for step, picture in zip(steps, pictures, strict=True)
    ]
    figure = go.Figure(data=[*kinds, *last], frames=frames)
    ranges = {axis: _range(table[axis]) for axis in axes}
    if len(axes) == 3:
        figure.update_scenes(
            {
                f"{axis}axis": {"range": ranges[axis], "title": {"text": f"{axis} (units of h)"}}
                for axis in axes
            }
        )
    else:
        figure.update_xaxes(title="axis 1 (units of h)", range=ranges["x"], zeroline=False)
        figure.update_yaxes(title="axis 2 (units of h)", range=ranges["y"], zeroline=False)
    figure.update_layout(sliders=[_slider(steps)], updatemenus=[_buttons(redraw=len(axes) == 3)])
    n = int(table[["prompt", "skill"]].drop_duplicates().shape[0])
    alt = (
        f"Animation over {len(steps)} steps of training: states of {n} validation prompts, open "
        "without and filled with the adapter, on axes that stay."
    )
    return finish(figure, question=question, alt=alt, palette=palette, height=600)


def _range(values: pd.Series) -> list[float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low or 1.0)
    return [low - margin, high + margin]


def _slider(steps: Sequence[int]) -> dict:
    at_once = {"mode": "immediate", "frame": {"duration": 0}, "transition": {"duration": 0}}
    return {
        "active": len(steps) - 1,
        "currentvalue": {"prefix": "step "},
        "pad": {"t": 62, "l": 70},
        "steps": [
            {"label": str(step), "method": "animate", "args": [[str(step)], at_once]}
            for step in steps
        ],
    }


def _buttons(*, redraw: bool) -> dict:
    play = {
        "frame": {"duration": 500, "redraw": redraw},
        "transition": {"duration": 300 if not redraw else 0},
        "fromcurrent": False,
    }
    return {
        "type": "buttons",
        "showactive": False,
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 82},
        "buttons": [{"label": "Play", "method": "animate", "args": [None, play]}],
    }
