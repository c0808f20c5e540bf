"""Figures of what gates tell and cost: metrics, losses per setting, and over thresholds."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import HARD, SOFT
from csreft_core.charts.elements import interval, name_rows, panel_places
from csreft_core.charts.theme import LIGHT, Palette, Style, empty, finish, ordered, styles

_INFORMATION = {
    "nmi": "NMI of open<br>gates and skill",
    "probe_accuracy": "skill read from<br>the soft gates",
    "matched_accuracy": "matched<br>accuracy",
    "usage_balance": "usage<br>balance",
}
_PROFILE = {
    "range": ("max - min", 1.0),
    "variance": ("variance", 0.25),
    "entropy": ("entropy (nats)", 0.6931),
    "open_share": ("share open", 1.0),
}
_NOTHING = "Nothing to compare: no prompt was scored."


def information_dots(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """What the open gates tell about the skill, for each source, on the scale from 0 to 1.

    Args:
        table: `metrics_table`: columns source, metric, value, low, high, n.
        palette: Colours.
    """
    question = "Do the open gates tell the skill?"
    shown = table[table["metric"].isin(list(_INFORMATION)) & table["value"].notna()]
    if shown.empty:
        return empty(question, _NOTHING, palette)
    sources = list(dict.fromkeys(table["source"]))
    metrics = ordered(_INFORMATION, shown["metric"])
    figure = go.Figure()
    for i, (source, style) in enumerate(styles(sources, palette).items()):
        part = shown[shown["source"] == source]
        places = part["metric"].map(metrics.index) + _offset(i, len(sources))
        figure.add_trace(_dots(part, "value", "", places, style, source, "%{x:.4f}"))
    figure.update_xaxes(title="no unit, 0 to 1", range=[-0.04, 1.04])
    name_rows(figure, [_INFORMATION[m] for m in metrics])
    alt = (
        f"Points with 95 % intervals: {len(metrics)} measures for {len(sources)} sources of gates."
    )
    height = 140 + 70 * len(metrics)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def gate_profile(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """How far each gate moves, how unsure it is, and how often it is open, for each source.

    Args:
        table: `metrics_table`: columns source, metric, subspace, value, low, high, n, unit.
        names: Order of the subspaces.
        palette: Colours.
    """
    question = "How does each gate behave?"
    shown = table[table["metric"].isin(list(_PROFILE))]
    if shown.empty:
        return empty(question, _NOTHING, palette)
    sources = list(dict.fromkeys(shown["source"]))
    subspaces = ordered(names, shown["subspace"])
    titles = [title for title, _ in _PROFILE.values()]
    figure = make_subplots(
        rows=2,
        cols=2,
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.2,
    )
    _, places = panel_places(len(_PROFILE))
    for j, (metric, (_, highest)) in enumerate(_PROFILE.items()):
        for i, (source, style) in enumerate(styles(sources, palette).items()):
            part = shown[(shown["source"] == source) & (shown["metric"] == metric)]
            at = part["subspace"].map(subspaces.index) + _offset(i, len(sources))
            trace = _dots(part, "value", "", at, style, source, "%{x:.4g}")
            figure.add_trace(trace.update(showlegend=j == 0, legendgroup=source), **places[j])
        figure.update_xaxes(range=[-0.04 * highest, 1.04 * highest], **places[j])
    name_rows(figure, subspaces)
    figure.update_annotations(font={"size": 13})
    alt = (
        f"Four panels of points: range, variance, entropy and share of open prompts of "
        f"{len(subspaces)} gates, for {len(sources)} sources."
    )
    height = 170 + 2 * 44 * len(subspaces)
    figure = finish(figure, question=question, alt=alt, palette=palette, height=height)
    return figure.update_layout(margin={"t": 66}, legend={"y": 1 + 40 / height})


def setting_dots(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Loss and exact match under learned gates and under each control, with 95 % intervals.

    Args:
        table: `settings_table`: columns source, loss (nats per answer token), exact_match, n,
            and their _low and _high.
        palette: Colours.
    """
    question = "Is the router or the edit the bottleneck?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    sources = list(table["source"])
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for i, (source, style) in enumerate(styles(sources, palette).items()):
        part = table[table["source"] == source]
        for column, (metric, unit) in enumerate(
            (("loss", "%{x:.4f} nats"), ("exact_match", "%{x:.2%}"))
        ):
            trace = _dots(part, metric, f"{metric}_", [float(i)], style, source, unit)
            figure.add_trace(trace.update(showlegend=False), row=1, col=column + 1)
    figure.update_xaxes(title="loss (nats per<br>answer token)", rangemode="tozero", col=1)
    figure.update_xaxes(
        title="exact match<br>(share of prompts)",
        range=[-0.06, 1.06],
        tickformat=".0%",
        tickvals=[0, 0.5, 1],
        col=2,
    )
    name_rows(figure, [name.replace(" (", "<br>(") for name in sources])
    n = int(table["n"].iloc[0])
    alt = (
        f"Points with 95 % intervals: loss and exact match of {len(sources)} gate settings, n {n}."
    )
    height = 120 + 46 * len(sources)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def sweep_lines(
    table: pd.DataFrame, *, threshold: float | None = None, palette: Palette = LIGHT
) -> go.Figure:
    """Loss and exact match of hard gates over the threshold; dotted: the soft gates.

    Args:
        table: `sweep_table`: columns source, gates, threshold (0 to 1), loss (nats per answer
            token), exact_match, their _low and _high, n_open, n.
        threshold: A line at the run's own threshold.
        palette: Colours.
    """
    question = "Does the threshold matter?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    sources = list(dict.fromkeys(table["source"]))
    for source, style in styles(sources, palette).items():
        part = table[table["source"] == source]
        hard, soft = part[part["gates"] == HARD], part[part["gates"] == SOFT]
        for row, metric in enumerate(("loss", "exact_match"), 1):
            figure.add_scatter(
                x=hard["threshold"],
                y=hard[metric],
                mode="lines+markers",
                name=f"{source}, hard",
                legendgroup=source,
                showlegend=row == 1,
                line={"color": style.colour, "width": 2, "shape": "linear"},
                marker={"symbol": style.marker, "size": 7},
                error_y=_error(hard, metric, f"{metric}_", style.colour),
                customdata=hard[["n_open", "n"]],
                hovertemplate="threshold %{x:.2f}: %{y:.4f}<br>%{customdata[0]:.2f} gates open, "
                "n = %{customdata[1]}<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
            figure.add_scatter(
                x=[0, 1],
                y=[soft[metric].iloc[0]] * 2,
                mode="lines",
                name=f"{source}, soft",
                legendgroup=source,
                showlegend=row == 1,
                line={"color": style.colour, "width": 1.5, "dash": "dot"},
                hovertemplate="soft gates: %{y:.4f}<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": palette.muted, "dash": "dash", "width": 1})
    figure.update_yaxes(title="loss (nats per<br>answer token)", rangemode="tozero", row=1)
    figure.update_yaxes(
        title="exact match<br>(share)", range=[-0.04, 1.06], tickformat=".0%", row=2
    )
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_xaxes(title="threshold (gates above it: 1, others: 0)", row=2)
    alt = (
        f"Lines: loss and exact match of hard gates over the threshold, for {len(sources)} sources."
    )
    return finish(figure, question=question, alt=alt, palette=palette, height=430)


def _offset(i: int, n: int) -> float:
    """Sources of one line stand beside each other, so that equal values do not hide."""
    return 0.6 * ((i + 0.5) / n - 0.5)


def _error(part: pd.DataFrame, metric: str, prefix: str, colour: str) -> dict:
    """The interval of an estimate, which can lie outside by rounding."""
    value = part[metric]
    low, high = part[f"{prefix}low"].clip(upper=value), part[f"{prefix}high"].clip(lower=value)
    return interval(value, low, high, colour, width=3)


def _dots(
    part: pd.DataFrame,
    metric: str,
    prefix: str,
    places: Sequence[float] | pd.Series,
    style: Style,
    source: str,
    number: str,
) -> go.Scatter:
    return go.Scatter(
        x=part[metric],
        y=places,
        mode="markers",
        name=source,
        marker={"color": style.colour, "symbol": style.marker, "size": 10},
        cliponaxis=False,
        error_x=_error(part, metric, prefix, style.colour),
        customdata=part[[f"{prefix}low", f"{prefix}high", "n"]],
        hovertemplate=number + "<br>95 %: %{customdata[0]:.4g} to %{customdata[1]:.4g}<br>"
        "n = %{customdata[2]}<extra>%{fullData.name}</extra>",
    )
