"""Figures of the memory that a base needs: its parts, beside what is free, and of many bases."""

from typing import SupportsFloat

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.charts.elements import bar_marker
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, styles

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("bytes", 1))


def size_text(n_bytes: SupportsFloat) -> str:
    """A size as one reads it, such as `3.9 GB` or `45 MB`; 1 GB is 10⁹ bytes."""
    unit, factor = _unit(float(n_bytes))
    digits = 1 if unit == "GB" or 1e6 <= float(n_bytes) < 1e7 else 0
    return f"{float(n_bytes) / factor:.{digits}f} {unit}"


def _unit(most: float) -> tuple[str, int]:
    return next((u, f) for u, f in _UNITS if abs(most) >= f or f == 1)


def need_bars(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """The parts of what is needed, stacked, and below it their sum beside what is free.

    The upper panel has a scale of its own: beside the free memory of a machine the parts of a
    small base could not be told apart.

    Args:
        table: `need_table`: columns kind (`needed`, `free`), part, bytes.
        palette: Colours.
    """
    question = "Will it fit before I wait?"
    parts = table[table["kind"] == "needed"]
    if parts.empty:
        return empty(question, "Choose a base to see what it needs.", palette)
    needed, free = float(parts["bytes"].sum()), float(table[table["kind"] == "free"]["bytes"].sum())
    figure = make_subplots(
        rows=2,
        cols=1,
        row_heights=[0.4, 0.6],
        vertical_spacing=0.36,
        subplot_titles=["What is needed, in parts", "Needed beside free"],
    )
    style = styles(parts["part"], palette)
    unit, factor = _unit(needed)
    for part, n_bytes in zip(parts["part"], parts["bytes"], strict=True):
        figure.add_bar(
            x=[n_bytes / factor],
            y=["needed"],
            orientation="h",
            name=part,
            row=1,
            col=1,
            marker=bar_marker(style[part].colour, style[part].pattern),
            hovertemplate=f"{part}: {size_text(n_bytes)} ({n_bytes / needed:.1%} of what is "
            "needed)<extra></extra>",
        )
    _add_sums(figure, {"needed": needed, "free": free}, palette)
    figure.update_xaxes(title=f"memory ({unit})", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(showticklabels=False, row=1, col=1)
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
    alt = (
        f"Two panels of bars: the {len(parts)} parts of {size_text(needed)} needed, and their sum "
        f"beside {size_text(free)} free."
    )
    finish(figure, question=question, alt=alt, palette=palette, height=390)
    return figure.update_layout(
        barmode="stack", margin={"t": 84}, legend={"y": 1.14, "traceorder": "normal"}
    )


def _add_sums(figure: go.Figure, sizes: dict[str, float], palette: Palette) -> None:
    """One bar for each sum; what does not fit has the colour and the pattern of a warning."""
    fits = sizes["needed"] <= sizes["free"]
    unit, factor = _unit(max(sizes.values()))
    figure.add_bar(
        x=[n_bytes / factor for n_bytes in sizes.values()],
        y=list(sizes),
        orientation="h",
        showlegend=False,
        row=2,
        col=1,
        marker=bar_marker(
            [palette.colours[0 if fits else 1], palette.muted], ["" if fits else "/", ""]
        ),
        text=[f"{size_text(n_bytes)} {name}" for name, n_bytes in sizes.items()],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(
        title=f"memory ({unit})", range=[0, 1.5 * max(sizes.values()) / factor], row=2, col=1
    )
    figure.update_yaxes(autorange="reversed", row=2, col=1)


def base_sizes(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """What each known base needs in several number formats, and what is free.

    Args:
        table: `known_bases_table`: columns base, precision, bytes, free (bytes).
        palette: Colours.
    """
    question = "Which of the known bases fit on this machine?"
    if table.empty:
        return empty(question, "No base is known.", palette)
    free = float(table["free"].iloc[0])
    figure = go.Figure()
    style = styles(table["precision"], palette)
    for precision, rows in table.groupby("precision", sort=False):
        name = str(precision)
        figure.add_scatter(
            x=rows["bytes"] / 10**9,
            y=rows["base"],
            mode="markers",
            name=name,
            marker={"color": style[name].colour, "symbol": style[name].marker, "size": 11},
            customdata=[size_text(n_bytes) for n_bytes in rows["bytes"]],
            hovertemplate="%{y}: %{customdata}<extra>" + name + "</extra>",
        )
    figure.add_vline(
        x=free / 10**9,
        line={"color": palette.muted, "dash": "dash", "width": 2},
        annotation_text=f"free: {size_text(free)}",
        annotation_position="bottom right",
    )
    figure.update_xaxes(title="needed memory (GB, logarithmic)", type="log", dtick=1)
    figure.update_yaxes(autorange="reversed", type="category")
    names = table["base"].nunique()
    alt = f"Dots: memory that {names} bases need; a dashed line at {size_text(free)}, what is free."
    return finish(figure, question=question, alt=alt, palette=palette, height=120 + 26 * names)
