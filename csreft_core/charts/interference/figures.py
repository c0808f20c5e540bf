"""Figures of interference: gate settings, pairs of skills, regret, overlap, single-skill runs."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import CONTROL, OTHER_RUN, RUN
from csreft_core.charts.cells import add_cells, cell_axes, finish_cells
from csreft_core.charts.elements import add_links, interval, panel_places
from csreft_core.charts.interference.bars import bottleneck_bars, regret_bars
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered, styles

# Figures of this page in another module.
__all__ = ["bottleneck_bars", "regret_bars"]

_CHANGE = "change of loss (nats per answer token)"
_RELATIVE = "change of loss / loss before (no unit)"
_NO_CELLS = "Nothing to compare: this run has one subspace, or none is named after a skill."


def setting_matrix(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Change of loss of each skill (columns) under each gate setting (rows), against closed gates.

    Args:
        table: `settings_table`: columns skill, setting, change, low, high, loss, exact_match, n.
        names: Order of the skills.
        palette: Colours.
    """
    question = "Which gates help or hurt which skill?"
    if table.empty:
        return empty(question, "There are no prompts.", palette)
    skills = ordered(names, table["skill"])
    settings = list(dict.fromkeys(table["setting"]))
    figure = go.Figure()
    extra = ("loss", "low", "high", "exact_match", "n")
    hover = (
        "%{customdata[5]} on %{customdata[6]}<br>change %{z:+.4f} [%{customdata[1]:+.4f}, "
        "%{customdata[2]:+.4f}] nats a token<br>loss %{customdata[0]:.4f}<br>exact match "
        "%{customdata[3]:.1%}<br>n = %{customdata[4]}<extra></extra>"
    )
    labels = [_setting_label(setting) for setting in settings]
    add_cells(
        figure,
        table,
        ("setting", settings, labels),
        ("skill", skills, skills),
        "change",
        extra,
        hover,
        with_interval=True,
    )
    cell_axes(figure, ("gate setting", labels), ("prompts of skill", skills))
    n = int(table["n"].min())
    alt = (
        f"Heat-map: {len(settings)} gate settings by {len(skills)} skills, change of loss against "
        f"closed gates in nats per answer token, at least {n} prompts a cell."
    )
    return finish_cells(
        figure,
        table["change"],
        _CHANGE,
        question=question,
        alt=alt,
        palette=palette,
        height=160 + 46 * len(settings),
    )


def _setting_label(setting: str) -> str:
    if setting.startswith(OTHER_RUN):
        return f"control {setting.removeprefix('run:')}"
    return setting.replace("only:", "only ")


def pair_matrix(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    relative: bool = False,
    palette: Palette = LIGHT,
) -> go.Figure:
    """What one gate (rows) does to the loss of each skill (columns).

    Args:
        table: `pairs_table`: columns measure, changed, skill, change, low, high, relative, n.
        names: Order of the skills and subspaces.
        relative: Show change / loss before instead of nats.
        palette: Colours.
    """
    measure = "I_on" if table.empty else str(table["measure"].iloc[0])
    does, question = {
        "I_on": ("opened beside the own", "Does another gate hurt a skill that has its own?"),
        "S": ("opened alone", "Does one gate alone help or hurt each skill?"),
        "A": ("closed", "What does a skill lose when a gate is closed?"),
    }[measure]
    if table.empty:
        return empty(question, _NO_CELLS, palette)
    changed, skills = ordered(names, table["changed"]), ordered(names, table["skill"])
    figure = go.Figure()
    hover = (
        f"%{{customdata[5]}} {does}, on %{{customdata[6]}}<br>change %{{customdata[4]:+.4f}} "
        "[%{customdata[0]:+.4f}, %{customdata[1]:+.4f}] nats a token<br>"
        "relative %{customdata[2]:+.3f}<br>n = %{customdata[3]}<extra></extra>"
    )
    value = "relative" if relative else "change"
    add_cells(
        figure,
        table,
        ("changed", changed, changed),
        ("skill", skills, skills),
        value,
        ("low", "high", "relative", "n", "change"),
        hover,
        with_interval=not relative,
    )
    cell_axes(figure, (f"gate {does}", changed), ("prompts of skill", skills))
    n = int(table["n"].min())
    alt = (
        f"Heat-map: {len(changed)} gates {does} by {len(skills)} skills, "
        f"{_RELATIVE if relative else _CHANGE}, at least {n} prompts a cell."
    )
    return finish_cells(
        figure,
        table[value],
        _RELATIVE if relative else _CHANGE,
        question=question,
        alt=alt,
        palette=palette,
        height=160 + 50 * len(changed),
    )


