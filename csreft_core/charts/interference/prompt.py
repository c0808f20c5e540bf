"""Figures of one prompt under all gate patterns: its answer, its next token, each gate's share."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from csreft_core.analysis.labels import BASE, IN_USE, PATTERN
from csreft_core.charts.cells import add_cells, cell_axes, finish_cells
from csreft_core.charts.elements import add_links, bar_marker, name_rows
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

_NOTHING = "There is no prompt."
_KINDS = {BASE: "all gates closed", PATTERN: "pattern", IN_USE: "gates in use"}


def pattern_answers(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """The answer's log-probability under each pattern, the likeliest on top.

    Args:
        table: `patterns_table`: columns answer, setting, kind, open, kl, log_probability.
        palette: Colours.
    """
    question = "Which open gates make the answer likely?"
    return _patterns(
        table, "log_probability", question, "log-probability of the answer (nats)", palette
    )


def pattern_divergences(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """How far each pattern moves the next token from the base, in the order of the answer.

    Args:
        table: `patterns_table`: columns answer, setting, kind, open, kl, log_probability.
        palette: Colours.
    """
    question = "How far do open gates move the next token?"
    return _patterns(table, "kl", question, "KL to the base (nats)", palette)


def _patterns(
    table: pd.DataFrame, value: str, question: str, title: str, palette: Palette
) -> go.Figure:
    if table.empty:
        return empty(question, _NOTHING, palette)
    ranked = table.sort_values("log_probability", ascending=False, kind="stable")
    ranked = ranked.assign(place=range(len(ranked)))
    style, figure = styles(_KINDS, palette), go.Figure()
    for kind, label in _KINDS.items():
        part = ranked[ranked["kind"] == kind]
        if part.empty:
            continue
        figure.add_scatter(
            x=part[value],
            y=part["place"],
            mode="markers",
            name=label,
            marker={"color": style[kind].colour, "symbol": style[kind].marker, "size": 10},
            customdata=part[["open", "kl", "log_probability", "answer"]],
            hovertemplate="open: %{customdata[0]}<br>ln p(%{customdata[3]}) = "
            "%{customdata[2]:.4f} nats<br>KL to the base %{customdata[1]:.4f} nats<extra></extra>",
        )
    name_rows(figure, [_short(opened) for opened in ranked["open"]], title="open gates")
    figure.update_xaxes(title=title)
    alt = f"Points: {title} for {len(ranked)} gate patterns of one prompt, the likeliest on top."
    height = 130 + 22 * len(ranked)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _short(opened: str) -> str:
    """Labels of three and more gates would take half of a narrow screen."""
    names = opened.split(" + ")
    return opened if len(names) < 3 else " + ".join(name[:4] for name in names)


def shapley_bars(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Each gate's Shapley value on the answer, with its effect alone as a mark beside it.

    Args:
        table: `shapley_table`: columns answer, subspace, shapley, alone, closed, all.
        names: Order of the subspaces; gives each its style on every figure.
        palette: Colours.
    """
    question = "What does each gate add to the answer?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    subspaces = ordered(names, table["subspace"])
    style = styles(subspaces, palette)
    part = table.set_index("subspace").loc[subspaces]
    figure = go.Figure(
        go.Bar(
            x=part["shapley"],
            y=subspaces,
            orientation="h",
            name="Shapley value",
            marker=bar_marker(
                [style[s].colour for s in subspaces], [style[s].pattern for s in subspaces]
            ),
            text=[f"{value:+.3f}".replace("-", "−") for value in part["shapley"]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: Shapley value %{x:+.6f} nats<extra></extra>",
        )
    )
    figure.add_scatter(
        x=part["alone"],
        y=subspaces,
        mode="markers",
        name="this gate alone",
        marker={
            "color": palette.muted,
            "symbol": "line-ns-open",
            "size": 22,
            "line": {"width": 3, "color": palette.muted},
        },
        hovertemplate="%{y} alone: %{x:+.6f} nats<extra></extra>",
    )
    both = pd.concat([part["shapley"], part["alone"]])
    low, high = min(0.0, float(both.min())), max(0.0, float(both.max()))
    pad = 0.22 * (high - low or 1.0)
    figure.update_xaxes(
        title="change of the answer's log-probability (nats)", range=[low - pad, high + pad]
    )
    figure.update_yaxes(autorange="reversed", title=None)
    figure.update_layout(showlegend=True)
    alt = f"Bars: the Shapley value of {len(subspaces)} gates on the answer's log-probability."
    height = 120 + 44 * len(subspaces)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def interaction_matrix(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Shapley interaction index of each pair of gates; the same on both sides of the diagonal.

    Args:
        table: `interactions_table`: columns first, second, interaction.
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "Do two gates do more together than apart?"
    if table.empty:
        return empty(question, "This run has one subspace, so there are no pairs.", palette)
    mirrored = table.rename(columns={"first": "second", "second": "first"})
    both = pd.concat([table, mirrored], ignore_index=True)
    subspaces = ordered(names, [*table["first"], *table["second"]])
    figure = go.Figure()
    hover = "%{customdata[0]} and %{customdata[1]}: %{z:+.6f} nats<extra></extra>"
    add_cells(
        figure,
        both,
        ("first", subspaces, subspaces),
        ("second", subspaces, subspaces),
        "interaction",
        (),
        hover,
    )
    cell_axes(figure, ("gate", subspaces), ("gate", subspaces))
    alt = f"Heat-map: Shapley interaction index of {len(table)} pairs of gates, in nats."
    return finish_cells(
        figure,
        table["interaction"],
        "interaction on the log-probability (nats)",
        question=question,
        alt=alt,
        palette=palette,
        height=170 + 46 * len(subspaces),
        more_helps=True,
    )


def token_ranks(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Probability of the likeliest next tokens without and with the adapter, and their ranks.

    Args:
        table: `tokens_table`: columns token, rank_base, rank_adapter, rise, p_base, p_adapter.
        palette: Colours.
    """
    question = "Which next tokens rise and which fall?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    places, figure = list(range(len(table))), go.Figure()
    add_links(figure, table["p_base"], table["p_adapter"], [palette.muted] * len(table))
    sides = {"base": "without the adapter", "adapter": "with the adapter"}
    style = styles(sides, palette)
    for side, label in sides.items():
        figure.add_scatter(
            x=table[f"p_{side}"],
            y=places,
            mode="markers",
            name=label,
            marker={"color": style[side].colour, "symbol": style[side].marker, "size": 11},
            customdata=table[["token", f"rank_{side}"]],
            hovertemplate="%{customdata[0]}: p = %{x:.6f}, rank %{customdata[1]}"
            "<extra>%{fullData.name}</extra>",
        )
    name_rows(figure, [_rank_change(row) for row in table.to_dict("records")], title=None)
    figure.update_xaxes(title="probability of the next token (0 to 1)", range=[-0.04, 1.04])
    alt = f"Points: probability of {len(table)} next tokens without and with the adapter."
    height = 130 + 30 * len(table)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _rank_change(row: dict) -> str:
    rise = int(row["rise"])
    arrow = f"↑{rise}" if rise > 0 else f"↓{-rise}" if rise < 0 else "="
    token = str(row["token"]).strip() or repr(row["token"])
    return f"{token[:14]}  {row['rank_base']}→{row['rank_adapter']} {arrow}"
