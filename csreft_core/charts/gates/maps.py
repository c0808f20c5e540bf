"""Heat-maps of gates: mean by true skill, hard patterns, co-activation, and along a prompt."""

from collections.abc import Sequence

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
    question = "Does each skill get a gate of its own?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    skills = ordered(names, table["skill"])
    panels = {}
    for source, part in table.groupby("source", sort=False):
        columns = ordered(names, part["subspace"])
        text = {
            (row["skill"], row["subspace"]): f"true skill {row['skill']}<br>gate "
            f"{row['subspace']}: {row['gate']:.4f}<br>95 %: {row['low']:.4f} to "
            f"{row['high']:.4f}<br>n = {row['n']}"
            for row in part.to_dict("records")
        }
        hover = [[text[skill, column] for column in columns] for skill in skills]
        values = part.pivot_table(index="skill", columns="subspace", values="gate", sort=False)
        values = values.loc[skills, columns].to_numpy()
        panels[str(source)] = (columns, values, np.vectorize(_short)(values), hover)
    alt = f"Heat-maps: mean gate of {len(skills)} true skills, from 0 to 1"
    scale = "mean gate<br>(0 to 1)"
    return _panels(panels, skills, scale, question=question, alt=alt, palette=palette)


def pattern_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Prompts of each true skill (rows) by their set of open gates (columns).

    Args:
        table: `patterns_table`: columns source, skill, pattern, n (prompts), share (of the skill).
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    question = "Which gates open together for which skill?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    skills = ordered(names, table["skill"])
    panels = {}
    for source, part in table.groupby("source", sort=False):
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
        labels = [c.replace("+", "<br>+") for c in columns]
        panels[str(source)] = (labels, share, texts, hover)
    alt = f"Heat-maps: how many prompts of {len(skills)} true skills open each set of gates"
    scale = "open gates<br>(cells: prompts)"
    return _panels(panels, skills, scale, question=question, alt=alt, palette=palette, labels=130)


def coactivation_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Share of prompts with both gates open; the diagonal is how often each is open.

    Args:
        table: `coactivation_table`: columns source, subspace, other, both_open (share), n.
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "Which gates are open at the same time?"
    if table.empty:
        return empty(question, _NO_GATES, palette)
    own = table[table["source"] == table["source"].iloc[0]]
    rows = ordered(names, own["subspace"])
    panels = {}
    for source, part in table.groupby("source", sort=False):
        if ordered(names, part["subspace"]) != rows:
            continue  # a run with other subspaces has no place on these axes
        values = part.pivot_table(index="subspace", columns="other", values="both_open", sort=False)
        values = values.loc[rows, rows].to_numpy()
        hover = [
            [f"{a} and {b}<br>{values[i, j]:.1%} of prompts" for j, b in enumerate(rows)]
            for i, a in enumerate(rows)
        ]
        panels[str(source)] = (rows, values, np.vectorize(_short)(values), hover)
    alt = f"Heat-maps: share of prompts in which two of {len(rows)} gates are open together"
    scale = "share of prompts<br>(0 to 1)"
    return _panels(panels, rows, scale, question=question, alt=alt, palette=palette)


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
    wide = table.pivot_table(index="subspace", columns="position", values="gate", sort=False)
    values = wide.loc[subspaces, tokens["position"]].to_numpy()
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
            text=np.vectorize(_short)(values) if len(tokens) <= _MOST_PRINTED else None,
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


def _short(value: float) -> str:
    return f"{value:.2f}"


def _panels(
    panels: dict[str, tuple],
    rows: Sequence[str],
    scale: str,
    *,
    question: str,
    alt: str,
    palette: Palette,
    labels: int = 88,
) -> go.Figure:
    """Two panels a line, each with columns of its own; equal rows, colours from 0 to 1.

    Args:
        panels: For each source: names of the columns, values (0 to 1), texts in the cells, hover.
        rows: Their names.
        scale: What the cells hold; their numbers stand in them, so that there is no colour bar.
        question: See `theme.finish`.
        alt: Text for screen readers, without the sources.
        palette: Colours of everything but the cells.
        labels: Pixels for the names of the columns and the title of the panel below.
    """
    alt = f"{alt}, a panel for each of {len(panels)} sources: {', '.join(panels)}."
    lines, panel = panel_places(len(panels))
    inner = lines * max(60, 30 * len(rows)) + (lines - 1) * labels
    figure = make_subplots(
        rows=lines,
        cols=min(2, len(panels)),
        subplot_titles=[name.replace(" (", "<br>(") for name in panels],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=labels / inner if lines > 1 else 0,
    )
    for (columns, values, texts, hover), place in zip(panels.values(), panel, strict=True):
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