def single_skill_matrix(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    relative: bool = False,
    palette: Palette = LIGHT,
) -> go.Figure:
    """Change of each skill's loss (columns) by training on one skill (rows), with the control.

    Args:
        table: `single_skill_table`: columns kind, changed, skill, change, relative, before, after,
            n.
        names: Order of the skills.
        relative: Show change / loss before instead of nats.
        palette: Colours.
    """
    question = "Does training on one skill hurt the others?"
    if table.empty:
        return empty(question, "No run that learned one skill is there yet.", palette)
    kinds = ordered((RUN, CONTROL), table["kind"])
    titles = {RUN: "this run's settings", CONTROL: "control: its own settings"}
    figure = make_subplots(
        rows=len(kinds),
        cols=1,
        vertical_spacing=0.28 / len(kinds),
        subplot_titles=[titles[kind] for kind in kinds],
    )
    hover = (
        "trained on %{customdata[4]}, measured on %{customdata[5]}<br>change %{customdata[0]:+.4f} "
        "nats a token<br>loss %{customdata[1]:.4f} to %{customdata[2]:.4f}<br>"
        "n = %{customdata[3]}<extra></extra>"
    )
    value = "relative" if relative else "change"
    for kind, place in zip(kinds, panel_places(len(kinds), 1)[1], strict=True):
        part = table[table["kind"] == kind]
        changed, skills = ordered(names, part["changed"]), ordered(names, part["skill"])
        add_cells(
            figure,
            part,
            ("changed", changed, changed),
            ("skill", skills, skills),
            value,
            ("change", "before", "after", "n"),
            hover,
            place=place,
        )
        cell_axes(figure, ("trained on", changed), ("measured on", skills), place=place)
    alt = (
        "Heat-maps: change of each skill's validation loss by training on one skill alone, for "
        f"{' and '.join(titles[kind] for kind in kinds)}."
    )
    height = 100 + sum(90 + 46 * table.loc[table["kind"] == k, "changed"].nunique() for k in kinds)
    return finish_cells(
        figure,
        table[value],
        _RELATIVE if relative else _CHANGE,
        question=question,
        alt=alt,
        palette=palette,
        height=height,
    )


def overlap_scatter(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Interference against overlap, a point for each ordered pair of skills.

    Args:
        table: `overlap_table`: columns run, changed, skill, overlap, change, low, high, n.
        names: Order of the runs.
        palette: Colours.
    """
    question = "Does overlap predict interference?"
    if table.empty:
        return empty(question, _NO_CELLS, palette)
    runs = ordered(names, table["run"])
    style, figure = styles(runs, palette), go.Figure()
    for run in runs:
        part = table[table["run"] == run]
        figure.add_scatter(
            x=part["overlap"],
            y=part["change"],
            mode="markers",
            name=run,
            marker={
                "color": style[run].colour,
                "symbol": style[run].marker,
                "size": 9,
                "opacity": 0.8,
            },
            error_y=interval(
                part["change"],
                part["low"],
                part["high"],
                style[run].colour,
                thickness=1,
                width=0,
            ),
            customdata=part[["changed", "skill", "n", "constraint"]],
            hovertemplate="%{customdata[0]} beside %{customdata[1]}<br>overlap %{x:.4f}<br>"
            "change %{y:+.4f} nats a token, n = %{customdata[2]}<br>constraint %{customdata[3]}"
            "<extra>%{fullData.name}</extra>",
        )
    figure.add_hline(y=0, line={"color": palette.muted, "width": 1, "dash": "dot"})
    most = max(1.05 * float(table["overlap"].max()), 0.1)
    figure.update_xaxes(
        title="overlap of the subspaces (no unit, 0 to 1)", range=[-0.05 * most, most]
    )
    figure.update_yaxes(title="I_on (nats per answer token)")
    figure.update_layout(showlegend=True)
    alt = f"Points: {len(table)} ordered pairs of skills, interference against subspace overlap."
    return finish(figure, question=question, alt=alt, palette=palette, height=380)


def example_shifts(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Loss of single prompts with closed gates and under one setting.

    Args:
        table: `examples_table`: columns prompt, response, answer, loss_before, loss_after.
        palette: Colours.
    """
    question = "Which prompts are behind this cell?"
    if table.empty:
        return empty(question, "There are no prompts behind this cell.", palette)
    setting = str(table["setting"].iloc[0])
    places, figure = list(range(len(table))), go.Figure()
    add_links(figure, table["loss_before"], table["loss_after"], [palette.muted] * len(table))
    style = styles(("off", setting), palette)
    for name, column in (("off", "loss_before"), (setting, "loss_after")):
        figure.add_scatter(
            x=table[column],
            y=places,
            mode="markers",
            name=_setting_label(name),
            marker={"color": style[name].colour, "symbol": style[name].marker, "size": 11},
            customdata=table[["prompt", "response", "answer"]],
            hovertemplate="%{customdata[0]}<br>right: %{customdata[1]}<br>given: %{customdata[2]}"
            "<br>loss %{x:.4f} nats a token<extra>%{fullData.name}</extra>",
        )
    labels = [text if len(text) <= 24 else f"{text[:23]}…" for text in table["response"]]
    figure.update_yaxes(
        tickvals=places, ticktext=labels, autorange="reversed", zeroline=False, title="right answer"
    )
    figure.update_xaxes(title="loss (nats per answer token)", rangemode="tozero")
    alt = f"Points: loss of {len(table)} prompts with closed gates and under {setting}."
    height = 130 + 30 * len(table)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)
