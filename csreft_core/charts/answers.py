"""Figures of the Compare page: what an edit promotes, and the dose of one gate."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import BASE, NOW, ROUTER
from csreft_core.charts.elements import name_rows
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, styles

_FLOOR = 1e-6
_ARROWS = {"up": "▲", "down": "▼", "same": "=", "new": "✦"}
_CHANGES = {"up": "up", "down": "down", "same": "as in the base", "new": "new"}


def next_tokens(
    table: pd.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    palette: Palette = LIGHT,
) -> go.Figure:
    """The most likely next tokens of each column beside the base, for the first prompt.

    Args:
        table: `next_token_table`: columns prompt, column, token, token_id, probability (0 to 1),
            rank, base_probability, base_rank, change.
        columns: Which to draw, in this order; None draws all but the base.
        palette: Colours.
    """
    question = "What did the edit promote?"
    if len(table):
        table = table[table["prompt"] == table["prompt"].iloc[0]]
    names = [c for c in dict.fromkeys(table["column"]) if c != BASE]
    names = [c for c in columns if c in names] if columns is not None else names
    if not names:
        return empty(question, "Nothing to compare: no prompt, or only the base.", palette)
    parts = [table[table["column"] == name].sort_values("rank") for name in names]
    n, gap = sum(len(part) for part in parts), 58
    inner = 27 * n + gap * (len(names) - 1)
    figure = make_subplots(
        rows=len(names),
        cols=1,
        subplot_titles=[f"base → {name}" for name in names],
        row_heights=[len(part) for part in parts],
        vertical_spacing=gap / inner if len(names) > 1 else 0,
    )
    style = styles(names, palette)
    for i, (name, part) in enumerate(zip(names, parts, strict=True), start=1):
        _add_tokens(figure, part, i, style[name].colour, style[name].marker, palette)
    figure.update_xaxes(
        type="log",
        range=[-6.2, 0.15],
        tickvals=[1e-6, 1e-4, 1e-2, 1],
        ticktext=["≤ 0.0001%", "0.01%", "1%", "100%"],
        showline=False,
    )
    figure.update_xaxes(title="probability (log scale)", row=len(names))
    titles = {f"base → {name}" for name in names}
    figure.for_each_annotation(
        lambda a: a.update(x=0, xanchor="left", font={"size": 14}) if a.text in titles else None
    )
    alt = (
        "Pairs of points: probability of the most likely next tokens in the base and in "
        f"{', '.join(names)}, with their change of rank."
    )
    figure = finish(figure, question=question, alt=alt, palette=palette, height=inner + 130)
    return figure.update_layout(margin={"t": 78, "r": 92}, legend={"y": 1 + 24 / inner})


def _add_tokens(
    figure: go.Figure, part: pd.DataFrame, row: int, colour: str, marker: str, palette: Palette
) -> None:
    """One panel: a line from each token's probability in the base to that of the column."""
    y = list(range(len(part)))
    here = part["probability"].clip(lower=_FLOOR).tolist()
    base = part["base_probability"].clip(lower=_FLOOR).tolist()
    lines_x = [x for pair in zip(base, here, strict=True) for x in (*pair, None)]
    lines_y = [place for i in y for place in (i, i, None)]
    hover = [
        f"{visible(row['token'])}<br>{row['base_probability']:.6f} → {row['probability']:.6f}<br>"
        f"rank {row['base_rank']} → {row['rank']} ({_CHANGES[row['change']]})"
        for row in part.to_dict("records")
    ]
    figure.add_scatter(
        x=lines_x,
        y=lines_y,
        mode="lines",
        line={"color": palette.muted, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=1,
    )
    figure.add_scatter(
        x=base,
        y=y,
        mode="markers",
        name="base",
        showlegend=row == 1,
        legendgroup="base",
        marker={"color": palette.muted, "symbol": "circle-open", "size": 10, "line": {"width": 2}},
        hovertext=hover,
        hovertemplate="%{hovertext}<extra>base</extra>",
        row=row,
        col=1,
    )
    figure.add_scatter(
        x=here,
        y=y,
        mode="markers",
        name=part["column"].iloc[0],
        marker={"color": colour, "symbol": marker, "size": 10},
        hovertext=hover,
        hovertemplate="%{hovertext}<extra>%{fullData.name}</extra>",
        row=row,
        col=1,
    )
    _name_tokens(figure, part, row)


def _name_tokens(figure: go.Figure, part: pd.DataFrame, row: int) -> None:
    """The tokens on the left of a panel, and on its right how their rank changed."""
    labels = [
        f"{_ARROWS[change]} {old} → {new}" if old != new else f"= {new}"
        for change, old, new in zip(part["change"], part["base_rank"], part["rank"], strict=True)
    ]
    for place, label in enumerate(labels):
        # Beside the panel: a text trace would be cut off where the plot ends.
        figure.add_annotation(
            x=1.01,
            xref="x domain",
            y=place,
            text=label,
            showarrow=False,
            xanchor="left",
            font={"size": 12},
            row=row,
            col=1,
        )
    tokens = [visible(token) for token in part["token"]]
    margins = [len(part) - 0.5, -0.5]
    name_rows(figure, tokens, range=margins, showgrid=False, row=row, col=1)


def dose_curve(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """An answer's log-probability against one gate, and that of its first token's probability.

    Args:
        table: `dose_table`: columns prompt, subspace, gate (no unit), mark, kind, answer,
            log_probability (nats), first_token, first_probability (0 to 1). The first prompt is
            drawn.
        palette: Colours.
    """
    question = "Is more of one gate better?"
    if table.empty:
        return empty(question, "No prompt to ask about.", palette)
    table = table[table["prompt"] == table["prompt"].iloc[0]]
    subspace, kinds = table["subspace"].iloc[0], list(dict.fromkeys(table["kind"]))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    style = styles(kinds, palette)
    for kind in kinds:
        part = table[table["kind"] == kind].sort_values("gate")
        _add_dose(figure, part, kind, style[kind].colour, style[kind].dash)
    for gate, text in ((0, "0 off"), (1, "1 as trained")):
        if table["gate"].min() <= gate <= table["gate"].max():
            line = {"color": palette.muted, "dash": "dot", "width": 1}
            figure.add_vline(x=gate, line=line, row="all", col="all")
            figure.add_annotation(
                x=gate,
                y=1,
                xref="x",
                yref="y domain",
                text=text,
                showarrow=False,
                xanchor="left",
                yanchor="bottom",
                font={"size": 12},
            )
    figure.update_xaxes(title=f"gate of {subspace} (beyond 0 to 1: extrapolation)", row=2, col=1)
    figure.update_yaxes(title="log-probability (nats)", row=1, col=1)
    figure.update_yaxes(title="first token (probability)", range=[-0.04, 1.04], row=2, col=1)
    alt = (
        f"Lines: log-probability of {' and '.join(kinds)}, and probability of its first token, as "
        f"the gate of {subspace} goes from {table['gate'].min():g} to {table['gate'].max():g}."
    )
    figure = finish(figure, question=question, alt=alt, palette=palette, height=520)
    return figure.update_layout(margin={"t": 78}, legend={"y": 1.06})


def _add_dose(figure: go.Figure, part: pd.DataFrame, kind: str, colour: str, dash: str) -> None:
    """The curves of one answer in both panels, with stars at the marked gates."""
    name = f"{kind}: {visible(part['answer'].iloc[0])}"
    first = visible(part["first_token"].iloc[0])
    panels = (
        (1, "log_probability", "gate %{x:.3f}: %{y:.4f} nats"),
        (2, "first_probability", f"gate %{{x:.3f}}: {first} %{{y:.4f}}"),
    )
    for row, column, hover in panels:
        figure.add_scatter(
            x=part["gate"],
            y=part[column],
            mode="lines",
            name=name,
            legendgroup=kind,
            showlegend=row == 1,
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"{hover}<extra>{kind}</extra>",
            row=row,
            col=1,
        )
        for mark, symbol in ((ROUTER, "star"), (NOW, "diamond")):
            at = part[part["mark"] == mark]
            if len(at):
                text = "the run's own gate" if mark == ROUTER else "the manual gate"
                figure.add_scatter(
                    x=at["gate"],
                    y=at[column],
                    mode="markers",
                    name=text,
                    legendgroup=mark,
                    showlegend=row == 1 and dash == "solid",
                    marker={"color": colour, "symbol": symbol, "size": 13},
                    hovertemplate=f"{hover}<extra>{text}</extra>",
                    row=row,
                    col=1,
                )


def visible(token: str) -> str:
    """A token as a label: its white space made visible, its HTML taken as text."""
    shown = token.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "⏎")
    spaces = len(shown) - len(shown.lstrip(" "))
    return "␣" * spaces + shown[spaces:] or "(empty)"
