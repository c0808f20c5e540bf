"""Heat-maps of signed values: diverging colours centred at 0, the value printed in each cell."""

import pandas as pd
import plotly.graph_objects as go

# Blue helps and red hurts; the middle is grey, so 0 shows on a white and on a dark page.
DIVERGING = ("#2166ac", "#67a9cf", "#d1e0ea", "#ececec", "#f3d5c6", "#ef8a62", "#b2182b")


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
    place: tuple[int, int] | None = None,
) -> None:
    """Add a heat-map on numeric axes; a cell shows its value and, below it, the interval.

    Args:
        figure: To add it to; its colours are those of `diverging`.
        table: One row for each cell, with columns low and high where the interval is shown.
        rows: Column of the table, its values in order, and their labels.
        columns: The same for the columns of the heat-map.
        value: Column that is shown and coloured.
        extra: Columns for the hover text, before the two labels.
        hover: Template of the hover text, with `customdata`.
        with_interval: Show low and high below the value.
        place: Row and column of the subplot.
    """
    (row, row_names, row_labels), (column, column_names, column_labels) = rows, columns
    cells = {(r, c): cell for r, c, cell in zip(
        table[row], table[column], table.to_dict("records"), strict=True)}  # fmt: skip
    z, text, data = [], [], []
    for name, row_label in zip(row_names, row_labels, strict=True):
        found = [cells.get((name, other)) for other in column_names]
        z.append([None if cell is None else cell[value] for cell in found])
        text.append([_cell_text(cell, value, with_interval) for cell in found])
        data.append([
            [*(None if cell is None else cell[e] for e in extra), row_label, label]
            for cell, label in zip(found, column_labels, strict=True)
        ])  # fmt: skip
    where = {} if place is None else {"row": place[0], "col": place[1]}
    figure.add_heatmap(
        z=z, x=list(range(len(column_names))), y=list(range(len(row_names))), text=text,
        texttemplate="%{text}", customdata=data, hovertemplate=hover, coloraxis="coloraxis",
        xgap=2, ygap=2, hoverongaps=False, **where,
    )  # fmt: skip


def _cell_text(cell: dict | None, value: str, with_interval: bool) -> str:
    if cell is None:
        return ""
    text = signed(cell[value])
    if not with_interval or pd.isna(cell["low"]) or cell["low"] == cell["high"]:
        return text
    return f"{text}<br><sub>{signed(cell['low'])} to {signed(cell['high'])}</sub>"


def signed(value: float) -> str:
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
    place: tuple[int, int] | None = None,
) -> None:
    """Titles and labels of rows and columns, the first row on top."""
    where = {} if place is None else {"row": place[0], "col": place[1]}
    shown = {"showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(title=columns[0], tickvals=list(range(len(columns[1]))),
                        ticktext=columns[1], **shown, **where)  # fmt: skip
    figure.update_yaxes(title=rows[0], tickvals=list(range(len(rows[1]))), ticktext=rows[1],
                        autorange="reversed", **shown, **where)  # fmt: skip


def diverging(figure: go.Figure, values: pd.Series, title: str) -> None:
    """One colour scale for all cells, centred at 0."""
    most = float(values.abs().max()) or 1.0
    figure.update_layout(
        coloraxis={
            "colorscale": [[i / (len(DIVERGING) - 1), c] for i, c in enumerate(DIVERGING)],
            "cmin": -most, "cmax": most, "cmid": 0,
            "colorbar": {
                "title": {"text": title, "side": "top"}, "orientation": "h", "thickness": 10,
                "y": 1.0, "yanchor": "bottom", "len": 0.9, "x": 0.5, "xanchor": "center",
            },
        }
    )  # fmt: skip
