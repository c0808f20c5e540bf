"""Pairs of states, without and with the adapter, as traces that several figures share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from csreft_core.analysis.labels import BASE, EDITED
from csreft_core.charts.theme import Palette, Style, ordered, styles

# Three-dimensional markers know few shapes, and only three of them have an open form.
_SHAPES_3D = {"triangle-up": "cross", "cross": "x", "pentagon": "circle", "star": "square"}
_OPEN_3D = ("circle", "square", "diamond")


def axes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The axes that the table has: x, y and perhaps z."""
    return tuple(axis for axis in ("x", "y", "z") if axis in table)


def style_of(
    table: pd.DataFrame, names: Sequence[str] | None, palette: Palette
) -> dict[str, Style]:
    """A style for each skill; the same on every figure that is given the same names."""
    return styles([*(names or ()), *ordered(names, table["skill"])], palette)


def pair_places(
    table: pd.DataFrame, axes: Sequence[str], style: Mapping[str, Style]
) -> list[dict[str, Any]]:
    """Places of the traces that `pair_traces` makes, in their order, as plain trace data.

    For each skill three: a line per pair, the base states, the edited states.

    Args:
        table: Columns prompt, skill, kind (`base` or `edited`) and the axes; optional moved, gate.
        axes: Two or three columns.
        style: Of each skill.
    """
    kind = "scatter3d" if len(axes) == 3 else "scatter"
    traces: list[dict[str, Any]] = []
    for skill in ordered(style, table["skill"]):
        part = table[table["skill"].eq(skill)]
        base, edited = (part[part["kind"].eq(kind)] for kind in (BASE, EDITED))
        traces.append({"type": kind} | _join(base, edited, axes))
        for points in (base, edited):
            places = {axis: points[axis].to_numpy() for axis in axes}
            traces.append({"type": kind, "customdata": _details(points)} | places)
    return traces


def pair_traces(
    table: pd.DataFrame,
    axes: Sequence[str],
    style: Mapping[str, Style],
    palette: Palette,
    *,
    own: bool = False,
) -> list[dict[str, Any]]:
    """For each skill a line per pair, the base states (open) and the edited states (filled).

    Args:
        table: See `pair_places`.
        axes: Two or three columns.
        style: Of each skill.
        palette: Gives the outline of one's own prompt.
        own: Stars, larger, with their own place in the legend.
    """
    places = iter(pair_places(table, axes, style))
    traces = []
    for skill in ordered(style, table["skill"]):
        name = "your prompt" if own else skill or "no label"
        common = {"name": name, "legendgroup": name, "showlegend": False}
        shape = "star" if own and len(axes) == 2 else style[skill].marker
        line = {"color": style[skill].colour, "width": 4 if own else 1.5}
        looks = {"mode": "lines", "line": line, "opacity": 0.9 if own else 0.45}
        traces.append(next(places) | common | looks | {"hoverinfo": "skip"})
        for kind in (BASE, EDITED):
            marker = _marker(shape, len(axes) == 3, kind, style[skill].colour)
            if own:
                marker["size"] *= 2
                if kind == EDITED:
                    marker["line"] = {"color": palette.muted, "width": 2}
            looks = {"mode": "markers", "marker": marker, "hovertemplate": _hover(axes, kind)}
            traces.append(next(places) | common | looks | {"showlegend": kind == EDITED})
    return traces


def _join(base: pd.DataFrame, edited: pd.DataFrame, axes: Sequence[str]) -> dict[str, np.ndarray]:
    """Base, edited, gap, for each prompt in turn."""
    gap = np.full(len(base), np.nan)
    return {
        axis: np.stack([base[axis].to_numpy(), edited[axis].to_numpy(), gap], 1).ravel()
        for axis in axes
    }


def _marker(shape: str, three: bool, kind: str, colour: str) -> dict[str, Any]:
    if three:
        shape = _SHAPES_3D.get(shape, shape)
        opened = kind == BASE
        return {
            "symbol": f"{shape}-open" if opened and shape in _OPEN_3D else shape,
            "size": 4 if opened else 5,
            "opacity": 0.6 if opened else 1,
            "color": colour,
        }
    return {
        "symbol": f"{shape}-open" if kind == BASE else shape,
        "size": 8,
        "opacity": 0.85,
        "color": colour,
    }


def _details(points: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Prompt, skill, size of the move and gate, where they are known."""
    details = []
    for point in points.to_dict("records"):
        words = [
            what.format(point[column])
            for column, what in (("moved", "moved by {:.4g}"), ("gate", "gate {:.4f}"))
            if column in point and not np.isnan(point[column])
        ]
        details.append((point["prompt"], point["skill"] or "no label", ", ".join(words)))
    return details


def _hover(axes: Sequence[str], kind: str) -> str:
    places = ", ".join(f"%{{{axis}:.4g}}" for axis in axes)
    return (
        f"%{{customdata[0]}}<br>%{{customdata[1]}}, {kind}: {places}<br>%{{customdata[2]}}"
        "<extra></extra>"
    )


def legend_of_kinds(
    palette: Palette, *, three: bool = False, words: tuple[str, str] = ("base h", "edited h'")
) -> list[dict[str, Any]]:
    """Two entries of the legend that say what open and filled markers are."""
    return [
        {axis: [None] for axis in ("xyz" if three else "xy")}
        | {
            "type": "scatter3d" if three else "scatter",
            "mode": "markers",
            "name": word,
            "marker": {"symbol": symbol, "color": palette.muted, "size": 8},
            "hoverinfo": "skip",
        }
        for word, symbol in zip(words, ("circle-open", "circle"), strict=True)
    ]
