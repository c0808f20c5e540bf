"""Figures of parameter counts: a setting in its parts beside other methods, and 0.0098 %."""

import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.elements import bar_marker
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, styles

_PARTS = ("subspaces", "router", "all")
_LABELS = {"subspaces": "subspaces", "router": "router", "all": "another method"}


def parameter_bars(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """What each method trains, CS-ReFT in its two parts.

    Args:
        table: `calculator_table`: columns method, part, parameters, share (%), share_nominal.
        palette: Colours.
    """
    question = "How much is trained, and how much of it is the router?"
    if table.empty:
        return empty(question, "Choose a base.", palette)
    style, figure = styles(_PARTS, palette), go.Figure()
    for part in _PARTS:
        rows = table[table["part"] == part]
        figure.add_bar(
            y=rows["method"],
            x=rows["parameters"],
            orientation="h",
            name=_LABELS[part],
            marker=bar_marker(
                palette.muted if part == "all" else style[part].colour,
                "" if part == "all" else style[part].pattern,
            ),
            customdata=rows[["share", "share_nominal"]],
            hovertemplate="%{y}, " + _LABELS[part] + ": %{x:,} parameters<br>%{customdata[0]:.4f} "
            "% of the base, %{customdata[1]:.4f} % of its nominal size<extra></extra>",
        )
    sums = table.groupby("method", sort=False)[["parameters", "share"]].sum()
    figure.add_scatter(
        x=sums["parameters"],
        y=list(sums.index),
        mode="text",
        showlegend=False,
        hoverinfo="skip",
        text=[f" {share:.4f} %" for share in sums["share"]],
        textposition="middle right",
        cliponaxis=False,
    )
    most = float(sums["parameters"].max())
    figure.update_xaxes(title="trained parameters", range=[0, 1.3 * most], tickformat="~s")
    figure.update_yaxes(autorange="reversed")
    alt = f"Bars: trained parameters of {len(sums)} methods; those of CS-ReFT in two parts."
    finish(figure, question=question, alt=alt, palette=palette, height=110 + 36 * len(sums))
    return figure.update_layout(barmode="stack", legend={"traceorder": "normal"})


def share_dots(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """The share of each reading beside the interval that prints 0.0098 %.

    Args:
        table: `inversion_table`: columns reading, ranks, total, share, prints, possible; its first
            two rows are the ends of the interval.
        palette: Colours.
    """
    question = "Which settings could have printed 0.0098 %?"
    if len(table) < 3:
        return empty(question, "Nothing to show.", palette)
    low, high = table["share"].iloc[0], table["share"].iloc[1]
    rows = table.iloc[2:]
    inside = rows["share"].between(low, high)
    figure = go.Figure()
    figure.add_vline(x=(low + high) / 2, line={"color": palette.muted, "width": 2, "dash": "dash"})
    for fits, label, place in ((True, "prints 0.0098", 2), (False, "does not", 1)):
        part = rows[inside == fits]
        figure.add_scatter(
            x=part["share"],
            y=part["reading"],
            mode="markers+text",
            name=label,
            text=[f"  {text} %" for text in part["prints"]],
            textposition="middle right",
            marker={
                "color": palette.colours[place],
                "symbol": "circle" if fits else "x",
                "size": 11,
            },
            cliponaxis=False,
            customdata=part[["subspaces", "router", "total"]],
            hovertemplate="%{y}<br>subspaces %{customdata[0]:,}, router %{customdata[1]:,}, "
            "together %{customdata[2]:,}<br>%{x:.5f} %<extra></extra>",
        )
    figure.update_xaxes(
        title="share of Llama-2-7B (%, logarithmic)", type="log", range=[-2.15, -0.1], dtick=1
    )
    labels = rows["reading"].tolist()
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=labels,
        autorange="reversed",
        tickvals=labels,
        ticktext=[_wrap(text) for text in labels],
    )
    alt = f"Dots: share of {len(rows)} readings; {int(inside.sum())} of them print 0.0098."
    finish(figure, question=question, alt=alt, palette=palette, height=130 + 44 * len(rows))
    return figure.update_layout(margin={"t": 64}, legend={"y": 1.12})


def _wrap(text: str, width: int = 26) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
