"""What all figures share: colours, markers, dashes, templates, and thinning of long lines.

A skill is told apart by its colour and by its marker, dash and pattern, so a figure can be read
without colour. No I/O, no randomness.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

MOST_POINTS = 400
_FONT = "Source Sans Pro, Source Sans, Segoe UI, Helvetica, Arial, sans-serif"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "x",
    "pentagon",
    "star",
)
_PATTERNS = ("", "/", "x", ".", "\\", "-", "|", "+")
_FOREIGN_TAG = re.compile(r"<(?!/?(?:br|b|i|sub|sup|extra)>)")
_NO_TEXT = ("type", "meta", "template")


@dataclass(frozen=True)
class Palette:
    """Colours of a figure, as CSS values.

    Attributes:
        colours: One a skill, told apart with every common colour blindness.
        muted: Lines that are not data, such as a threshold.
        text: None leaves text, grid and background to the page that shows the figure.
        grid: Grid lines.
        background: Behind the figure.
    """

    colours: tuple[str, ...]
    muted: str
    text: str | None = None
    grid: str | None = None
    background: str | None = None


LIGHT = Palette(
    colours=(
        "#0072b2",
        "#d55e00",
        "#00805f",
        "#b5477f",
        "#8f6b00",
        "#5b4fc4",
        "#2f8fc0",
        "#5f6672",
    ),
    muted="#5f6672",
    text="#1a1d23",
    grid="#dde2e9",
    background="#ffffff",
)
DARK = Palette(
    colours=(
        "#56b4e9",
        "#f0893a",
        "#35c69b",
        "#e58fc0",
        "#e3bd2e",
        "#a99bf5",
        "#9fd8f5",
        "#b4bcc9",
    ),
    muted="#b4bcc9",
    text="#eceff4",
    grid="#303947",
    background="#12161d",
)


@dataclass(frozen=True)
class Style:
    """How one skill, subspace or run is drawn."""

    colour: str
    dash: str
    marker: str
    pattern: str


def styles(names: Iterable[str], palette: Palette) -> dict[str, Style]:
    """A style for each name, by its place; colours repeat after eight, the mixture does not."""
    n = len(palette.colours)
    return {
        name: Style(
            colour=palette.colours[i % n],
            dash=_DASHES[i % len(_DASHES)],
            marker=_MARKERS[(i + i // n) % len(_MARKERS)],
            pattern=_PATTERNS[(i + i // n) % len(_PATTERNS)],
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def ordered(names: Iterable[str] | None, present: Iterable[str]) -> list[str]:
    """The given names that were found, in their order, then the others as they were found."""
    there = list(dict.fromkeys(present))
    first = [name for name in names or () if name in there]
    return first + [name for name in there if name not in first]


def thin(x: ArrayLike, y: ArrayLike, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a line; each bin keeps its lowest and its highest point.

    First and last point stay. NaN is kept as a gap where a whole bin is NaN.

    Args:
        x: Places, rising.
        y: Values, as many.
        most: Even number, at least 4.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) <= most:
        return x, y
    inner = np.array_split(np.arange(1, len(x) - 1), (most - 2) // 2)
    keep = {0, len(x) - 1}
    for part in inner:
        values = y[part]
        if np.isnan(values).all():
            keep.add(int(part[0]))
        else:
            keep |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    chosen = sorted(keep)
    return x[chosen], y[chosen]


def finish(
    figure: go.Figure, *, question: str, alt: str, palette: Palette, height: int
) -> go.Figure:
    """Give a figure what all have: its question, its `alt` text, template, size and margins.

    The question and the text for screen readers stand in `layout.meta`; the page shows them.
    """
    if palette.background is not None:
        figure.update_layout(template=_template(palette))
    figure.update_layout(
        meta={"question": question, "alt": alt},
        uirevision="keep",
        height=height,
        margin={"l": 8, "r": 12, "t": 34, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        bargap=0.35,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    _leave_own_tags(figure)
    return figure


def _leave_own_tags(figure: go.Figure) -> None:
    """See that names, prompts and tokens make no link and lose no letter.

    Plotly reads a little HTML in every text: `<a href=…>` becomes a link, `<unk>` nothing at all.
    Only the tags that the charts themselves write are left as such.
    """
    drawn: Any = figure  # Plotly's own annotations take its parts for the names of its parts
    framed = (trace for frame in drawn.frames for trace in frame.data)
    for part in (*drawn.data, *framed, drawn.layout):
        for name, value in part.to_plotly_json().items():
            if name not in _NO_TEXT and (text := _as_text(value)) is not value:
                part[name] = text


def _as_text(value: Any) -> Any:
    """The value with foreign tags as text; the same object where there are none."""
    if isinstance(value, str):
        return _FOREIGN_TAG.sub("&lt;", value) if _FOREIGN_TAG.search(value) else value
    if isinstance(value, dict):
        new = {key: _as_text(item) for key, item in value.items()}
        return new if any(new[key] is not value[key] for key in new) else value
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        value = value.tolist()
    if isinstance(value, list | tuple):
        items = [_as_text(item) for item in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def empty(question: str, message: str, palette: Palette, height: int = 240) -> go.Figure:
    """A figure that says why there is nothing to see."""
    figure = go.Figure()
    figure.add_annotation(
        text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14}
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(figure, question=question, alt=message, palette=palette, height=height)


def _template(palette: Palette) -> go.layout.Template:
    axis = {
        "gridcolor": palette.grid,
        "linecolor": palette.muted,
        "zerolinecolor": palette.grid,
        "ticks": "outside",
        "tickcolor": palette.grid,
    }
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 13, "color": palette.text},
            "paper_bgcolor": palette.background,
            "plot_bgcolor": palette.background,
            "colorway": palette.colours,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": palette.background, "font": {"color": palette.text}},
        }
    )
