"""Bars of losses by skill and gate setting: what is left, and the regret."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from csreft_core.charts.elements import bar_marker
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles


def bottleneck_bars(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Loss that is left under learned and under oracle gates, by skill.

    Args:
        table: `settings_table`; only its rows of `learned` and `oracle` gates are drawn.
        names: Order of the skills.
        palette: Colours.
    """
    question = "Is the router or the edit the bottleneck?"
    settings = [s for s in ("learned", "oracle") if s in set(table["setting"])]
    if len(settings) < 2:
        return empty(question, "This run has no learned or no oracle gates.", palette)
    return _loss_bars(
        table,
        settings,
        names,
        "loss that is left (nats per answer token)",
        "loss",
        question,
        palette,
    )


def regret_bars(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Regret against the best of all patterns, by skill and gate setting.

    Args:
        table: `regret_table`: columns skill, setting, kind, regret, low, high, n.
        names: Order of the skills.
        palette: Colours.
    """
    question = "How far are the gates from the best pattern?"
    if table.empty:
        return empty(question, "There are no prompts.", palette)
    settings = list(dict.fromkeys(table["setting"]))
    return _loss_bars(
        table, settings, names, "regret (nats per answer token)", "regret", question, palette
    )


def _loss_bars(
    table: pd.DataFrame,
    settings: list[str],
    names: Sequence[str] | None,
    title: str,
    value: str,
    question: str,
    palette: Palette,
) -> go.Figure:
    """A bar for each skill and setting.

    Args:
        table: Columns skill, setting, n, the value and, but for a loss, its low and high.
        settings: Those to draw, in order.
        names: Order of the skills.
        title: What the value is, with its unit.
        value: Its column.
        question: That the figure answers.
        palette: Colours.
    """
    skills, style = ordered(names, table["skill"]), styles(settings, palette)
    figure = go.Figure()
    for setting in settings:
        part = table[table["setting"] == setting].set_index("skill").reindex(skills)
        figure.add_bar(
            y=skills,
            x=part[value],
            name=setting,
            orientation="h",
            marker=bar_marker(style[setting].colour, style[setting].pattern),
            customdata=part[["n"]],
            text=[_bar_text(cell, value) for cell in part.to_dict("records")],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}, %{fullData.name}: %{x:.4f} nats a token, n = %{customdata[0]}"
            "<extra></extra>",
        )
    figure.update_xaxes(title=title)
    figure.update_yaxes(autorange="reversed", title=None)
    shown = table.loc[table["setting"].isin(settings), value]
    low, high = float(shown.min()), max(float(shown.max()), 1e-3)
    room = 1.25 if value == "loss" else 1.75
    figure.update_xaxes(range=[0.0 if low >= 0 else low - 0.25 * high, room * high])
    alt = f"Bars: {title} of {len(skills)} skills under {', '.join(settings)} gates."
    height = 110 + (26 * len(settings) + 14) * len(skills)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def _bar_text(cell: dict, value: str) -> str:
    """The value and, right of a regret, its interval: whiskers would cross the text of the bar."""
    if value == "loss" or pd.isna(cell["low"]) or cell[value] < 0:
        return f"{cell[value]:.3f}"
    return f"{cell[value]:.3f} <sub>({cell['low']:.3f} to {cell['high']:.3f})</sub>"
