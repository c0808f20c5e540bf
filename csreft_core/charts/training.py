"""Figures of a run's metrics over the optimiser steps, and of its scores."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.charts.elements import bar_marker, panel_places
from csreft_core.charts.theme import (
    LIGHT,
    Palette,
    Style,
    empty,
    finish,
    ordered,
    styles,
    thin,
)

_STEPS = "optimiser steps"
_WAITING = "No records yet. The first come when training starts."


def _line(part: pd.DataFrame, column: str, style: Style, **more: object) -> go.Scatter:
    part = part.sort_values("step")
    x, y = thin(part["step"], part[column])
    options = {
        "mode": "lines",
        "line": {"color": style.colour, "dash": style.dash, "width": 2},
        "hovertemplate": "step %{x}: %{y:.6g}<extra>%{fullData.name}</extra>",
    }
    return go.Scatter(x=x, y=y, **(options | more))


def loss_curves(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Loss of each skill over the steps: thin for training, with markers for validation.

    Args:
        table: `loss_table`: columns step, skill, split, loss (nats per answer token).
        names: Order of the skills.
        palette: Colours.
    """
    question = "Is each skill being learned?"
    if table.empty:
        return empty(question, _WAITING, palette)
    skills = ordered(names, table["skill"])
    style = styles(skills, palette)
    figure = go.Figure()
    for skill in skills:
        part = table[table["skill"] == skill]
        s = style[skill]
        train, validation = (part[part["split"] == split] for split in ("train", "validation"))
        if not train.empty:
            figure.add_trace(
                _line(
                    train,
                    "loss",
                    s,
                    name=f"{skill}, training",
                    legendgroup=skill,
                    showlegend=validation.empty,
                    opacity=0.45,
                    line={"color": s.colour, "width": 1},
                )
            )
        if not validation.empty:
            figure.add_trace(
                _line(
                    validation,
                    "loss",
                    s,
                    name=skill,
                    legendgroup=skill,
                    mode="lines+markers",
                    marker={"symbol": s.marker, "size": 8},
                )
            )
    figure.update_xaxes(title=_STEPS)
    figure.update_yaxes(title="loss (nats per answer token)", rangemode="tozero")
    alt = f"Lines: loss of {len(skills)} skills over the steps, in training and in validation."
    return finish(figure, question=question, alt=alt, palette=palette, height=410)


def gate_curves(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Mean gates over the steps, one panel for each true skill of the prompts.

    Args:
        table: `gate_curve_table`: columns step, skill, subspace, gate (no unit).
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    question = "Does the router tell the skills apart?"
    if table.empty:
        return empty(question, _WAITING, palette)
    skills, subspaces = ordered(names, table["skill"]), ordered(names, table["subspace"])
    style = styles(ordered(names, [*subspaces, *skills]), palette)
    columns = min(2, len(skills))
    rows, places = panel_places(len(skills), columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.28 / rows,
        horizontal_spacing=0.05,
        subplot_titles=[f"prompts: {skill}" for skill in skills],
    )
    for i, skill in enumerate(skills):
        for subspace in subspaces:
            part = table[(table["skill"] == skill) & (table["subspace"] == subspace)]
            trace = _line(
                part, "gate", style[subspace], name=subspace, legendgroup=subspace, showlegend=not i
            )
            figure.add_trace(trace, **places[i])
    figure.update_yaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1])
    figure.update_yaxes(title="mean gate (no unit)", col=1)
    figure.update_xaxes(title=_STEPS, row=rows)
    figure.update_annotations(font={"size": 13})
    alt = (
        f"Lines: mean gate of {len(subspaces)} subspaces over the steps, "
        f"in {len(skills)} panels, one for each true skill."
    )
    height = 110 + 150 * rows
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_layout(margin={"t": 62}, legend={"y": 1 + 40 / height})


