"""Heat-maps of signed values: diverging colours centred at 0, the value printed in each cell."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.theme import Palette, finish

# Blue helps and red hurts; the middle is grey, so 0 shows on a white and on a dark page.
# The colours change fastest near 0, so that a small help shows beside a large harm.
_PLACES = (0.0, 0.3, 0.45, 0.5, 0.55, 0.7, 1.0)
_TEXT_SIZE = 13
_TOP = 84
DIVERGING = ("#2166ac", "#92c5de", "#d1e0ea", "#ececec", "#f3d5c6", "#f4a582", "#b2182b")


def add_cells(
    figure: go.Figure,
    table: pd.DataFrame,
    rows: tuple[str, list[str], list[str]],
    columns: tuple[str, list[str], list[str]],
    value: str,
    extra: tuple[str, ...],
    hover: str,
    *,
    with_interval: bool = False,
    place: dict[str, Any] | None = None,
) -> None:
    """Add a heat-map on numeric axes; a cell shows its value and, below it, the interval.

    Args:
        figure: To add it to; its colours come from `finish_cells`.
        table: One row for each cell, with columns low and high where the interval is shown.
        rows: Column of the table, its values in order, and their labels.
        columns: The same for the columns of the heat-map.
        value: Column that is shown and coloured.
        extra: Columns for the hover text, before the two labels.
        hover: Template of the hover text, with `customdata`.
        with_interval: Show low and high below the value.
        place: `row` and `col` of the panel.
    """
    (row, row_names, row_labels), (column, column_names, column_labels) = rows, columns
    cells = {
        (r, c): cell
        for r, c, cell in zip(table[row], table[column], table.to_dict("records"), strict=True)
    }
    z, text, data = [], [], []
    for name, row_label in zip(row_names, row_labels, strict=True):
        line = [cells.get((name, other)) for other in column_names]
        z.append([None if cell is None else cell[value] for cell in line])
        text.append([_cell_text(cell, value, with_interval) for cell in line])
        data.append(
            [
                [*(None if cell is None else cell[e] for e in extra), row_label, label]
                for cell, label in zip(line, column_labels, strict=True)
            ]
        )
    figure.add_heatmap(
        z=z,
        x=list(range(len(column_names))),
        y=list(range(len(row_names))),
        text=text,
        texttemplate="%{text}",
        textfont={"size": _TEXT_SIZE},
        customdata=data,
        hovertemplate=hover,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        hoverongaps=False,
        **(place or {}),
    )


def _cell_text(cell: dict | None, value: str, with_interval: bool) -> str:
    if cell is None:
        return ""
    text = with_sign(cell[value])
    if not with_interval or pd.isna(cell["low"]) or cell["low"] == cell["high"]:
        return text
    return f"{text}<br><sub>{with_sign(cell['low'])} to {with_sign(cell['high'])}</sub>"


def with_sign(value: float) -> str:
    """A number with its sign, as short as it can be read: two digits after the point, or fewer."""
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "−0.00" if value < 0 else "+0.00"
    digits = 2 if abs(value) < 100 else 0
    return f"{value:+.{digits}f}".replace("-", "−")


def cell_axes(
    figure: go.Figure,
    rows: tuple[str, list[str]],
    columns: tuple[str, list[str]],
    place: dict[str, Any] | None = None,
) -> None:
    """Titles and labels of rows and columns, the first row on top."""
    shown: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": ""} | (place or {})
    figure.update_xaxes(
        title=columns[0],
        tickvals=list(range(len(columns[1]))),
        ticktext=columns[1],
        **shown,
    )
    figure.update_yaxes(
        title=rows[0],
        tickvals=list(range(len(rows[1]))),
        ticktext=rows[1],
        autorange="reversed",
        **shown,
    )


def finish_cells(
    figure: go.Figure,
    values: pd.Series,
    title: str,
    *,
    question: str,
    alt: str,
    palette: Palette,
    height: int,
    more_helps: bool = False,
) -> go.Figure:
    """Give a figure of cells one colour scale, centred at 0, and what all figures have.

    Args:
        figure: With the traces of `add_cells`.
        values: All values that are shown.
        title: What they are, with their unit.
        question: See `theme.finish`; so are the others.
        alt: Text for screen readers.
        palette: Colours of everything but the cells.
        height: Pixels.
        more_helps: Values above 0 help, so they are blue, as what helps is everywhere.
    """
    most = float(values.abs().max()) or 1.0
    colours = DIVERGING[::-1] if more_helps else DIVERGING
    finish(figure, question=question, alt=alt, palette=palette, height=height)
    # The title is a note of its own: a horizontal colour bar draws its title over itself.
    figure.add_annotation(
        text=title,
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0.5,
        y=1,
        yanchor="bottom",
        yshift=_TOP - 22,
    )
    figure.update_layout(
        margin={"t": _TOP},
        coloraxis={
            "colorscale": [list(stop) for stop in zip(_PLACES, colours, strict=True)],
            "cmin": -most,
            "cmax": most,
            "cmid": 0,
            "colorbar": {
                "orientation": "h",
                "thickness": 10,
                "len": 0.9,
                "x": 0.5,
                "xanchor": "center",
                "y": 1 - 16 / height,
                "yref": "container",
                "yanchor": "top",
            },
        },
    )
    return figure
