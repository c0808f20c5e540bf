"""The Gram matrix of all basis vectors, of a run and of one random draw."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import RANDOM, RUN
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered

# Readable on both themes because each cell has its own colour.
_SIGNED = (
    (0.0, "#a63603"),
    (0.25, "#f0a36b"),
    (0.5, "#f4f5f7"),
    (0.75, "#7fb3dc"),
    (1.0, "#0b4f94"),
)


def gram_matrix(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """The Gram matrix of the stacked rows with a border around each block, and a random one.

    Args:
        table: `gram_table`: columns kind, row_skill, row, column_skill, column, value (no unit).
        names: Order of the skills.
        palette: Colours.
    """
    question = "Is each basis orthonormal, are the blocks orthogonal?"
    if table.empty:
        return empty(question, "There are no basis vectors to show.", palette)
    skills = ordered(names, table["row_skill"])
    rank = int(table["row"].max())
    size = rank * len(skills)
    figure = make_subplots(
        rows=2,
        cols=1,
        vertical_spacing=0.1,
        shared_xaxes=True,
        subplot_titles=("this run", "one random draw"),
    )
    places = [(skill, m) for skill in skills for m in range(1, rank + 1)]
    for place, kind in enumerate((RUN, RANDOM), 1):
        part = table[table["kind"] == kind]
        matrix = part.pivot(
            index=["row_skill", "row"], columns=["column_skill", "column"], values="value"
        )
        values = matrix.loc[places, places].to_numpy()
        figure.add_trace(_gram_heat(values, places), row=place, col=1)
        for border in range(rank, size, rank):
            line = {"color": "#3a4250", "width": 2}
            for ends in (
                {"x0": border - 0.5, "x1": border - 0.5, "y0": -0.5, "y1": size - 0.5},
                {"y0": border - 0.5, "y1": border - 0.5, "x0": -0.5, "x1": size - 0.5},
            ):
                figure.add_shape(type="line", line=line, row=place, col=1, **ends)
    middles = [i * rank + (rank - 1) / 2 for i in range(len(skills))]
    figure.update_xaxes(tickvals=middles, ticktext=skills, showgrid=False, zeroline=False)
    figure.update_yaxes(
        tickvals=middles, ticktext=skills, showgrid=False, zeroline=False, range=[size - 0.5, -0.5]
    )
    alt = f"Two matrices of {size} rows: products of all basis vectors, of this run and random."
    height = 130 + 2 * min(420, max(150, 32 * size))
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_annotations(font={"size": 13})


def _gram_heat(values: np.ndarray, places: list[tuple[str, int]]) -> go.Heatmap:
    n = len(values)
    labels = [f"{skill} {m}" for skill, m in places]
    return go.Heatmap(
        z=values,
        x=list(range(n)),
        y=list(range(n)),
        zmin=-1,
        zmax=1,
        colorscale=_SIGNED,
        showscale=False,
        text=[[_short(v) for v in row] for row in values],
        texttemplate="%{text}" if n <= 12 else "",
        textfont={"size": 10},
        customdata=[[f"{a} · {b}" for b in labels] for a in labels],
        hovertemplate="%{customdata}: %{z:.6g}<extra></extra>",
    )


def _short(value: float) -> str:
    """Two digits without the leading zero, so that a cell stays readable on a telephone."""
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("0.", ".").removesuffix(".00")