def entropy_curve(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Mean binary entropy of the gates; ln 2 is a gate of one half.

    Args:
        table: `step_table`: columns step, gate_entropy (nats).
        palette: Colours.
    """
    question = "How sure is the router?"
    if table.empty or table["gate_entropy"].isna().all():
        return empty(question, _WAITING, palette)
    style = styles(["entropy"], palette)["entropy"]
    figure = go.Figure(_line(table, "gate_entropy", style, name="gate entropy"))
    figure.add_hline(
        y=0.6931,
        line={"color": palette.muted, "dash": "dot", "width": 1},
        annotation_text="ln 2: all gates at one half",
        annotation_position="bottom right",
    )
    figure.update_xaxes(title=_STEPS)
    figure.update_yaxes(title="gate entropy (nats a gate)", range=[0, 0.74])
    alt = "Line: mean entropy of the gates over the steps; the dotted line is ln 2."
    return finish(figure, question=question, alt=alt, palette=palette, height=280)


def constraint_curves(
    table: pd.DataFrame, *, names: tuple[str, ...] = (), palette: Palette = LIGHT
) -> go.Figure:
    """Orthonormality error on a logarithmic scale, and overlap between subspaces below it.

    Args:
        table: `step_table`: columns step, orthonormality_error (no unit), overlap (0 to 1) and,
            where the run has it, constraint_error (no unit).
        names: Columns of the upper panel; all that are there if left out.
        palette: Colours.
    """
    question = "Do the subspaces stay orthonormal?"
    columns = [c for c in names or ("orthonormality_error", "constraint_error") if c in table]
    if table.empty or not columns:
        return empty(question, _WAITING, palette)
    style = styles([*columns, "overlap"], palette)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for column in columns:
        # The logarithm has no 0; 1e-9 is far below what float32 can tell from 0 here.
        part = table.assign(**{column: table[column].clip(lower=1e-9)})
        trace = _line(part, column, style[column], name=column.replace("_", " "))
        figure.add_trace(trace, row=1, col=1)
    if not table["overlap"].isna().all():
        trace = _line(table, "overlap", style["overlap"], name="overlap")
        figure.add_trace(trace, row=2, col=1)
    figure.update_xaxes(title=_STEPS, row=2)
    figure.update_yaxes(
        title="error (no unit)", type="log", exponentformat="power", dtick=2, row=1, col=1
    )
    figure.update_yaxes(title="overlap (0 to 1)", rangemode="tozero", row=2, col=1)
    alt = "Two panels over the steps: error of the constraint, logarithmic, and mean overlap."
    return finish(figure, question=question, alt=alt, palette=palette, height=380)


def optimiser_curves(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Gradient norm, and the learning rates below it.

    Args:
        table: `step_table`: columns step, grad_norm (loss per parameter), lr, router_lr.
        palette: Colours.
    """
    question = "Is the optimiser steady?"
    if table.empty:
        return empty(question, _WAITING, palette)
    style = styles(["gradient norm", "subspaces", "router"], palette)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.add_trace(
        _line(table, "grad_norm", style["gradient norm"], name="gradient norm"), row=1, col=1
    )
    for column, name in (("lr", "subspaces"), ("router_lr", "router")):
        trace = _line(table, column, style[name], name=f"learning rate, {name}")
        figure.add_trace(trace, row=2, col=1)
    figure.update_xaxes(title=_STEPS, row=2)
    figure.update_yaxes(title="gradient norm", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="learning rate", rangemode="tozero", row=2, col=1)
    alt = "Two panels over the steps: the gradient norm, and the two learning rates."
    return finish(figure, question=question, alt=alt, palette=palette, height=360)


def exact_match_bars(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Share of right answers of each skill, one bar for each run.

    Args:
        table: Columns skill, exact_match (0 to 1), n (prompts) and, for several runs, run.
        names: Order of the skills.
        palette: Colours.
    """
    question = "How many answers are right?"
    if table.empty:
        return empty(question, "No evaluation yet. The first comes soon after the start.", palette)
    table = table if "run" in table else table.assign(run="")
    skills, runs = ordered(names, table["skill"]), list(dict.fromkeys(table["run"]))
    by_skill = styles(skills, palette)
    by_run = styles(runs, palette)
    figure = go.Figure()
    for run in runs:
        part = table[table["run"] == run].set_index("skill")
        there = [skill for skill in skills if skill in part.index]
        alone = len(runs) == 1
        colours = [by_skill[s].colour for s in there] if alone else by_run[run].colour
        shapes = [by_skill[s].pattern for s in there] if alone else by_run[run].pattern
        figure.add_bar(
            x=part.loc[there, "exact_match"],
            y=there,
            orientation="h",
            name=run,
            showlegend=not alone,
            marker=bar_marker(colours, shapes),
            customdata=part.loc[there, ["n"]],
            text=[f"{value:.0%}" for value in part.loc[there, "exact_match"]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4f} of %{customdata[0]} prompts<extra>" + run + "</extra>",
        )
    figure.update_xaxes(
        title="exact match (share of prompts)",
        range=[0, 1.12],
        tickformat=".0%",
        tickvals=[0, 0.25, 0.5, 0.75, 1],
    )
    figure.update_yaxes(autorange="reversed")
    alt = f"Bars: share of right answers for each of {len(skills)} skills."
    height = max(280, 110 + 14 * len(skills) + 26 * len(skills) * len(runs))
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def run_curves(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Mean validation loss of several runs over the steps.

    Args:
        table: Columns run, step, loss (nats per answer token, mean over the skills).
        palette: Colours.
    """
    question = "Which run learns faster, and which ends lower?"
    if table.empty:
        return empty(question, "No evaluation of these runs yet.", palette)
    runs = list(dict.fromkeys(table["run"]))
    style = styles(runs, palette)
    figure = go.Figure()
    for run in runs:
        part = table[table["run"] == run]
        marker = {"symbol": style[run].marker, "size": 8}
        figure.add_trace(
            _line(part, "loss", style[run], name=run, mode="lines+markers", marker=marker)
        )
    figure.update_xaxes(title=_STEPS)
    figure.update_yaxes(title="mean loss (nats per answer token)", rangemode="tozero")
    alt = f"Lines: mean validation loss of {len(runs)} runs over the steps."
    return finish(figure, question=question, alt=alt, palette=palette, height=340)
