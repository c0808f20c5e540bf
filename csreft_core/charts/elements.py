"""What figures are built of: bars with a pattern, intervals, rows with names, cells, panels."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go


def bar_marker(
    colour: str | Sequence[str], pattern: str | Sequence[str], solidity: float = 0.5
) -> dict[str, Any]:
    """How bars look: one colour and pattern, or one for each bar."""
    return {
        "color": colour,
        "pattern": {"shape": pattern, "fillmode": "replace", "solidity": solidity},
    }


def interval(
    value: Any, low: Any, high: Any, colour: str, *, thickness: float = 1.5, width: int = 4
) -> dict[str, Any]:
    """The error bar of values, from the ends of their intervals; all three alike in shape.

    Args:
        value: Columns or arrays of numbers.
        low: Lower ends.
        high: Upper ends.
        colour: Of the whisker.
        thickness: Of the line, in pixels.
        width: Of the crossbars, in pixels.
    """
    return {
        "type": "data",
        "symmetric": False,
        "array": high - value,
        "arrayminus": value - low,
        "color": colour,
        "thickness": thickness,
        "width": width,
    }


def name_rows(figure: go.Figure, names: Sequence[str], **more: Any) -> None:
    """Rows at 0, 1, … from top to bottom, with their names; points can lie between them.

    Args:
        figure: Whose vertical axes.
        names: From top to bottom.
        more: Of the axis, such as `row` and `col` of a panel; `range` for other margins.
    """
    shown = {"range": [len(names) - 0.4, -0.6], "zeroline": False} | more
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=list(names), **shown)


def cells(
    values: Sequence[Any] | np.ndarray, texts: Any, hover: Any, gap: int = 1
) -> dict[str, Any]:
    """A heat-map on numbered rows and columns: the text in each cell, and what pointing at it says.

    Args:
        values: A matrix.
        texts: As large.
        hover: The same, or more for each cell, read by a `hovertemplate` of its own.
        gap: Between cells, in pixels.
    """
    return {
        "z": values,
        "x": list(range(len(values[0]))),
        "y": list(range(len(values))),
        "text": texts,
        "texttemplate": "%{text}",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "xgap": gap,
        "ygap": gap,
    }


def panel_places(n: int, columns: int = 2) -> tuple[int, list[dict[str, Any]]]:
    """How many lines n panels need, and where each stands: `row` and `col` of its traces."""
    places = [{"row": i // columns + 1, "col": i % columns + 1} for i in range(n)]
    return -(-n // columns), places


def add_links(
    figure: go.Figure,
    starts: Iterable[float],
    ends: Iterable[float],
    colours: Sequence[str],
    width: int = 2,
) -> None:
    """A line in each row from one point to another, behind the points.

    Args:
        figure: Its rows are numbered, see `name_rows`.
        starts: A place for each row.
        ends: As many.
        colours: As many.
        width: In pixels.
    """
    for row, (start, end, colour) in enumerate(zip(starts, ends, colours, strict=True)):
        figure.add_scatter(
            x=[start, end],
            y=[row, row],
            mode="lines",
            showlegend=False,
            line={"color": colour, "width": width},
            hoverinfo="skip",
        )
