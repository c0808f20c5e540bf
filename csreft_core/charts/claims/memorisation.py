"""Figure of the memory of one vector: the share of a text that comes back, against its length."""

import pandas as pd
import plotly.graph_objects as go

from csreft_core.analysis.labels import RANDOM, SCRAMBLED, TEXT
from csreft_core.charts.elements import interval
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, styles

_NAMES = {TEXT: "text", SCRAMBLED: "its words in random order", RANDOM: "random words"}


def memory_lines(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """A line for each kind of text, with intervals over seeds.

    Args:
        table: `shares_table` of `claims.memorisation`: columns kind, layer, tokens, share, low,
            high, seeds, parameters. The first layer is drawn.
        palette: Colours.
    """
    question = "How long a text does one vector give back?"
    if table.empty:
        return empty(question, "No text was learned yet.", palette)
    table = table[table["layer"] == table["layer"].iloc[0]]
    look, figure = styles(_NAMES, palette), go.Figure()
    for kind, part in table.groupby("kind", sort=False):
        style = look[str(kind)]
        figure.add_scatter(
            x=part["tokens"],
            y=part["share"],
            name=_NAMES[str(kind)],
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={"symbol": style.marker, "size": 10},
            error_y=interval(part["share"], part["low"], part["high"], style.colour),
            customdata=part[["low", "high", "seeds"]],
            hovertemplate="%{x} tokens: %{y:.0%} [%{customdata[0]:.0%}, %{customdata[1]:.0%}], "
            "%{customdata[2]} seeds<extra>%{fullData.name}</extra>",
        )
    lengths = sorted(set(table["tokens"]))
    figure.update_xaxes(title="length of the text (tokens)", tickvals=lengths, type="log")
    figure.update_yaxes(title="share given back", tickformat=".0%", rangemode="tozero")
    n = int(table["parameters"].iloc[0])
    alt = (
        f"Lines: share of a text that one vector of {n} parameters gives back, by its length, "
        "beside its words in random order and random words."
    )
    return finish(figure, question=question, alt=alt, palette=palette, height=300)
