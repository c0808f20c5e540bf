"""Heat-maps of gates: mean by true skill, hard patterns, co-activation, and along a prompt."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.charts.elements import cells, panel_places
from csreft_core.charts.gates.words import as_text
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered

# From dark to light, safe for colour blindness, clear on light and dark pages; it is steep where
# neither dark nor light numbers could be read.
SHARE_SCALE = ((0.0, "#0b2545"), (0.5, "#2c689f"), (0.65, "#9cc3e0"), (1.0, "#fee838"))
_NO_GATES = "No gates to compare: no prompt was given."
_MOST_PATTERNS = 8
# More tokens leave no room for a number in a cell.
_MOST_PRINTED = 14


def mean_gate_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Mean gate of each true skill (rows) and subspace (columns), a panel for each source.

    Args:
        table: `means_table`: columns source, skill, subspace, gate, low, high (no unit), n.
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    skills = ordered(names, table["skill"])

    def panel(part: pd.DataFrame) -> _Panel:
        columns = ordered(names, part["subspace"])
        text = {
            (row["skill"], row["subspace"]): f"true skill {row['skill']}<br>gate "
            f"{row['subspace']}: {row['gate']:.4f}<br>95 %: {row['low']:.4f} to "
            f"{row['high']:.4f}<br>n = {row['n']}"
            for row in part.to_dict("records")
        }
        hover = [[text[skill, column] for column in columns] for skill in skills]
        values = _matrix(part, "gate", skill=skills, subspace=columns)
        return _Panel(columns, values, _short(values), hover)

    return _panels(
        table,
        skills,
        panel,
        question="Does each skill get a gate of its own?",
        scale="mean gate<br>(0 to 1)",
        alt=f"Heat-maps: mean gate of {len(skills)} true skills, from 0 to 1",
        palette=palette,
    )


def pattern_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Prompts of each true skill (rows) by their set of open gates (columns).

    Args:
        table: `patterns_table`: columns source, skill, pattern, n (prompts), share (of the skill).
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    skills = ordered(names, table["skill"])

    def panel(part: pd.DataFrame) -> _Panel:
        frequent = part.groupby("pattern", sort=False)["n"].sum().nlargest(_MOST_PATTERNS).index
        named = part.assign(pattern=part["pattern"].where(part["pattern"].isin(frequent), "others"))
        counts = named.pivot_table(
            index="skill", columns="pattern", values="n", aggfunc="sum", fill_value=0, sort=False
        )
        columns = ordered(dict.fromkeys([*(names or ()), *frequent]), counts.columns)
        values = counts.reindex(index=skills, columns=columns, fill_value=0).to_numpy()
        share = values / np.maximum(values.sum(1, keepdims=True), 1)
        hover = [
            [
                f"true skill {s}<br>open: {c}<br>{values[i, j]} of {values[i].sum()} prompts "
                f"({share[i, j]:.1%})"
                for j, c in enumerate(columns)
            ]
            for i, s in enumerate(skills)
        ]
        texts = np.vectorize(lambda n: str(n) if n else "")(values)
        return _Panel([c.replace("+", "<br>+") for c in columns], share, texts, hover)

    return _panels(
        table,
        skills,
        panel,
        question="Which gates open together for which skill?",
        scale="open gates<br>(cells: prompts)",
        alt=f"Heat-maps: how many prompts of {len(skills)} true skills open each set of gates",
        palette=palette,
        labels=130,
    )


def coactivation_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Share of prompts with both gates open; the diagonal is how often each is open.

    Args:
        table: `coactivation_table`: columns source, subspace, other, both_open (share), n.
        names: Order of the subspaces.
        palette: Colours.
    """
    own = table[table["source"].isin(table["source"].head(1))]
    rows = ordered(names, own["subspace"])

    def panel(part: pd.DataFrame) -> _Panel | None:
        if ordered(names, part["subspace"]) != rows:
            return None  # a run with other subspaces has no place on these axes
        values = _matrix(part, "both_open", subspace=rows, other=rows)
        hover = [
            [f"{a} and {b}<br>{values[i, j]:.1%} of prompts" for j, b in enumerate(rows)]
            for i, a in enumerate(rows)
        ]
        return _Panel(rows, values, _short(values), hover)

    return _panels(
        table,
        rows,
        panel,
        question="Which gates are open at the same time?",
        scale="share of prompts<br>(0 to 1)",
        alt=f"Heat-maps: share of prompts in which two of {len(rows)} gates are open together",
        palette=palette,
    )


