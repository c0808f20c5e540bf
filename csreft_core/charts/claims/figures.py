"""Figure of a claim: what was measured for each of its conditions, beside the bound."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import NOT_SHOWN, OPPOSITE, SHOWN
from csreft_core.charts.theme import LIGHT, Palette, empty, finish

_COLOURS = {SHOWN: 2, NOT_SHOWN: 4, OPPOSITE: 1}
_MARKERS = {SHOWN: "circle", NOT_SHOWN: "diamond", OPPOSITE: "x"}


def condition_intervals(
    table: pd.DataFrame, claim: str | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """The interval of each condition and its bound; the claim needs the shaded side.

    Args:
        table: `conditions_table` of `analysis.claims`: columns claim, condition, rule, value, low,
            high, unit, n, seeds, over, finding.
        claim: Only the conditions of this claim; None draws all.
        palette: Colours.
    """
    question = "On which side of its bound does each measurement lie?"
    part = table if claim is None else table[table["claim"] == claim]
    part = part[part["finding"] != ""] if len(part) else part
    if part.empty:
        return empty(question, "Nothing is measured for this claim yet.", palette, 120)
    rows = part.to_dict("records")
    figure = make_subplots(rows=len(rows), cols=1, vertical_spacing=0.5 / len(rows))
    for place, row in enumerate(rows, 1):
        _add_interval(figure, row, place, palette)
    findings = ", ".join(f"{row['condition']} {row['finding']}" for row in rows)
    return finish(
        figure,
        question=question,
        alt=f"Intervals and their bounds: {findings}.",
        palette=palette,
        height=40 + 125 * len(rows),
    )


def _add_interval(figure: go.Figure, row: dict, place: int, palette: Palette) -> None:
    bound, above = row["bound"], row["must"] == "above"
    ends = [row["low"], row["high"], row["value"], bound]
    room = 0.15 * (max(ends) - min(ends)) or 0.1 * abs(bound) or 0.1
    left, right = min(ends) - room, max(ends) + room
    number = "" if place == 1 else str(place)
    axes = {"xref": f"x{number}", "yref": f"y{number} domain", "y0": 0, "y1": 1}
    figure.add_shape(
        type="rect",
        x0=bound if above else left,
        x1=right if above else bound,
        fillcolor=palette.colours[2],
        opacity=0.15,
        line={"width": 0},
        **axes,
    )
    figure.add_shape(
        type="line",
        x0=bound,
        x1=bound,
        **axes,
        line={"color": palette.muted, "dash": "dash", "width": 2},
    )
    colour = palette.colours[_COLOURS[row["finding"]]]
    figure.add_scatter(
        x=[row["value"]],
        y=[row["condition"]],
        mode="markers",
        showlegend=False,
        marker={"color": colour, "symbol": _MARKERS[row["finding"]], "size": 12},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["high"] - row["value"]],
            "arrayminus": [row["value"] - row["low"]],
            "color": colour,
            "thickness": 3,
            "width": 6,
        },
        customdata=[
            [
                row["low"],
                row["high"],
                row["n"],
                row["seeds"],
                row["over"],
                row["rule"],
                row["finding"],
            ]
        ],
        hovertemplate="%{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<br>over "
        "%{customdata[4]}, n = %{customdata[2]}, seeds %{customdata[3]}<br>%{customdata[5]}: "
        "%{customdata[6]}<extra></extra>",
        row=place,
        col=1,
    )
    title = f"{row['condition']}{', ' + row['unit'] if row['unit'] else ''}"
    figure.update_xaxes(title=title, range=[left, right], row=place, col=1)
    figure.update_yaxes(showticklabels=False, row=place, col=1)
