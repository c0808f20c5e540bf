"""Heat-maps of edits: how strong at each layer and token, and of which subspace."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from csreft_core.analysis.labels import ALL_OPEN, GATED
from csreft_core.charts.theme import LIGHT, Palette, empty, finish, ordered

# Dark blue to yellow: told apart with every common colour blindness, on light and dark pages.
SCALE = ((0.0, "#12385f"), (0.5, "#6f8296"), (1.0, "#ffd75e"))
_NOTHING = "No prompts to show."


def size_map(table: pd.DataFrame, *, palette: Palette = LIGHT) -> go.Figure:
    """Relative edit size by layer and token, the value in each cell.

    Args:
        table: `size_table`.
        palette: Colours.
    """
    question = "How strong is the edit, and where?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    wide = table.pivot(index="layer", columns="place", values="size")
    where = {
        c: table.pivot(index="layer", columns="place", values=c)
        for c in ("highest", "between", "n")
    }
    texts = table.drop_duplicates("place").set_index("place")["text"]
    ticks = [(texts[p].strip() or "␣") if texts[p] else f"{p}" for p in wide.columns]
    figure = go.Figure(
        go.Heatmap(
            x=list(range(len(ticks))),
            y=wide.index,
            z=wide.where(where["n"] > 0),
            text=wide.map(_cell),
            texttemplate="%{text}",
            customdata=np.stack([ticks_of(ticks, wide), *(where[c] for c in where)], axis=-1),
            hovertemplate="layer %{y}, token %{customdata[0]}: %{z:.6f} of |h|"
            "<br>highest %{customdata[1]:.4f}, two prompts apart %{customdata[2]:.4f}"
            "<br>n = %{customdata[3]}<extra></extra>",
            colorscale=[list(stop) for stop in SCALE],
            zmin=0,
            xgap=1,
            ygap=1,
            showscale=False,
        )
    )
    edited = table.drop_duplicates("layer").set_index("layer")["edited_layer"]
    single = bool(texts.str.len().gt(0).any())
    figure.update_xaxes(
        title=f"{'token' if single else 'token from the end'}; in cells |h' - h| / |h| (no unit)",
        tickvals=list(range(len(ticks))),
        ticktext=ticks,
        showgrid=False,
    )
    figure.update_yaxes(
        title="output of layer",
        tickvals=list(wide.index),
        ticktext=[f"{i} (edited)" if edited[i] else str(i) for i in wide.index],
        showgrid=False,
    )
    alt = (
        f"Heat-map: |h' - h| / |h| (no unit) for {len(wide)} layers and {len(ticks)} tokens, over "
        f"{int(table['n'].max())} prompts."
    )
    height = 150 + 34 * len(wide)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)


def ticks_of(ticks: list[str], wide: pd.DataFrame) -> np.ndarray:
    """The tick texts, once a row, for the hover."""
    return np.tile(np.array(ticks, dtype=object), (len(wide), 1))


def _cell(value: float) -> str:
    if np.isnan(value):
        return ""
    return "0" if value == 0 else f"{value:.2f}" if value >= 0.005 else "<.01"


def energy_map(
    table: pd.DataFrame, names: Sequence[str] | None = None, *, palette: Palette = LIGHT
) -> go.Figure:
    """Share of each subspace in the edit, by skill: with the gates, and with all gates at 1.

    Args:
        table: `energy_table`.
        names: Order of the skills and subspaces.
        palette: Colours.
    """
    question = "Whose subspace makes the edit?"
    if table.empty:
        return empty(question, _NOTHING, palette)
    skills, subspaces = (ordered(names, table[c]) for c in ("skill", "subspace"))
    kinds = (GATED, ALL_OPEN)
    titles = ("with the gates", ALL_OPEN)
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=titles)
    for column, kind in enumerate(kinds, start=1):
        part = table[table["kind"].eq(kind)]
        wide, n = (
            part.pivot(index="skill", columns="subspace", values=c).loc[skills, subspaces]
            for c in ("share", "n")
        )
        figure.add_heatmap(
            row=1,
            col=column,
            x=list(range(len(subspaces))),
            y=list(range(len(skills))),
            z=wide,
            text=wide.map(lambda v: "" if np.isnan(v) else f"{v:.0%}"),
            texttemplate="%{text}",
            customdata=np.stack(
                [
                    np.tile(np.array(skills, object)[:, None], len(subspaces)),
                    np.tile(np.array(subspaces, object), (len(skills), 1)),
                    n,
                ],
                -1,
            ),
            hovertemplate="prompts of %{customdata[0]}, subspace %{customdata[1]}: %{z:.4%}"
            "<br>n = %{customdata[2]}<extra></extra>",
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
        )
    figure.update_xaxes(
        title="subspace", tickvals=list(range(len(subspaces))), ticktext=subspaces, showgrid=False
    )
    figure.update_yaxes(
        tickvals=list(range(len(skills))), ticktext=skills, autorange="reversed", showgrid=False
    )
    figure.update_yaxes(title="prompts of", row=1, col=1)
    figure.update_coloraxes(
        colorscale=[list(stop) for stop in SCALE], cmin=0, cmax=1, showscale=False
    )
    alt = (
        f"Two heat-maps: share of {len(subspaces)} subspaces in the edit of {len(skills)} skills' "
        "prompts, with the gates and with all gates at 1."
    )
    height = 170 + 40 * len(skills)
    return finish(figure, question=question, alt=alt, palette=palette, height=height)
