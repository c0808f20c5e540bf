"""Figures of a comparison of methods: quality, parameters, interference, forgetting and cost."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.methods.measures import MORE_IS_BETTER
from csreft_core.charts.cells import add_cells, cell_axes, finish_cells
from csreft_core.charts.elements import interval, panel_places
from csreft_core.charts.measures import MEASURES
from csreft_core.charts.theme import LIGHT, Palette, Style, empty, finish, ordered, styles
from csreft_core.methods.presets import OWN

_NOTHING = "No finished cell has this measurement."
_COLUMNS = 2
_TESTED = ("exact_match", "loss")
"""Measures on the n prompts of the table; the others have prompts of their own, or none."""


def method_dots(
    table: pd.DataFrame, measure: str = "exact_match", *, palette: Palette = LIGHT
) -> go.Figure:
    """One measure of every method with its interval over the seeds, the best on top.

    Args:
        table: `main_table`: columns method, name, n and the measure with _low, _high and _seeds.
        measure: One of `MEASURES`.
        palette: Colours; this project's method has one of its own.
    """
    shown = MEASURES[measure]
    part = table[table[measure].notna()] if len(table) else table
    if part.empty:
        return empty(shown.question, _NOTHING, palette)
    part = part.sort_values(measure, ascending=MORE_IS_BETTER[measure] is not True, kind="stable")
    names = part["name"].tolist()
    figure = go.Figure()
    for own, colour, marker in (
        (False, palette.muted, "circle"),
        (True, palette.colours[1], "diamond"),
    ):
        rows = part[(part["method"] == OWN) == own]
        if rows.empty:
            continue
        value, low, high = (
            rows[f"{measure}{end}"].astype(float) * shown.factor for end in ("", "_low", "_high")
        )
        figure.add_scatter(
            x=value,
            y=rows["name"],
            mode="markers",
            name="CS-ReFT" if own else "other methods",
            marker={"color": colour, "symbol": marker, "size": 11 if own else 9},
            error_x=interval(value, low, high, colour, thickness=2),
            showlegend=False,
            customdata=pd.DataFrame(
                {"low": low, "high": high, "seeds": rows[f"{measure}_seeds"], "n": rows["n"]}
            ),
            hovertemplate=f"%{{y}}: %{{x:{shown.form}}} [%{{customdata[0]:{shown.form}}}, "
            f"%{{customdata[1]:{shown.form}}}]<br>%{{customdata[2]}} seeds"
            + (", n = %{customdata[3]} prompts each" if measure in _TESTED else "")
            + "<extra></extra>",
        )
    figure.update_xaxes(title=shown.title, tickformat=shown.form)
    figure.update_yaxes(categoryorder="array", categoryarray=names, autorange="reversed")
    alt = f"Dots: {shown.title} of {len(part)} methods with intervals over seeds, best on top."
    return finish(
        figure, question=shown.question, alt=alt, palette=palette, height=110 + 26 * len(part)
    )


def quality_scatter(
    table: pd.DataFrame, measure: str = "exact_match", *, palette: Palette = LIGHT
) -> go.Figure:
    """Quality against trained parameters, a point for each method, with intervals over seeds.

    Args:
        table: `quality_table`: columns method, name, total, share, exact_match, loss (with _low
            and _high), seeds, n.
        measure: `exact_match` or `loss`.
        palette: Colours.
    """
    question = "What do more parameters buy?"
    part = table[table["total"].notna()] if len(table) else table
    if part.empty:
        return empty(question, _NOTHING, palette)
    style, figure, shown = styles(part["name"], palette), go.Figure(), MEASURES[measure]
    for _, rows in part.groupby("method", sort=False):
        name = str(rows["name"].iloc[0])
        own = bool((rows["method"] == OWN).all())
        low, high = rows[f"{measure}_low"], rows[f"{measure}_high"]
        figure.add_scatter(
            x=rows["total"],
            y=rows[measure],
            name=name,
            mode="markers",
            marker={
                "color": style[name].colour,
                "symbol": style[name].marker,
                "size": 15 if own else 10,
                "line": {"width": 2 if own else 0, "color": palette.muted},
            },
            error_y=interval(rows[measure], low, high, style[name].colour, thickness=2),
            customdata=rows[["share", "seeds", "n"]].assign(low=low, high=high),
            hovertemplate=f"%{{y:{shown.form}}} [%{{customdata[3]:{shown.form}}}, "
            f"%{{customdata[4]:{shown.form}}}]<br>%{{x:,}} parameters, %{{customdata[0]:.3f}} % of "
            "the base<br>%{customdata[1]} seeds, n = %{customdata[2]}"
            f"<extra>{name}</extra>",
        )
    figure.update_xaxes(title="trained parameters (logarithmic)", type="log")
    figure.update_yaxes(title=shown.title, tickformat=shown.form)
    alt = f"Points: {shown.title} against trained parameters of {len(part)} methods."
    finish(figure, question=question, alt=alt, palette=palette, height=520)
    return figure.update_layout(
        showlegend=True, margin={"t": 12}, legend={"y": -0.2, "yanchor": "top"}
    )


_MATRICES = {
    "nats": (
        "change",
        "low",
        "high",
        "+.4f",
        "change of loss (nats a token)",
        "change of loss (nats per answer token)",
    ),
    "exact": (
        "lost",
        "lost_low",
        "lost_high",
        "+.1%",
        "exact match lost",
        "exact match lost (share of the prompts)",
    ),
}
"""Unit -> columns of value and ends, number format, name in the hover text, title of the scale."""


def interference_matrices(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
    unit: str = "nats",
    palette: Palette = LIGHT,
) -> go.Figure:
    """`I_train` of several methods side by side, on one scale: rows trained, columns measured.

    Args:
        table: `interference_table`: columns method, name, trained, evaluated, change, low, high,
            lost, lost_low, lost_high, seeds, n.
        names: Order of the skills.
        methods: Labels of the methods to draw; None draws all.
        unit: `nats` draws the change of the loss, `exact` the exact match that is lost.
        palette: Colours; above 0 is harm with both units.
    """
    question = "Does training on one skill harm the others, and with which method?"
    value, low, high, form, told, title = _MATRICES[unit]
    part = table if methods is None else table[table["method"].isin(list(methods))]
    part = part[part[value].notna()] if len(part) else part
    if part.empty:
        return empty(question, "None of these methods has this measurement.", palette)
    titles = _titles(part)
    lines, places = panel_places(len(titles), _COLUMNS)
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        subplot_titles=list(titles.values()),
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / lines,
    )
    hover = (
        f"trained on %{{customdata[4]}}, measured on %{{customdata[5]}}<br>{told} %{{z:{form}}} "
        f"[%{{customdata[0]:{form}}}, %{{customdata[1]:{form}}}]<br>%{{customdata[2]}} seeds, "
        "n = %{customdata[3]}<extra></extra>"
    )
    for label, place in zip(titles, places, strict=True):
        own = part[part["method"] == label]
        rows, columns = ordered(names, own["trained"]), ordered(names, own["evaluated"])
        add_cells(
            figure,
            own,
            ("trained", rows, rows),
            ("evaluated", columns, columns),
            value,
            (low, high, "seeds", "n"),
            hover,
            place=place,
        )
        first = place["col"] == 1
        cell_axes(
            figure,
            ("trained on" if first else "", rows if first else [""] * len(rows)),
            ("measured on" if place["row"] == lines else "", columns),
            place=place,
        )
    figure.update_traces(textfont={"size": 11})  # two columns on a narrow screen
    alt = f"Heat-maps on one scale: I_train of {', '.join(titles.values())}, mean over seeds."
    n_skills = part["trained"].nunique()
    return finish_cells(
        figure,
        part[value],
        title,
        question=question,
        alt=alt,
        palette=palette,
        height=130 + lines * (100 + 40 * n_skills),
    )


def sequential_curves(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
    palette: Palette = LIGHT,
) -> go.Figure:
    """Loss of every skill while the skills are learned one after the other, a panel a method.

    Args:
        table: `sequential_table`: columns method, name, stage, trained, evaluated, loss, low,
            high, exact_match, seeds.
        names: Order of the skills.
        methods: Labels of the methods to draw; None draws all.
        palette: Colours.
    """
    question = "What is left of a skill when others are learned after it?"
    part = table if methods is None else table[table["method"].isin(list(methods))]
    if part.empty:
        return empty(question, "None of these methods has this measurement.", palette)
    titles = _titles(part)
    lines, places = panel_places(len(titles), _COLUMNS)
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        subplot_titles=list(titles.values()),
        shared_yaxes=True,
        horizontal_spacing=0.06,
        vertical_spacing=0.34 / lines,
    )
    style = styles(ordered(names, part["evaluated"]), palette)
    for i, (label, place) in enumerate(zip(titles, places, strict=True)):
        own = part[part["method"] == label]
        for skill in ordered(names, own["evaluated"]):
            curve = own[own["evaluated"] == skill].sort_values("stage")
            _add_curve(figure, curve, skill, style[skill], place, legend=i == 0)
        stages = own.drop_duplicates("stage").sort_values("stage")
        figure.update_xaxes(
            tickvals=stages["stage"], ticktext=stages["trained"], tickangle=0, **place
        )
    figure.update_xaxes(title="trained last", row=lines)
    figure.update_yaxes(title="loss (nats a token)", rangemode="tozero", col=1)
    alt = (
        f"Lines: loss of {part['evaluated'].nunique()} skills after each stage of training them "
        f"one after another, for {', '.join(titles.values())}."
    )
    finish(figure, question=question, alt=alt, palette=palette, height=120 + 260 * lines)
    return figure.update_layout(margin={"t": 84}, legend={"y": 1 + 44 / (260 * lines)})


def _titles(table: pd.DataFrame) -> dict[str, str]:
    """Label -> name of the methods, in the order of the table."""
    return dict(zip(table["method"], table["name"], strict=True))


def _add_curve(
    figure: go.Figure,
    curve: pd.DataFrame,
    skill: str,
    style: Style,
    place: dict[str, Any],
    *,
    legend: bool,
) -> None:
    figure.add_scatter(
        x=curve["stage"],
        y=curve["loss"],
        mode="lines+markers",
        name=skill,
        legendgroup=skill,
        showlegend=legend,
        **place,
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"color": style.colour, "symbol": style.marker, "size": 8},
        error_y=interval(curve["loss"], curve["low"], curve["high"], style.colour, thickness=2),
        customdata=curve[["trained", "low", "high", "exact_match", "seeds"]],
        hovertemplate=f"{skill} after %{{customdata[0]}}: %{{y:.4f}} [%{{customdata[1]:.4f}}, "
        "%{customdata[2]:.4f}] nats a token<br>exact match %{customdata[3]:.1%}, %{customdata[4]} "
        "seeds<extra></extra>",
    )