def token_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Gates along a prompt, of a router that decides for each token.

    Args:
        table: `tokens_table` of one prompt: columns position, token, kind, subspace, gate.
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "Which gate is open at which token?"
    if table.empty:
        return empty(question, "This router sets its gates once for the whole prompt.", palette)
    subspaces = ordered(names, table["subspace"])
    tokens = table.drop_duplicates("position").sort_values("position")
    values = _matrix(table, "gate", subspace=subspaces, position=list(tokens["position"]))
    places = list(zip(tokens["position"], tokens["token"], strict=True))
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=tokens["position"],
            y=list(range(len(subspaces))),
            zmin=0,
            zmax=1,
            colorscale=SHARE_SCALE,
            colorbar={"title": "gate", "thickness": 12},
            xgap=1,
            ygap=1,
            text=_short(values) if len(tokens) <= _MOST_PRINTED else None,
            texttemplate="%{text}" if len(tokens) <= _MOST_PRINTED else None,
            customdata=[
                [f"{as_text(token)} (position {i})<br>{name}" for i, token in places]
                for name in subspaces
            ],
            hovertemplate="%{customdata}: gate %{z:.4f}<extra></extra>",
        )
    )
    labels = [
        as_text(row.token) if row.kind == "word" else f"<i>{as_text(row.token)}</i>"
        for row in tokens.itertuples()
    ]
    # Numbers, so that two equal words keep a place each.
    figure.update_xaxes(
        tickvals=tokens["position"],
        ticktext=labels,
        tickangle=-60,
        title="token (template: italic)",
    )
    figure.update_yaxes(
        tickvals=list(range(len(subspaces))), ticktext=subspaces, autorange="reversed"
    )
    alt = f"Heat-map: gates of {len(subspaces)} subspaces at {len(tokens)} tokens, from 0 to 1."
    height = 150 + 34 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _matrix(table: pd.DataFrame, value: str, **axes: Sequence[Any]) -> np.ndarray:
    """The values of a column by two others: each with what stands on its axis, rows first."""
    row, column = axes
    wide = table.pivot_table(index=row, columns=column, values=value, sort=False)
    return wide.loc[list(axes[row]), list(axes[column])].to_numpy()


def _short(values: np.ndarray) -> np.ndarray:
    return np.vectorize("{:.2f}".format)(values)


class _Panel(NamedTuple):
    columns: list[str]
    values: np.ndarray
    texts: np.ndarray
    hover: list[list[str]]


def _panels(
    table: pd.DataFrame,
    rows: Sequence[str],
    panel: Callable[[pd.DataFrame], _Panel | None],
    *,
    question: str,
    scale: str,
    alt: str,
    palette: Palette,
    labels: int = 88,
) -> go.Figure:
    """A panel for each source, two a line, each with columns of its own; equal rows.

    Args:
        table: With the column source.
        rows: Their names.
        panel: From the part of a source: names of the columns, values (0 to 1), texts in the cells,
            hover; None where it has no place on these rows.
        question: See `theme.finish`.
        scale: What the cells hold; their numbers stand in them, so that there is no colour bar.
        alt: Text for screen readers, without the sources.
        palette: Colours of everything but the cells.
        labels: Pixels for the names of the columns and the title of the panel below.
    """
    if table.empty:
        return empty(question, _NO_GATES, palette)
    parts = {str(source): panel(part) for source, part in table.groupby("source", sort=False)}
    panels = {source: part for source, part in parts.items() if part is not None}
    alt = f"{alt}, a panel for each of {len(panels)} sources: {', '.join(panels)}."
    lines, places = panel_places(len(panels))
    inner = lines * max(60, 30 * len(rows)) + (lines - 1) * labels
    figure = make_subplots(
        rows=lines,
        cols=min(2, len(panels)),
        subplot_titles=[name.replace(" (", "<br>(") for name in panels],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=labels / inner if lines > 1 else 0,
    )
    for (columns, values, texts, hover), place in zip(panels.values(), places, strict=True):
        figure.add_heatmap(coloraxis="coloraxis", **cells(values, texts, hover), **place)
        figure.update_xaxes(tickvals=list(range(len(columns))), ticktext=list(columns), **place)
    figure.update_xaxes(tickangle=-40, showgrid=False)
    figure.update_xaxes(title=scale, row=lines)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=list(rows),
        autorange="reversed",
        showgrid=False,
    )
    figure.update_annotations(font={"size": 13})
    figure.update_coloraxes(cmin=0, cmax=1, colorscale=SHARE_SCALE, showscale=False)
    return finish(figure, question=question, alt=alt, palette=palette, height=inner + 100 + labels)
